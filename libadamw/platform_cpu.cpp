// Owns what platform.h declares of the processor.
#include "platform.h"

#ifdef ADAMW_X86_64
#include <cpuid.h>
#endif

namespace adamw {

#if defined(ADAMW_X86_64)

namespace {

// By the instructions themselves: __builtin_cpu_supports() is the compiler's runtime library, and that of some knows
// nothing.
struct Processor {
  bool avx2 = false, avx512 = false;

  Processor() {
    unsigned eax = 0, ebx = 0, features = 0, extended = 0, unused = 0;
    if (!__get_cpuid(1, &eax, &ebx, &features, &unused)) return;
    if ((features & bit_OSXSAVE) == 0 || !__get_cpuid_count(7, 0, &eax, &extended, &unused, &ebx)) return;
    unsigned saved = 0;  // the registers that the system keeps for each thread
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    const auto all = [](unsigned bits, unsigned wanted) { return (bits & wanted) == wanted; };
    avx2 = all(saved, 0x06) && all(features, bit_AVX | bit_FMA | bit_F16C) && all(extended, bit_AVX2);
    avx512 = avx2 && all(saved, 0xE6) && all(extended, bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL);
  }
};

const Processor &processor() {
  static const Processor here;
  return here;
}

}  // namespace

bool cpu_has_avx2() { return processor().avx2; }
bool cpu_has_avx512() { return processor().avx512; }

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
