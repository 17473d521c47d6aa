// Owns the laws of the device's backend in a process: threads that begin, step and end, and what they leave.
#include <malloc.h>

#include <atomic>
#include <new>
#include <thread>

#include "parts.h"
#include "sides.h"

using namespace simt;

namespace {

// Allocations as large as a launch's table, and those of them that are still there.
std::atomic<int> made{0}, live{0};
bool is_large(std::size_t bytes) { return bytes > 30000 && bytes < 34000; }

// Rows for one launch, norms included, on the device and on the CPU.
struct Both {
  Side cpu, device;
  Both(std::uint32_t flags)
      : cpu(options_with(flags), {{1, 300, 0}, {2, 256, 0}}, 0), device(options_with(flags), cpu.shapes, 0) {
    device.options.device = 0;
  }
  static adamw_step_options options_with(std::uint32_t flags) {
    adamw_step_options options = step_options(ADAMW_STATE_BLOCK8, flags);
    options.percentile_clipping = 50;
    return options;
  }
  void step(std::int64_t number) {
    for (Side *side : {&cpu, &device}) {
      side->fill_gradients(static_cast<std::uint64_t>(number), false);
      CHECK(side->step(number, false) == ADAMW_OK, "step %lld: %s", static_cast<long long>(number), adamw_last_error());
    }
    CHECK(synchronize(), "a kernel failed");
    check_same(cpu, device, "step " + std::to_string(number));
  }
};

void step_both() {
  for (std::uint32_t flags : {0u, static_cast<std::uint32_t>(ADAMW_STEP_AMSGRAD)}) {
    Both both(flags);
    for (std::int64_t number = 1; number <= 2; ++number) both.step(number);
  }
}

// ---- ends ----

// Steps when it is destroyed, between others who take and give back memory.
struct StepsAtItsEnd {
  bool counts = true;
  ~StepsAtItsEnd() {
    for (int i = 0; i < 5; ++i) {
      step_both();
      for (std::size_t bytes = 31000; bytes < 33000; bytes += 16) {
        const std::unique_ptr<char[]> filled(new char[bytes]);
        std::memset(filled.get(), 0xEE, bytes);
      }
    }
  }
};

// Law: a thread's last destructors may step, and leave nothing.
void check_end_of_a_thread() {
  step_both();
  const int before = live;
  std::thread([] {
    CHECK(current_contexts().empty(), "a thread begins with a context");  // the fake driver's, which must outlive it
    static thread_local StepsAtItsEnd late;  // made before anything of the library is used on this thread
    late.counts = true;
    step_both();
  }).join();
  CHECK(live == before, "%d tables stay", live - before);
}

// Law: what a launch carries is memory of the process: no step makes it anew, whichever thread it is on.
void check_tables_stay() {
  const auto made_by = [](const auto &steps) {
    const int before = made;
    steps();
    return made - before;
  };
  const int first = made_by(step_both), copies = made_by(step_both);  // the fake driver has a copy of each launch
  CHECK(first > copies, "%d, then %d", first, copies);
  for (int i = 0; i < 3; ++i) {
    const int more = made_by([] { std::thread(step_both).join(); }) - copies;
    CHECK(more == 0, "%d tables were made", more);
  }
}

}  // namespace

void *operator new(std::size_t bytes) {
  void *memory = std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  if (is_large(malloc_usable_size(memory))) ++made, ++live;
  return memory;
}
void operator delete(void *memory) noexcept {
  if (memory != nullptr && is_large(malloc_usable_size(memory))) --live;
  std::free(memory);
}
void operator delete(void *memory, std::size_t) noexcept { operator delete(memory); }

int main(int argc, char **argv) {
  return run_parts(argc, argv, {{"tables", check_tables_stay}, {"ends", check_end_of_a_thread}});
}
