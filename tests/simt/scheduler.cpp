// Owns who runs when, in the order that the seed gives, and the life of a thread.
#include "scheduler.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace simt {

Thread *current = nullptr;
State &state = *new State;  // and never deleted: so are the stacks

namespace {
constexpr long max_idle_switches = 1'000'000;
void thread_main();
}  // namespace

std::uint32_t random_word() {  // xorshift64*
  std::uint64_t x = state.random;
  x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
  state.random = x;
  return static_cast<std::uint32_t>((x * 0x2545F4914F6CDD1Du) >> 32);
}
std::size_t random_below(std::size_t n) { return static_cast<std::size_t>((std::uint64_t{random_word()} * n) >> 32); }

const char *name_of(Primitive primitive) {
  static const char *const names[] = {"nothing",     "barrier", "warp_barrier", "shuffle",
                                      "shuffle_xor", "any",     "warp_max"};
  return names[static_cast<int>(primitive)];
}

// Mostly a lane of the same warp, so that its stacks stay in the cache.
Thread *choose() {
  if (state.running == nullptr || state.running->ready == 0 || random_word() % 16 == 0) {
    const std::size_t n = state.warps.size(), begin = n != 0 ? random_below(n) : 0;
    state.running = nullptr;
    for (std::size_t i = 0; i < n && state.running == nullptr; ++i) {
      Warp *warp = state.warps[begin + i < n ? begin + i : begin + i - n];
      if (warp->ready != 0) state.running = warp;
    }
    if (state.running == nullptr) return nullptr;
  }
  const std::uint32_t ready = state.running->ready;
  const unsigned turn = random_word() % lanes;  // the first lane from here on
  const std::uint32_t turned = turn == 0 ? ready : ready >> turn | ready << (lanes - turn);
  return state.running->threads[(first_lane(turned) + turn) % lanes].get();
}

void switch_to(Thread *next) {
  Thread *self = current;
  if (next == self) return;
  current = next;
  switch_fiber(self != nullptr ? self->fiber : state.program, next != nullptr ? next->fiber : state.program);
}

void start_block(Block &block) {
  block.id = state.order[state.started++];
  block.warps_waiting = block.warps_returned = 0;
  block.shared.begin(random_word() % 2 == 0 ? 0xFF : static_cast<unsigned char>(random_word()));
  for (std::size_t w = 0; w < block.warps_used; ++w) {
    Warp &warp = *block.warps[w];
    warp.ready = all_lanes;
    warp.arrived = warp.returned = 0;
    for (auto &thread : warp.threads) {
      if (thread->waits_for_kernel) continue;
      prepare(thread->fiber, thread_main, thread->lane);
      thread->waits_for_kernel = true;
    }
  }
}

namespace {

// The running thread has come to the kernel's end. Returns when it shall run the kernel again, in another block.
void finish_thread() {
  Warp &warp = *current->warp;
  Block &block = *warp.block;
  if (warp.arrived != 0) {
    fail("deadlock: it returns, but thread %u of its warp waits in %s at %s:%d",
         warp.threads[first_lane(warp.arrived)]->id, name_of(warp.primitive), warp.site.file, warp.site.line);
  }
  if (block.warps_waiting != 0) {
    fail("deadlock: it returns, but other warps of its block wait in barrier at %s:%d", block.site.file,
         block.site.line);
  }
  state.idle_switches = 0;
  warp.ready &= ~(1u << current->lane);
  warp.returned |= 1u << current->lane;
  if (warp.returned == all_lanes && ++block.warps_returned == block.warps_used) {
    if (!block.shared.intact()) fail("the block has written beyond its shared memory");
    if (state.started < state.order.size()) start_block(block);
  }
  switch_to(choose());
}

void thread_main() {
  fiber_started();
  for (;;) {
    current->waits_for_kernel = false;
    state.launch->entry(state.launch->params);
    current->waits_for_kernel = true;
    finish_thread();
  }
}

}  // namespace

void pause() {
  if (current == nullptr || random_word() % 4 != 0) return;
  if (++state.idle_switches > max_idle_switches) fail("it and others wait for something that does not come");
  state.running = nullptr;  // not only lanes of this warp
  switch_to(choose());
}

void fail(const char *format, ...) {
  int length = 0;
  if (current != nullptr) {
    length = std::snprintf(state.message, sizeof state.message,
                           "kernel %s, block %u, thread %u: ", state.launch->kernel, block_id(), current->id);
  }
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(state.message + length, sizeof state.message - static_cast<std::size_t>(length), format, arguments);
  va_end(arguments);
  state.failed = true;
  if (current != nullptr) {
    current->waits_for_kernel = false;
    switch_to(nullptr);  // for good: the threads are abandoned where they are
  }
  std::printf("simt: outside of a kernel: %s\n", state.message);
  std::fflush(stdout);
  std::abort();
}

}  // namespace simt
