// Owns the floating-point modes of a thread, rounding and flushing to zero, while it computes.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cstdint>
#endif

namespace adamw {

// The defaults on this thread while it lives. An entry point that computes has one before it reads its arguments, and
// each thread that computes has one: the result then depends on no caller's modes.
class DefaultFloatMode {
#if defined(__x86_64__)
 public:
  DefaultFloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~DefaultFloatMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  DefaultFloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~DefaultFloatMode() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_;
#endif
};

}  // namespace adamw
