// Owns the operations that math.h is written with, for one lane of a GPU: V is float, I is uint32_t. Include it before
// math.h: names for built-in types are looked up where a template is defined. On a CPU (tests/simt) they are those of
// the scalar kernel.
#pragma once

#include "../../numerics/codebook.h"
#include "device.h"

#if defined(__CUDACC__)

namespace adamw {

ADAMW_DEVICE std::uint32_t bits(float x) { return __float_as_uint(x); }
ADAMW_DEVICE float from_bits(std::uint32_t x) { return __uint_as_float(x); }
ADAMW_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
ADAMW_DEVICE float sqrt(float x) { return __fsqrt_rn(x); }
ADAMW_DEVICE float max(float a, float b) { return ::fmaxf(a, b); }
ADAMW_DEVICE float min(float a, float b) { return ::fminf(a, b); }
ADAMW_DEVICE float absolute(float x) { return ::fabsf(x); }
ADAMW_DEVICE float to_float(std::uint32_t a) { return __int2float_rn(static_cast<int>(a)); }
ADAMW_DEVICE std::uint32_t truncate(float a) { return static_cast<std::uint32_t>(__float2int_rz(a)); }
ADAMW_DEVICE float float16_to_float(std::uint32_t h) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<unsigned short>(h)));
  return x;
}
ADAMW_DEVICE std::uint32_t float_to_float16(float x) {
  unsigned short h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
  return h;
}

}  // namespace adamw

#else

#include "../../cpu/registers_scalar.h"

namespace adamw {

ADAMW_INLINE std::uint32_t bits(float x) { return register_bits(x); }
ADAMW_INLINE float from_bits(std::uint32_t x) { return register_from_bits(x); }
ADAMW_INLINE float fma(float a, float b, float c) { return register_fma(a, b, c); }
ADAMW_INLINE float sqrt(float x) { return register_sqrt(x); }
ADAMW_INLINE float max(float a, float b) { return register_max(a, b); }
ADAMW_INLINE float min(float a, float b) { return register_min(a, b); }
ADAMW_INLINE float absolute(float x) { return from_bits(bits(x) & 0x7FFFFFFFu); }
ADAMW_INLINE float to_float(std::uint32_t a) { return register_to_float(a); }
ADAMW_INLINE std::uint32_t truncate(float a) { return register_truncate(a); }
ADAMW_INLINE float float16_to_float(std::uint32_t h) { return register_float16_to_float(h); }
ADAMW_INLINE std::uint32_t float_to_float16(float x) { return register_float_to_float16(x); }

}  // namespace adamw

#endif

namespace adamw {

ADAMW_DEVICE float maximum(float a, float b) { return a > b ? a : b; }  // b where either is NaN
ADAMW_DEVICE bool less(float a, float b) { return a < b; }
ADAMW_DEVICE bool less_equal(float a, float b) { return a <= b; }
ADAMW_DEVICE bool not_equal(float a, float b) { return a != b; }
ADAMW_DEVICE bool not_equal(std::uint32_t a, std::uint32_t b) { return a != b; }
ADAMW_DEVICE float select(bool m, float a, float b) { return m ? a : b; }
ADAMW_DEVICE std::uint32_t select(bool m, std::uint32_t a, std::uint32_t b) { return m ? a : b; }
ADAMW_DEVICE float flip_sign(float a, float b) { return from_bits(bits(a) ^ (bits(b) & 0x80000000u)); }
ADAMW_DEVICE std::uint32_t shift_left(std::uint32_t a, int n) { return a << n; }
ADAMW_DEVICE float magnitude(float x) { return absolute(x); }

ADAMW_DEVICE std::uint32_t smaller(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
ADAMW_DEVICE std::uint32_t larger(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }

// Of numbers that are not negative: as integers, of which newer architectures compare three at once.
ADAMW_DEVICE float lowest(float a, float b, float c) { return from_bits(smaller(smaller(bits(a), bits(b)), bits(c))); }

ADAMW_DEVICE std::uint32_t line_class(float a) {
  const std::uint32_t exponent = bits(a) >> 23;
  return exponent < 106u ? 0u : (exponent - 106u) / 3u;
}

// A map's lines in shared memory, by the exponent of a number below 2: one shift, one wide load.
struct alignas(16) MapLines {
  float slope, offset, gap_offset, next_offset;
};
struct LineMap {
  MapLines by_exponent[128];
};
ADAMW_DEVICE MapLines map_lines(const LineMap &map, float, float x) {
  return *reinterpret_cast<const MapLines *>(reinterpret_cast<const char *>(map.by_exponent) +
                                             (bits(x) >> 19 & 0x7F0u));
}

// The noise of a random word: a signed number of 16 bits, uniform. Codes are left in bits 16 ... 23, one higher than on
// CPUs: shifting and adding are one instruction, and bits 16 ... 23 are a byte. The lowest bit of the noise changes
// nothing then.
ADAMW_DEVICE std::uint32_t noise_of(std::uint32_t word) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(word) >> 16);
}
ADAMW_DEVICE std::uint32_t rounded_code(float position, bool noisy, std::uint32_t noise) {
  return (bits(position) << 1) + (noisy ? noise : 0u);
}
ADAMW_DEVICE std::uint32_t rounded_code_or_zero(float position, float x, std::uint32_t noise) {
  return x != 0.0f ? (bits(max(position, encode_start + 1.0f)) << 1) + noise : 0u;
}

}  // namespace adamw
