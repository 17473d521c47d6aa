// Owns the operations on four lanes in the vectors that gcc and clang have for any processor: what the portable kernels
// are made of. Matches registers_scalar.h. Those vectors rather than loops over one lane: both the code and its
// compilation are faster.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../numerics/types.h"

// Some operations are long without instructions of their own. Inlined wherever they are used, they are most of the code
// and of the time that it takes to compile; a call for 32 lanes is little beside them.
#define ADAMW_ONCE __attribute__((noinline))

namespace adamw {
namespace {

using FloatRegister = float __attribute__((vector_size(16)));
using IntRegister = std::uint32_t __attribute__((vector_size(16)));
using SignedPart = std::int32_t __attribute__((vector_size(16)));
struct MaskRegister {
  IntRegister all;  // ones or zeros
};
constexpr int register_lanes = 4;

ADAMW_INLINE FloatRegister register_set(float x) { return FloatRegister{x, x, x, x}; }
ADAMW_INLINE IntRegister register_set(std::uint32_t x) { return IntRegister{x, x, x, x}; }
ADAMW_INLINE IntRegister register_bits(FloatRegister a) { return reinterpret_cast<IntRegister>(a); }
ADAMW_INLINE FloatRegister register_from_bits(IntRegister a) { return reinterpret_cast<FloatRegister>(a); }
ADAMW_INLINE SignedPart as_signed(IntRegister a) { return reinterpret_cast<SignedPart>(a); }
template <class Comparison>
ADAMW_INLINE IntRegister ones_where(Comparison c) {
  return reinterpret_cast<IntRegister>(c);
}
ADAMW_INLINE IntRegister choose(IntRegister m, IntRegister a, IntRegister b) { return (m & a) | (~m & b); }

// See registers_scalar.h. Without a branch, and without comparing 64-bit integers, for which SSE2 has no instruction.
ADAMW_INLINE FloatRegister register_fma(FloatRegister a, FloatRegister b, FloatRegister c) {
  FloatRegister r;
#if defined(__FP_FAST_FMAF)
  for (int i = 0; i < register_lanes; ++i) r[i] = std::fma(a[i], b[i], c[i]);
#else
  using Wide = double __attribute__((vector_size(16)));
  using WideBits = std::uint64_t __attribute__((vector_size(16)));
  for (int i = 0; i < register_lanes; i += 2) {
    const Wide product = Wide{a[i], a[i + 1]} * Wide{b[i], b[i + 1]}, addend = {c[i], c[i + 1]};
    const Wide sum = product + addend, back = sum - product;
    const Wide error = (product - (sum - back)) + (addend - back), none = {};
    const WideBits s = reinterpret_cast<WideBits>(sum), minus = -(s >> 63), even = (s & 1) - 1;  // ones or zeros
    const WideBits up = reinterpret_cast<WideBits>(error > none), down = reinterpret_cast<WideBits>(error < none);
    const Wide odd = reinterpret_cast<Wide>(s + ((((down - up) ^ minus) - minus) & even));
    r[i] = static_cast<float>(odd[0]);
    r[i + 1] = static_cast<float>(odd[1]);
  }
#endif
  return r;
}

ADAMW_INLINE FloatRegister register_add(FloatRegister a, FloatRegister b) { return a + b; }
ADAMW_INLINE FloatRegister register_sub(FloatRegister a, FloatRegister b) { return a - b; }
ADAMW_INLINE FloatRegister register_mul(FloatRegister a, FloatRegister b) { return a * b; }
ADAMW_INLINE FloatRegister register_div(FloatRegister a, FloatRegister b) { return a / b; }
ADAMW_INLINE FloatRegister register_max(FloatRegister a, FloatRegister b) {
  return register_from_bits(choose(ones_where(a > b), register_bits(a), register_bits(b)));
}
ADAMW_INLINE FloatRegister register_min(FloatRegister a, FloatRegister b) {
  return register_from_bits(choose(ones_where(a < b), register_bits(a), register_bits(b)));
}
ADAMW_INLINE FloatRegister register_sqrt(FloatRegister a) {
  return FloatRegister{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])};
}
ADAMW_INLINE IntRegister register_add(IntRegister a, IntRegister b) { return a + b; }
ADAMW_INLINE IntRegister register_sub(IntRegister a, IntRegister b) { return a - b; }
ADAMW_INLINE IntRegister register_mul(IntRegister a, IntRegister b) { return a * b; }
ADAMW_INLINE IntRegister register_and(IntRegister a, IntRegister b) { return a & b; }
ADAMW_INLINE IntRegister register_or(IntRegister a, IntRegister b) { return a | b; }
ADAMW_INLINE IntRegister register_xor(IntRegister a, IntRegister b) { return a ^ b; }
ADAMW_INLINE FloatRegister register_flip_sign(FloatRegister a, FloatRegister b) {
  return register_from_bits(register_bits(a) ^ (register_bits(b) & 0x80000000u));
}
ADAMW_INLINE IntRegister register_max(IntRegister a, IntRegister b) { return choose(ones_where(a > b), a, b); }
ADAMW_INLINE IntRegister register_min(IntRegister a, IntRegister b) {
  return choose(ones_where(as_signed(a) < as_signed(b)), a, b);
}
ADAMW_INLINE IntRegister register_less_by(IntRegister a, std::uint32_t b) { return (a - b) & ones_where(a != 0); }
ADAMW_INLINE IntRegister register_shift_left(IntRegister a, int n) { return a << n; }
ADAMW_INLINE IntRegister register_shift_right(IntRegister a, int n) { return a >> n; }
ADAMW_INLINE IntRegister register_shift_right_signed(IntRegister a, int n) {
  return reinterpret_cast<IntRegister>(as_signed(a) >> n);
}

