// Owns a CUDA driver without a GPU: the functions of libadamw/gpu/driver.h on host memory, with runtime.h to run the
// kernels. It is stricter than a real one, keeps a record, and fails where a test asks for it. Knows no kernel by name.
//
// Work on streams is queued and runs when somebody waits for it, at synchronize() at the latest, the streams
// interleaved at random as far as events allow: what a call has left behind for its kernels, they must find then.
// Misuse that a real driver would let pass is noted in `misuse`, which must stay empty.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "../../libadamw/gpu/driver.h"

namespace simt {

namespace gpu = adamw::gpu;

struct KernelEntry {
  const char *name;
  unsigned threads;  // that a block must have
  std::size_t params_bytes;
  void (*run)(const void *params);
};
// F(name, Params, threads) of a list of kernels: SIMT_KERNELS(ADAMW_KERNELS) makes them known, once in a program.
#define SIMT_KERNEL(name, Params, threads) \
  simt::KernelEntry{#name, threads, sizeof(Params), [](const void *p) { name(*static_cast<const Params *>(p)); }},
#define SIMT_KERNELS(LIST) const bool simt_kernels_known = simt::add_kernels({LIST(SIMT_KERNEL)});
bool add_kernels(const std::vector<KernelEntry> &kernels);

struct Call {
  std::string function;
  gpu::Stream stream;  // null also where the function has none
  int device;          // of the current context; -1: none
};

// Somebody waits for an event, or the host for a stream.
struct Wait {
  bool on_host;
  int stream;  // that waits, or is waited for on the host: numbered from 0 since the library has last made an event;
               // -1: none, or none that the library has made
  int event;   // that is waited for: numbered from 0 since the library has last made a stream; -1: none
};

struct FakeDriver {
  // What the machine has.
  int devices = 1, driver_version = 13000, multiprocessors = 3, blocks_per_multiprocessor = 2;
  bool memory_pools = true;
  std::size_t memory = std::size_t{1} << 30;  // bytes on each device
  std::map<int, int> attributes{
      {75, 9}, {76, 0}, {89, 1}};  // CUdevice_attributes: compute capability, concurrent access
  int hints = 2;                   // version of cuMemPrefetchAsync and cuMemAdvise; 0: it has none
  gpu::Result at_init = 0;         // of cuInit
  bool queued = true;              // false: work runs within the call that queues it

  // The call that fails, counted from 1 since reset(); 0: none. Functions that give something back (cuMemFreeAsync,
  // cuCtxPopCurrent) or wait do so and then report the failure, as a real driver reports those of earlier work.
  int failing_call = 0;
  gpu::Result failure = 719;

  // Mutants of a protocol: which waits are lost.
  bool (*loses)(const Wait &wait) = nullptr;

  // What happened since reset().
  std::vector<Call> calls;            // without cuGetErrorName and cuGetErrorString
  std::vector<std::string> launched;  // names of kernels
  std::vector<std::string> misuse;
  std::size_t device_bytes_peak = 0;  // of cuMemAlloc, and of unified memory that was moved there
};
FakeDriver &fake();
const gpu::Driver *fake_driver();  // always the same table, which has the functions that fake() now says

// Settings and record as at the beginning. Streams, pools, kernels and contexts stay valid, as nobody can tell who
// holds them; work that is queued still is forgotten, and its memory freed.
void reset();
// The next call is call 1 for failing_call.
void restart_count();
// As in a new process: cuInit has not been called. The library must not remember it either (gpu::replace_driver).
void restart();
// Runs all queued work. false: a kernel failed (its message went to the runtime's handler).
bool synchronize();

gpu::Stream new_stream(int device = 0);
gpu::Context context_of(int device);
std::vector<gpu::Context> &current_contexts();  // of this thread, the current one last
std::size_t live_allocations();                 // with those that queued work has yet to free
int held();                                     // contexts retained, libraries, pools: what must be given back
int handles();                                  // likewise streams and events
std::size_t pools();                            // ever created

// Work of the test's own.
void enqueue(gpu::Stream stream, const std::function<void()> &work);

// Captures the work of a stream instead of queueing it; the second says what replay() queues.
void begin_capture(gpu::Stream stream);
void end_capture(gpu::Stream stream);
void replay(gpu::Stream stream);

// Memory of the library, as if copied from and to it when all work is done.
void copy_from_device(void *to, const void *from, std::size_t bytes);
void copy_to_device(void *to, const void *from, std::size_t bytes);

}  // namespace simt
