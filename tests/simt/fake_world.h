// Owns what the parts of the fake driver share: its handles, its queues, its memory. Only for fake_driver.cpp and
// fake_world.cpp.
#pragma once

#include <deque>
#include <functional>
#include <mutex>

#include "fake_driver.h"

namespace simt {

using gpu::Result;

struct Allocation {
  std::size_t bytes;
  int device;
  gpu::Stream stream;
  bool freed;  // as far as the host knows: the stream has yet to come to it
};

constexpr int most_devices = 8;

struct World {
  std::recursive_mutex mutex;
  FakeDriver driver;
  std::vector<KernelEntry> kernels;
  bool initialized = false;
  Result broken = 0;  // a kernel failed: so does everything from then on
  int counted = 0;
  int held = 0;                           // contexts retained, libraries loaded, pools created, less those given back
  char contexts[most_devices];            // their addresses are the handles
  char libraries[1];                      // likewise
  std::deque<int> streams, pool_devices;  // likewise; the device of each
  std::map<gpu::Stream, std::deque<std::function<void()>>> queues;
  std::map<gpu::Pointer, Allocation> allocations;
  std::uint64_t random = 1;
};
World &world();

int device_of(gpu::Context context);  // -1: not one of ours
int current_device();                 // of the current context; -1: none

// What must have been done before a function is called.
enum Need { nothing, initialization, context, context_and_stream };
// What every function begins with: the record, the failure that a test asked for, the need. `stream`: that the function
// is given.
Result enter(const char *function, Need need, gpu::Stream stream = nullptr);
// Notes the misuse and returns `result`.
Result refuse(const char *function, Result result, const char *what);
void note(const char *function, const std::string &what);

void queue(gpu::Stream stream, std::function<void()> work);
// `bytes` of rubbish; 0: there are not so many.
gpu::Pointer allocate(std::size_t bytes, int device, gpu::Stream stream);
void release(gpu::Pointer memory);

using Lock = std::lock_guard<std::recursive_mutex>;

constexpr Result invalid_value = 1, out_of_memory = 2, not_initialized = 3, invalid_device = 101, invalid_context = 201,
                 invalid_handle = 400, not_found = 500, not_supported = 801;

}  // namespace simt