ADAMW_INLINE MaskRegister register_less(FloatRegister a, FloatRegister b) { return {ones_where(a < b)}; }
ADAMW_INLINE MaskRegister register_less_equal(FloatRegister a, FloatRegister b) { return {ones_where(a <= b)}; }
ADAMW_INLINE MaskRegister register_not_equal(FloatRegister a, FloatRegister b) { return {ones_where(a != b)}; }
ADAMW_INLINE MaskRegister register_and(MaskRegister a, MaskRegister b) { return {a.all & b.all}; }
ADAMW_INLINE int register_count(MaskRegister m) {
  const IntRegister one = m.all & 1;
  return static_cast<int>(one[0] + one[1] + one[2] + one[3]);
}
ADAMW_INLINE IntRegister register_select(MaskRegister m, IntRegister a, IntRegister b) { return choose(m.all, a, b); }
ADAMW_INLINE FloatRegister register_select(MaskRegister m, FloatRegister a, FloatRegister b) {
  return register_from_bits(choose(m.all, register_bits(a), register_bits(b)));
}
ADAMW_INLINE IntRegister register_add_where(MaskRegister m, IntRegister a, IntRegister b) { return a + (m.all & b); }
ADAMW_INLINE IntRegister register_zero_where_zero(FloatRegister x, IntRegister a) {
  return ones_where(x != register_set(0.0f)) & a;
}

ADAMW_INLINE FloatRegister register_to_float(IntRegister a) {
  return __builtin_convertvector(as_signed(a), FloatRegister);
}
ADAMW_INLINE IntRegister register_truncate(FloatRegister a) {
  return reinterpret_cast<IntRegister>(__builtin_convertvector(a, SignedPart));
}

ADAMW_INLINE IntRegister register_spread(const std::uint32_t *p) { return register_set(*p); }
ADAMW_INLINE std::uint32_t register_reduce_max(IntRegister a) {
  const std::uint32_t low = a[0] > a[1] ? a[0] : a[1], high = a[2] > a[3] ? a[2] : a[3];
  return low > high ? low : high;
}

// ---- memory, aligned or not ----

using HalfwordPart = std::uint16_t __attribute__((vector_size(8)));
using BytePart = std::uint8_t __attribute__((vector_size(4)));
using SignedHalfwordPart = std::int16_t __attribute__((vector_size(8)));
using SignedBytePart = std::int8_t __attribute__((vector_size(4)));

