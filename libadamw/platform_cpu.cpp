// Owns what platform.h declares of the processor.
#include "platform.h"

#ifdef ADAMW_X86_64
#include <cpuid.h>
#endif

namespace adamw {

#if defined(ADAMW_X86_64)

namespace {

// clang 14 does not know "f16c" as a name for __builtin_cpu_supports().
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

}  // namespace

bool cpu_has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

std::uint64_t float_mode() { return __builtin_ia32_stmxcsr(); }
void set_float_mode(std::uint64_t mode) { __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode)); }
std::uint64_t default_float_mode() { return 0x1F80; }

#else

bool cpu_has_avx2() { return false; }
bool cpu_has_avx512() { return false; }

#if defined(ADAMW_AARCH64)
std::uint64_t float_mode() {
  std::uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(std::uint64_t mode) { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#else
std::uint64_t float_mode() { return 0; }
void set_float_mode(std::uint64_t) {}
#endif
std::uint64_t default_float_mode() { return 0; }

#endif

}  // namespace adamw
