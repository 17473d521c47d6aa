// Owns the fake driver's record, its queues and its memory, and what tests ask of it.
#include "fake_world.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "block_memory.h"
#include "runtime.h"

namespace simt {
namespace {

constexpr std::size_t guard = 64;
constexpr unsigned char guard_value = 0xA7;

thread_local std::vector<gpu::Context> contexts_of_thread;

bool stream_is_valid(gpu::Stream stream) {
  const auto number = reinterpret_cast<std::uintptr_t>(stream);
  if (number <= 2) return true;  // the legacy default stream, twice, and the thread's
  for (const int &device : world().streams)
    if (reinterpret_cast<const int *>(stream) == &device) return device == current_device();
  return false;
}

}  // namespace

World &world() {
  static World world;
  return world;
}

int device_of(gpu::Context context) {
  const auto *p = reinterpret_cast<const char *>(context);
  for (int i = 0; i < max_devices; ++i)
    if (p == &world().contexts[i]) return i;
  return -1;
}
int current_device() { return contexts_of_thread.empty() ? -1 : device_of(contexts_of_thread.back()); }

void note(const char *function, const std::string &what) {
  world().driver.misuse.push_back(std::string(function) + ": " + what);
}
Result refuse(const char *function, Result result, const char *what) {
  note(function, what);
  return result;
}

Result enter(const char *function, Need need, gpu::Stream stream) {
  World &w = world();
  w.driver.calls.push_back({function, stream, current_device()});
  if (++w.counted == w.driver.failing_call) return w.driver.failure;
  if (need == nothing) return 0;
  if (!w.initialized) return refuse(function, not_initialized, "before cuInit");
  if (w.broken != 0) return w.broken;
  if (need >= context && current_device() < 0) return refuse(function, invalid_context, "without a current context");
  if (need == context_and_stream && !stream_is_valid(stream))
    return refuse(function, invalid_handle, "a stream that is not of the current context's device");
  return 0;
}

bool is_captured(gpu::Stream stream) { return world().captures.count(stream) != 0; }

void queue(gpu::Stream stream, std::function<void()> work, std::shared_ptr<EventState> event, std::uint64_t ticket) {
  if (is_captured(stream)) return world().captures[stream].push_back({std::move(work), std::move(event), ticket});
  if (!world().driver.queued) {
    const DeviceTurn turn;
    return work();
  }
  world().queues[stream].push_back({std::move(work), std::move(event), ticket});
}

std::uint64_t next_random() {
  std::uint64_t &random = world().random;
  return (random = random * 6364136223846793005u + settings().seed * 2 + 1) >> 33;
}

// One stream runs on for a while: what does not wait for it is then far behind, and what it does not wait for far
// ahead.
void run_until(const std::function<bool()> &done) {
  auto &queues = world().queues;
  std::vector<gpu::Stream> ready;
  if (done()) return;
  const DeviceTurn turn;  // of all that runs now: opening and closing the device's memory takes longer than most works
  while (!done() && !queues.empty()) {
    ready.clear();
    for (const auto &[stream, works] : queues)
      if (works.front().is_ready()) ready.push_back(stream);
    if (ready.empty()) return note("a wait", "for an event that never comes");
    gpu::Stream &stream = world().favourite;
    const bool goes_on = std::find(ready.begin(), ready.end(), stream) != ready.end();
    if (!goes_on || next_random() % 8 == 0) stream = ready[next_random() % ready.size()];
    const auto it = queues.find(stream);
    const Work work = std::move(it->second.front());
    it->second.pop_front();
    if (it->second.empty()) queues.erase(it);
    work.run();
  }
}

gpu::Pointer allocate(std::size_t bytes, int device, gpu::Stream stream) {
  std::size_t used = bytes;
  for (const auto &[at, allocation] : world().allocations)
    if (allocation.device == device) used += allocation.bytes;
  void *p = nullptr;
  if (used > world().driver.memory || posix_memalign(&p, 256, bytes + guard) != 0) return 0;
  std::memset(p, 0xFF, bytes);  // nobody may rely on zeros
  std::memset(static_cast<char *>(p) + bytes, guard_value, guard);
#ifdef SIMT_GUARDED_BY_ASAN
  ASAN_POISON_MEMORY_REGION(static_cast<char *>(p) + bytes, guard);
#endif
  const auto memory = reinterpret_cast<gpu::Pointer>(p);
  world().allocations[memory] = {bytes, device, stream, false, Kind::pool, memory, {}};
  return memory;
}

void release(gpu::Pointer memory) {
  const auto it = world().allocations.find(memory);
  if (it->second.kind != Kind::pool) return release_pages(memory);
  auto *bytes = reinterpret_cast<unsigned char *>(memory);
#ifdef SIMT_GUARDED_BY_ASAN
  ASAN_UNPOISON_MEMORY_REGION(bytes + it->second.bytes, guard);
#endif
  for (std::size_t i = 0; i < guard; ++i) {
    if (bytes[it->second.bytes + i] != guard_value) {
      note("a kernel", "wrote beyond memory of " + std::to_string(it->second.bytes) + " bytes");
      break;
    }
  }
  std::memset(bytes, 0xDD, it->second.bytes + guard);
  std::free(bytes);
  world().allocations.erase(it);
}

bool add_kernels(const std::vector<KernelEntry> &kernels) {
  world().kernels.insert(world().kernels.end(), kernels.begin(), kernels.end());
  return true;
}

FakeDriver &fake() { return world().driver; }

void reset() {
  const Lock lock(world().mutex);
  world().driver = FakeDriver();
  world().queues.clear();
  world().captures.clear();
  while (!world().allocations.empty()) release(world().allocations.begin()->first);
  world().driver.misuse.clear();
  world().counted = 0;
  world().broken = 0;
}

void restart_count() { world().counted = 0; }

void restart() {
  reset();
  world().initialized = false;
}

bool synchronize() {
  const Lock lock(world().mutex);
  run_until([] { return false; });
  return world().broken == 0;
}

void enqueue(gpu::Stream stream, const std::function<void()> &work) {
  const Lock lock(world().mutex);
  queue(stream, work);
}

void begin_capture(gpu::Stream stream) { world().captures[stream].clear(); }
void end_capture(gpu::Stream stream) {
  world().graphs[stream] = std::move(world().captures[stream]);
  world().captures.erase(stream);
}
void replay(gpu::Stream stream) {
  for (const Work &work : world().graphs[stream]) queue(stream, work.run, work.event, work.ticket);
}

gpu::Stream new_stream(int device) {
  world().streams.push_back(device);
  return reinterpret_cast<gpu::Stream>(&world().streams.back());
}
gpu::Context context_of(int device) { return reinterpret_cast<gpu::Context>(&world().contexts[device]); }
std::vector<gpu::Context> &current_contexts() { return contexts_of_thread; }
std::size_t live_allocations() { return world().allocations.size(); }
int held() { return world().held; }
int handles() { return world().handles; }
std::size_t pools() { return world().pool_devices.size(); }

}  // namespace simt
