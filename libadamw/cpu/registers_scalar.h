// Owns the operations on one lane in portable C++, which compilers turn into their baseline SIMD once vector.h loops
// over them. It is the definition that the other registers_*.h must match bit for bit.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../numerics/types.h"

namespace adamw {
namespace {  // each instruction set's object file keeps its own copies: the linker must never merge them

using FloatRegister = float;
using IntRegister = std::uint32_t;
struct MaskRegister {
  std::uint32_t all;  // ones or zeros
};
constexpr int register_lanes = 1;

ADAMW_INLINE float register_set(float x) { return x; }
ADAMW_INLINE std::uint32_t register_set(std::uint32_t x) { return x; }

ADAMW_INLINE std::uint32_t register_bits(float x) { return bits(x); }
ADAMW_INLINE float register_from_bits(std::uint32_t b) { return from_bits(b); }

// fma without the instruction: the product of two floats is exact in double; rounding the sum to odd there makes the
// second rounding, to float, the only one that counts (Boldo & Melquiond, "Emulation of FMA and correctly rounded
// sums").
ADAMW_INLINE float register_fma(float a, float b, float c) {
#if defined(__FP_FAST_FMAF)
  return std::fma(a, b, c);
#else
  const double product = static_cast<double>(a) * b, addend = c, sum = product + addend;
  const double back = sum - product, error = (product - (sum - back)) + (addend - back);
  std::uint64_t s;
  std::memcpy(&s, &sum, 8);
  // Towards the exact value if that makes the last bit odd. error is NaN where the sum is not finite: then nothing
  // moves.
  const bool even = (s & 1) == 0, up = error > 0, down = error < 0, negative = (s >> 63) != 0;
  if (even && (up || down)) s = (up != negative) ? s + 1 : s - 1;
  double odd;
  std::memcpy(&odd, &s, 8);
  return static_cast<float>(odd);
#endif
}

ADAMW_INLINE float register_add(float a, float b) { return a + b; }
ADAMW_INLINE float register_sub(float a, float b) { return a - b; }
ADAMW_INLINE float register_mul(float a, float b) { return a * b; }
ADAMW_INLINE float register_div(float a, float b) { return a / b; }
ADAMW_INLINE float register_max(float a, float b) { return a > b ? a : b; }
ADAMW_INLINE float register_min(float a, float b) { return a < b ? a : b; }
ADAMW_INLINE float register_sqrt(float a) { return std::sqrt(a); }
ADAMW_INLINE std::uint32_t register_add(std::uint32_t a, std::uint32_t b) { return a + b; }
ADAMW_INLINE std::uint32_t register_sub(std::uint32_t a, std::uint32_t b) { return a - b; }
ADAMW_INLINE std::uint32_t register_mul(std::uint32_t a, std::uint32_t b) { return a * b; }
ADAMW_INLINE std::uint32_t register_and(std::uint32_t a, std::uint32_t b) { return a & b; }
ADAMW_INLINE std::uint32_t register_or(std::uint32_t a, std::uint32_t b) { return a | b; }
ADAMW_INLINE std::uint32_t register_xor(std::uint32_t a, std::uint32_t b) { return a ^ b; }
ADAMW_INLINE float register_flip_sign(float a, float b) {
  return register_from_bits(register_bits(a) ^ (register_bits(b) & 0x80000000u));
}
ADAMW_INLINE std::uint32_t register_max(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }
// Of numbers below 2^31.
ADAMW_INLINE std::uint32_t register_min(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
// a - b, or 0 where a is 0. The lower half of b is 0; no other a is below it.
ADAMW_INLINE std::uint32_t register_less_by(std::uint32_t a, std::uint32_t b) { return a != 0 ? a - b : 0u; }
ADAMW_INLINE std::uint32_t register_shift_left(std::uint32_t a, int n) { return a << n; }
ADAMW_INLINE std::uint32_t register_shift_right(std::uint32_t a, int n) { return a >> n; }
ADAMW_INLINE std::uint32_t register_shift_right_signed(std::uint32_t a, int n) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(a) >> n);
}

ADAMW_INLINE MaskRegister register_less(float a, float b) { return {a < b ? ~0u : 0u}; }
ADAMW_INLINE MaskRegister register_less_equal(float a, float b) { return {a <= b ? ~0u : 0u}; }
ADAMW_INLINE MaskRegister register_not_equal(float a, float b) { return {a != b ? ~0u : 0u}; }
ADAMW_INLINE MaskRegister register_and(MaskRegister a, MaskRegister b) { return {a.all & b.all}; }
ADAMW_INLINE int register_count(MaskRegister m) { return static_cast<int>(m.all & 1); }
ADAMW_INLINE std::uint32_t register_select(MaskRegister m, std::uint32_t a, std::uint32_t b) {
  return (m.all & a) | (~m.all & b);
}
ADAMW_INLINE float register_select(MaskRegister m, float a, float b) {
  return register_from_bits(register_select(m, register_bits(a), register_bits(b)));
}
ADAMW_INLINE std::uint32_t register_add_where(MaskRegister m, std::uint32_t a, std::uint32_t b) {
  return a + (m.all & b);
}
ADAMW_INLINE std::uint32_t register_zero_where_zero(float x, std::uint32_t a) { return x != 0.0f ? a : 0u; }

ADAMW_INLINE float register_to_float(std::uint32_t a) { return static_cast<float>(static_cast<std::int32_t>(a)); }
ADAMW_INLINE std::uint32_t register_truncate(float a) {
  return static_cast<std::uint32_t>(static_cast<std::int32_t>(a));
}

ADAMW_INLINE std::uint32_t register_spread(const std::uint32_t *p) { return *p; }
ADAMW_INLINE std::uint32_t register_reduce_max(std::uint32_t a) { return a; }

ADAMW_INLINE float register_load(const float *p) { return *p; }
ADAMW_INLINE std::uint32_t register_load(const std::uint32_t *p) { return *p; }
ADAMW_INLINE std::uint32_t register_load(const std::uint16_t *p) { return *p; }
ADAMW_INLINE std::uint32_t register_load(const std::uint8_t *p) { return *p; }
ADAMW_INLINE std::uint32_t register_load(const std::int16_t *p) { return static_cast<std::uint32_t>(*p); }
ADAMW_INLINE std::uint32_t register_load(const std::int8_t *p) { return static_cast<std::uint32_t>(*p); }
ADAMW_INLINE void register_store(float *p, float a) { *p = a; }
ADAMW_INLINE void register_store(std::uint32_t *p, std::uint32_t a) { *p = a; }
ADAMW_INLINE void register_store(std::uint16_t *p, std::uint32_t a) { *p = static_cast<std::uint16_t>(a); }
template <int from>
ADAMW_INLINE void registers_store_bytes(std::uint8_t *p, const std::uint32_t *a) {  // bits from ... from + 7
  for (int i = 0; i < 32; ++i) p[i] = static_cast<std::uint8_t>(a[i] >> from);
}

// ---- squares, which are exact in double precision ----

using SumRegister = double;
ADAMW_INLINE double register_load_sums(const double *p) { return *p; }
ADAMW_INLINE void register_store_sums(double *p, double a) { *p = a; }
ADAMW_INLINE double register_add_squares(double a, float x) {
  return a + static_cast<double>(x) * static_cast<double>(x);
}

// ---- binary16 ----

ADAMW_INLINE float register_float16_to_float(std::uint32_t h) {
  // Shifted into place the exponent is 112 too small; multiplying repairs it, denormals included.
  const float scaled = register_from_bits((h & 0x7FFFu) << 13) * 5.192296858534828e33f;
  const std::uint32_t special = (h & 0x7C00u) == 0x7C00u ? 0x7F800000u | ((h & 0x3FFu) != 0 ? 0x400000u : 0u) : 0u;
  return register_from_bits(register_bits(scaled) | special | ((h & 0x8000u) << 16));
}

ADAMW_INLINE std::uint32_t register_float_to_float16(float x) {
  const std::uint32_t b = register_bits(x), a = b & 0x7FFFFFFFu, sign = (b >> 16) & 0x8000u;
  const std::uint32_t special = a > 0x7F800000u ? 0x7E00u | ((a >> 13) & 0x3FFu) : 0x7C00u;
  const std::uint32_t normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
  const std::uint32_t denormal =
      register_bits(register_from_bits(a) + 0.5f) - 0x3F000000u;  // 0.5's unit is binary16's smallest
  return sign | (a >= 0x47800000u ? special : a < 0x38800000u ? denormal : normal);
}

}  // namespace
}  // namespace adamw