template <class Part>
ADAMW_INLINE Part read(const void *p) {
  Part a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
ADAMW_INLINE FloatRegister register_load(const float *p) { return read<FloatRegister>(p); }
ADAMW_INLINE IntRegister register_load(const std::uint32_t *p) { return read<IntRegister>(p); }
ADAMW_INLINE IntRegister register_load(const std::uint16_t *p) {
  return __builtin_convertvector(read<HalfwordPart>(p), IntRegister);
}
ADAMW_INLINE IntRegister register_load(const std::uint8_t *p) {
  return __builtin_convertvector(read<BytePart>(p), IntRegister);
}
ADAMW_INLINE IntRegister register_load(const std::int16_t *p) {
  return reinterpret_cast<IntRegister>(__builtin_convertvector(read<SignedHalfwordPart>(p), SignedPart));
}
ADAMW_INLINE IntRegister register_load(const std::int8_t *p) {
  return reinterpret_cast<IntRegister>(__builtin_convertvector(read<SignedBytePart>(p), SignedPart));
}
ADAMW_INLINE void register_store(float *p, FloatRegister a) { std::memcpy(p, &a, sizeof a); }
ADAMW_INLINE void register_store(std::uint32_t *p, IntRegister a) { std::memcpy(p, &a, sizeof a); }
ADAMW_INLINE void register_store(std::uint16_t *p, IntRegister a) {
  const HalfwordPart half = __builtin_convertvector(a, HalfwordPart);
  std::memcpy(p, &half, sizeof half);
}
template <int from>
ADAMW_INLINE void registers_store_bytes(std::uint8_t *p, const IntRegister *a) {
  for (int i = 0; i < 8; ++i) {
    const BytePart codes = __builtin_convertvector(a[i] >> from, BytePart);
    std::memcpy(p + 4 * i, &codes, sizeof codes);
  }
}

// ---- squares, which are exact in double precision ----

using PairOfDoubles = double __attribute__((vector_size(16)));
struct SumRegister {
  PairOfDoubles low, high;
};
ADAMW_INLINE SumRegister register_load_sums(const double *p) {
  return {read<PairOfDoubles>(p), read<PairOfDoubles>(p + 2)};
}
ADAMW_INLINE void register_store_sums(double *p, SumRegister a) { std::memcpy(p, &a, sizeof a); }
ADAMW_INLINE SumRegister register_add_squares(SumRegister a, FloatRegister x) {
  const PairOfDoubles low{x[0], x[1]}, high{x[2], x[3]};
  return {a.low + low * low, a.high + high * high};
}

// ---- binary16 ----

ADAMW_INLINE FloatRegister register_float16_to_float(IntRegister h) {
  const FloatRegister scaled = register_from_bits((h & 0x7FFFu) << 13) * 5.192296858534828e33f;
  const IntRegister quiet = ones_where((h & 0x3FFu) != 0) & 0x400000u;
  const IntRegister special = ones_where((h & 0x7C00u) == 0x7C00u) & (quiet | 0x7F800000u);
  return register_from_bits(register_bits(scaled) | special | ((h & 0x8000u) << 16));
}

ADAMW_INLINE IntRegister register_float_to_float16(FloatRegister x) {
  const IntRegister b = register_bits(x), a = b & 0x7FFFFFFFu, sign = (b >> 16) & 0x8000u;
  const SignedPart size = as_signed(a);  // signed comparisons are those that SSE2 has
  const IntRegister special =
      choose(ones_where(size > 0x7F800000), ((a >> 13) & 0x3FFu) | 0x7E00u, register_set(0x7C00u));
  const IntRegister normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
  const IntRegister denormal = register_bits(register_from_bits(a) + 0.5f) - 0x3F000000u;
  const IntRegister in_range = choose(ones_where(size < 0x38800000), denormal, normal);
  return sign | choose(ones_where(size >= 0x47800000), special, in_range);
}

}  // namespace
}  // namespace adamw
