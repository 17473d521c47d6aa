// Owns fibers: functions with stacks of their own that hand one processor to each other. Knows no GPU.
#pragma once

#include <cstddef>

namespace simt {

// The stack and the registers of a fiber that does not run now. The one that runs has none: a default Fiber receives
// it.
struct Fiber {
  void *state = nullptr;  // of the switch
  void *stack = nullptr;  // lowest address; null: not ours (the program's own stack)
  std::size_t stack_bytes = 0;
  void *fake_stack = nullptr;  // of the address sanitizer
  void *map = nullptr;         // with its guard page
  std::size_t map_bytes = 0;
};

// Readies a fiber to run entry(), which must never return, at the first switch to it. `colour` staggers the stacks of
// many fibers, so that their tops do not compete for the same lines of the cache. May be called again for a fiber whose
// function has been abandoned.
void prepare(Fiber &fiber, void (*entry)(), unsigned colour);

// Leaves `from`, which runs now, for `to`. Returns when somebody switches back.
void switch_fiber(Fiber &from, Fiber &to);

// The first call of every entry().
void fiber_started();

}  // namespace simt
