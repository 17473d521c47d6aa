// Owns what the parts of the fake driver share: its handles, its queues, its memory. Only for fake_*.cpp.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "fake_driver.h"

namespace simt {

using gpu::Result;

enum class Kind { pool, device, host, managed };

struct Allocation {
  std::size_t bytes;
  int device;
  gpu::Stream stream;
  bool freed;  // as far as the host knows: the stream has yet to come to it
  Kind kind = Kind::pool;
  gpu::Pointer begin = 0;
  std::vector<bool> pages{};  // of unified memory: those that are on the device
};

struct EventState {
  int device, number;  // number: see Wait
  std::uint64_t recorded = 0, done = 0;
};

// One piece of work of a stream: it begins when the event has come as far as when it was waited for.
struct Work {
  std::function<void()> run;
  std::shared_ptr<EventState> event;
  std::uint64_t ticket;

  bool is_ready() const { return event == nullptr || event->done >= ticket; }
};

constexpr int max_devices = 8;

struct World {
  std::recursive_mutex mutex;
  FakeDriver driver;
  std::vector<KernelEntry> kernels;
  bool initialized = false;
  Result broken = 0;  // a kernel failed: so does everything from then on
  int counted = 0;
  int held = 0;                           // contexts retained, libraries loaded, pools created, less those given back
  int handles = 0;                        // streams and events made by the library, less those given back
  int events_made = 0, streams_made = 0;  // each since the last one of the other kind was
  char contexts[max_devices];             // their addresses are the handles
  char libraries[1];                      // likewise
  std::deque<int> streams, pool_devices;  // likewise; the device of each
  std::map<gpu::Stream, std::deque<Work>> queues;
  std::map<gpu::Stream, std::vector<Work>> captures, graphs;  // of streams that are, and have been, captured
  std::map<gpu::Stream, int> own_streams;                     // that the library has made; numbered as Wait says
  gpu::Stream favourite = nullptr;                            // whose work runs on for a while
  std::map<gpu::Event, std::shared_ptr<EventState>> events;
  std::map<gpu::Pointer, Allocation> allocations;
  std::size_t device_bytes = 0;  // of cuMemAlloc, and of unified memory that is there
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

void queue(gpu::Stream stream, std::function<void()> work, std::shared_ptr<EventState> event = nullptr,
           std::uint64_t ticket = 0);
bool is_captured(gpu::Stream stream);
// Runs queued work until `done` says so, or there is none.
void run_until(const std::function<bool()> &done);
std::uint64_t next_random();

// `bytes` of rubbish; 0: there are not so many.
gpu::Pointer allocate(std::size_t bytes, int device, gpu::Stream stream);
void release(gpu::Pointer memory);
// The same for the other kinds (fake_memory.cpp): in pages of their own, which nobody can touch before and behind,
// after their end, and, if they are the device's, while none of its work runs.
gpu::Pointer allocate_pages(std::size_t bytes, Kind kind, int device);
void release_pages(gpu::Pointer memory);
// The allocation of `kind` that has all of these bytes; null: none has.
Allocation *find(Kind kind, gpu::Pointer memory, std::size_t bytes);
void note_device_bytes(std::int64_t change);

// While it lives, the host plays the device.
class DeviceTurn {
 public:
  DeviceTurn();
  ~DeviceTurn();
  DeviceTurn(const DeviceTurn &) = delete;

 private:
  bool closes_arena_;
};

// The functions of the table, in fake_driver.cpp and fake_streams.cpp.
namespace entries {
using namespace adamw::gpu;
#define SIMT_DECLARE(name, arguments) Result name arguments;
ADAMW_DRIVER_FUNCTIONS(SIMT_DECLARE)
ADAMW_OPTIONAL_DRIVER_FUNCTIONS(SIMT_DECLARE)
#undef SIMT_DECLARE
}  // namespace entries

#define ENTER(...)                \
  const Lock lock(world().mutex); \
  if (const Result failed = enter(__func__, __VA_ARGS__)) return failed

using Lock = std::lock_guard<std::recursive_mutex>;

constexpr Result invalid_value = 1, out_of_memory = 2, not_initialized = 3, invalid_device = 101, invalid_context = 201,
                 invalid_handle = 400, not_found = 500, not_supported = 801, capture_unsupported = 900,
                 capture_isolation = 905;

}  // namespace simt
