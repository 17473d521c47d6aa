// Owns the operations that math.h is written with, for one lane of a GPU: V is float, I is uint32_t. Include it before
// math.h: names for built-in types are looked up where a template is defined. On a CPU (tests/simt) they are those of
// the scalar kernel.
#pragma once

#include "../../numerics/types.h"
#include "device.h"

#if defined(__CUDACC__)

namespace adamw {

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

// a - b, but not below 0.
ADAMW_DEVICE std::uint32_t less_by(std::uint32_t a, std::uint32_t b) { return a > b ? a - b : 0u; }
ADAMW_DEVICE std::uint32_t zero_where_zero(float x, std::uint32_t a) { return x != 0.0f ? a : 0u; }

// The noise of a random word: a signed number of 16 bits, uniform. Codes are left in bits 16 ... 23, one higher than on
// CPUs: shifting and adding are one instruction, and bits 16 ... 23 are a byte. The lowest bit of the noise changes
// nothing then.
ADAMW_DEVICE std::uint32_t noise_of(std::uint32_t word) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(word) >> 16);
}
ADAMW_DEVICE std::uint32_t rounded_code(float position, std::uint32_t noise) { return (bits(position) << 1) + noise; }
ADAMW_DEVICE std::uint32_t rounded_code(float position, bool noisy, std::uint32_t noise) {
  return rounded_code(position, noisy ? noise : 0u);
}

}  // namespace adamw
