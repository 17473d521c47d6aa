// Owns the operations on four lanes in the vectors that gcc and clang have for any processor: what the portable kernels
// are made of. Matches parts_scalar.h. Those vectors rather than loops over one lane: both the code and its compilation
// are faster.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "../types.h"

// Some operations are long without instructions of their own. Inlined wherever they are used, they are most of the code
// and of the time that it takes to compile; a call for 32 lanes is little beside them.
#define ADAMW_ONCE __attribute__((noinline))

namespace adamw {
namespace {

using FloatPart = float __attribute__((vector_size(16)));
using IntPart = std::uint32_t __attribute__((vector_size(16)));
using SignedPart = std::int32_t __attribute__((vector_size(16)));
struct MaskPart {
  IntPart all;  // ones or zeros
};
using TablePart = const float *;
constexpr int part_lanes = 4;

ADAMW_INLINE FloatPart part_set(float x) { return FloatPart{x, x, x, x}; }
ADAMW_INLINE IntPart part_set(std::uint32_t x) { return IntPart{x, x, x, x}; }
ADAMW_INLINE IntPart part_bits(FloatPart a) { return reinterpret_cast<IntPart>(a); }
ADAMW_INLINE FloatPart part_from_bits(IntPart a) { return reinterpret_cast<FloatPart>(a); }
ADAMW_INLINE SignedPart as_signed(IntPart a) { return reinterpret_cast<SignedPart>(a); }
template <class Comparison>
ADAMW_INLINE IntPart ones_where(Comparison c) {
  return reinterpret_cast<IntPart>(c);
}
ADAMW_INLINE IntPart choose(IntPart m, IntPart a, IntPart b) { return (m & a) | (~m & b); }

// See parts_scalar.h. Without a branch, and without comparing 64-bit integers, for which SSE2 has no instruction.
ADAMW_INLINE FloatPart part_fma(FloatPart a, FloatPart b, FloatPart c) {
  FloatPart r;
#if defined(__FP_FAST_FMAF)
  for (int i = 0; i < part_lanes; ++i) r[i] = std::fma(a[i], b[i], c[i]);
#else
  using Wide = double __attribute__((vector_size(16)));
  using WideBits = std::uint64_t __attribute__((vector_size(16)));
  for (int i = 0; i < part_lanes; i += 2) {
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

ADAMW_INLINE FloatPart part_add(FloatPart a, FloatPart b) { return a + b; }
ADAMW_INLINE FloatPart part_sub(FloatPart a, FloatPart b) { return a - b; }
ADAMW_INLINE FloatPart part_mul(FloatPart a, FloatPart b) { return a * b; }
ADAMW_INLINE FloatPart part_div(FloatPart a, FloatPart b) { return a / b; }
ADAMW_INLINE FloatPart part_max(FloatPart a, FloatPart b) {
  return part_from_bits(choose(ones_where(a > b), part_bits(a), part_bits(b)));
}
ADAMW_INLINE FloatPart part_min(FloatPart a, FloatPart b) {
  return part_from_bits(choose(ones_where(a < b), part_bits(a), part_bits(b)));
}
ADAMW_INLINE FloatPart part_sqrt(FloatPart a) {
  return FloatPart{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])};
}
ADAMW_INLINE IntPart part_add(IntPart a, IntPart b) { return a + b; }
ADAMW_INLINE IntPart part_sub(IntPart a, IntPart b) { return a - b; }
ADAMW_INLINE IntPart part_mul(IntPart a, IntPart b) { return a * b; }
ADAMW_INLINE IntPart part_and(IntPart a, IntPart b) { return a & b; }
ADAMW_INLINE IntPart part_or(IntPart a, IntPart b) { return a | b; }
ADAMW_INLINE IntPart part_xor(IntPart a, IntPart b) { return a ^ b; }
ADAMW_INLINE FloatPart part_flip_sign(FloatPart a, FloatPart b) {
  return part_from_bits(part_bits(a) ^ (part_bits(b) & 0x80000000u));
}
ADAMW_INLINE IntPart part_max(IntPart a, IntPart b) { return choose(ones_where(a > b), a, b); }
ADAMW_INLINE IntPart part_shift_left(IntPart a, int n) { return a << n; }
ADAMW_INLINE IntPart part_shift_right(IntPart a, int n) { return a >> n; }
ADAMW_INLINE IntPart part_shift_right_signed(IntPart a, int n) { return reinterpret_cast<IntPart>(as_signed(a) >> n); }

ADAMW_INLINE MaskPart part_less(FloatPart a, FloatPart b) { return {ones_where(a < b)}; }
ADAMW_INLINE MaskPart part_less_equal(FloatPart a, FloatPart b) { return {ones_where(a <= b)}; }
ADAMW_INLINE MaskPart part_not_equal(FloatPart a, FloatPart b) { return {ones_where(a != b)}; }
ADAMW_INLINE MaskPart part_and(MaskPart a, MaskPart b) { return {a.all & b.all}; }
ADAMW_INLINE int part_count(MaskPart m) {
  const IntPart one = m.all & 1;
  return static_cast<int>(one[0] + one[1] + one[2] + one[3]);
}
ADAMW_INLINE IntPart part_select(MaskPart m, IntPart a, IntPart b) { return choose(m.all, a, b); }
ADAMW_INLINE FloatPart part_select(MaskPart m, FloatPart a, FloatPart b) {
  return part_from_bits(choose(m.all, part_bits(a), part_bits(b)));
}
ADAMW_INLINE IntPart part_add_where(MaskPart m, IntPart a, IntPart b) { return a + (m.all & b); }
ADAMW_INLINE IntPart part_zero_where_zero(FloatPart x, IntPart a) { return ones_where(x != part_set(0.0f)) & a; }

ADAMW_INLINE FloatPart part_to_float(IntPart a) { return __builtin_convertvector(as_signed(a), FloatPart); }
ADAMW_INLINE IntPart part_truncate(FloatPart a) {
  return reinterpret_cast<IntPart>(__builtin_convertvector(a, SignedPart));
}

ADAMW_INLINE TablePart part_table(const float *table) { return table; }
ADAMW_INLINE FloatPart part_lookup(TablePart t, IntPart index) {
  const IntPart i = index & 7;
  return FloatPart{t[i[0]], t[i[1]], t[i[2]], t[i[3]]};
}
ADAMW_INLINE IntPart part_line_class(FloatPart a) {
  const SignedPart above = as_signed(part_bits(a) >> 23) - 106;
  return reinterpret_cast<IntPart>(above & ~(above >> 31)) * 21846u >> 16;
}
ADAMW_INLINE IntPart part_spread(const std::uint32_t *p) { return part_set(*p); }
ADAMW_INLINE std::uint32_t part_reduce_max(IntPart a) {
  const std::uint32_t low = a[0] > a[1] ? a[0] : a[1], high = a[2] > a[3] ? a[2] : a[3];
  return low > high ? low : high;
}

// ---- memory, aligned or not ----

using HalfwordPart = std::uint16_t __attribute__((vector_size(8)));
using BytePart = std::uint8_t __attribute__((vector_size(4)));

template <class Part>
ADAMW_INLINE Part read(const void *p) {
  Part a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
ADAMW_INLINE FloatPart part_load(const float *p) { return read<FloatPart>(p); }
ADAMW_INLINE IntPart part_load(const std::uint32_t *p) { return read<IntPart>(p); }
ADAMW_INLINE IntPart part_load(const std::uint16_t *p) {
  return __builtin_convertvector(read<HalfwordPart>(p), IntPart);
}
ADAMW_INLINE IntPart part_load(const std::uint8_t *p) { return __builtin_convertvector(read<BytePart>(p), IntPart); }
ADAMW_INLINE void part_store(float *p, FloatPart a) { std::memcpy(p, &a, sizeof a); }
ADAMW_INLINE void part_store(std::uint32_t *p, IntPart a) { std::memcpy(p, &a, sizeof a); }
ADAMW_INLINE void part_store(std::uint16_t *p, IntPart a) {
  const HalfwordPart half = __builtin_convertvector(a, HalfwordPart);
  std::memcpy(p, &half, sizeof half);
}
ADAMW_INLINE void parts_store_codes(std::uint8_t *p, const IntPart *a) {
  for (int i = 0; i < 8; ++i) {
    const BytePart codes = __builtin_convertvector(a[i] >> 15, BytePart);
    std::memcpy(p + 4 * i, &codes, sizeof codes);
  }
}

// ---- binary16 ----

ADAMW_INLINE FloatPart part_float16_to_float(IntPart h) {
  const FloatPart scaled = part_from_bits((h & 0x7FFFu) << 13) * 5.192296858534828e33f;
  const IntPart quiet = ones_where((h & 0x3FFu) != 0) & 0x400000u;
  const IntPart special = ones_where((h & 0x7C00u) == 0x7C00u) & (quiet | 0x7F800000u);
  return part_from_bits(part_bits(scaled) | special | ((h & 0x8000u) << 16));
}

ADAMW_INLINE IntPart part_float_to_float16(FloatPart x) {
  const IntPart b = part_bits(x), a = b & 0x7FFFFFFFu, sign = (b >> 16) & 0x8000u;
  const SignedPart size = as_signed(a);  // signed comparisons are those that SSE2 has
  const IntPart special = choose(ones_where(size > 0x7F800000), ((a >> 13) & 0x3FFu) | 0x7E00u, part_set(0x7C00u));
  const IntPart normal = (a - 0x38000000u + 0xFFFu + ((a >> 13) & 1u)) >> 13;
  const IntPart denormal = part_bits(part_from_bits(a) + 0.5f) - 0x3F000000u;
  const IntPart in_range = choose(ones_where(size < 0x38800000), denormal, normal);
  return sign | choose(ones_where(size >= 0x47800000), special, in_range);
}

}  // namespace
}  // namespace adamw
