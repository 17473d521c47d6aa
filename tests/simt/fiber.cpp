// Owns the switch between fibers: a few instructions on x86-64, ucontext elsewhere, and what the address sanitizer must
// be told about it.
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#ifdef SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// SIMT_UCONTEXT tries the portable way where the other would do.
#if defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_OWN_SWITCH 1
#endif
#if SIMT_OWN_SWITCH
extern "C" void simt_switch(void **save, void *take);
// What a called function must keep goes on the old stack and comes from the new one. MXCSR stays: it is the caller's.
asm(R"(
.text
.p2align 4
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");
#else
#include <ucontext.h>
#endif

namespace simt {
namespace {

// Instrumented frames are several times as large.
#ifdef SIMT_ASAN
constexpr std::size_t stack_bytes = 256 << 10;
#else
constexpr std::size_t stack_bytes = 64 << 10;
#endif

Fiber *previous = nullptr;  // whom the last switch left

void allocate(Fiber &fiber) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  fiber.map_bytes = stack_bytes + page;
  fiber.map =
      mmap(nullptr, fiber.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // The lowest page stays closed: a stack that overflows ends the program, not its neighbour's stack.
  if (fiber.map == MAP_FAILED || mprotect(fiber.map, page, PROT_NONE) != 0) {
    std::perror("simt: no memory for a fiber's stack");
    std::abort();
  }
  fiber.stack = static_cast<char *>(fiber.map) + page;
  fiber.stack_bytes = stack_bytes;
}

}  // namespace

void prepare(Fiber &fiber, void (*entry)(), unsigned colour) {
  if (fiber.stack == nullptr) allocate(fiber);
#ifdef SIMT_ASAN
  ASAN_UNPOISON_MEMORY_REGION(fiber.stack, fiber.stack_bytes);  // of the frames of an abandoned function
#endif
  fiber.fake_stack = nullptr;
  char *top = static_cast<char *>(fiber.stack) + fiber.stack_bytes - colour % 16 * 256;
#if SIMT_OWN_SWITCH
  void **slot = reinterpret_cast<void **>(top);  // a multiple of 16
  *--slot = nullptr;                             // in the place of a return address
  *--slot = reinterpret_cast<void *>(entry);
  for (int i = 0; i < 6; ++i) *--slot = nullptr;
  fiber.state = slot;
#else
  auto *context = static_cast<ucontext_t *>(fiber.state);
  if (context == nullptr) fiber.state = context = new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = fiber.stack;
  context->uc_stack.ss_size = static_cast<std::size_t>(top - static_cast<char *>(fiber.stack));
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
#endif
}

void fiber_started() {
#ifdef SIMT_ASAN
  // The previous one may be the program itself, whose stack nobody has told us.
  const void *stack;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(nullptr, &stack, &bytes);
  if (previous->map == nullptr) previous->stack = const_cast<void *>(stack), previous->stack_bytes = bytes;
#endif
}

void switch_fiber(Fiber &from, Fiber &to) {
  previous = &from;
#ifdef SIMT_ASAN
  __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_bytes);
#endif
#if SIMT_OWN_SWITCH
  simt_switch(&from.state, to.state);
#else
  if (from.state == nullptr) from.state = new ucontext_t;
  swapcontext(static_cast<ucontext_t *>(from.state), static_cast<ucontext_t *>(to.state));
#endif
#ifdef SIMT_ASAN
  const void *stack;
  std::size_t bytes;
  __sanitizer_finish_switch_fiber(from.fake_stack, &stack, &bytes);
  if (previous->map == nullptr) previous->stack = const_cast<void *>(stack), previous->stack_bytes = bytes;
#endif
}

}  // namespace simt
