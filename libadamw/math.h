// Owns the arithmetic: THE update, the quantizers, dtype conversion and the random bits, each defined once and compiled
// for every target. Knows nothing of memory layout, threads or blocks.
//
// V is a float vector, I an int32 vector of as many lanes, M their comparison mask; a target supplies them with the
// operations used here (cpu/vector.h; gpu/lane.h: plain float and int, included first). All are IEEE single precision
// with explicit fma; the translation units are compiled without contraction, so every target computes the same bits.
#pragma once

#include "codebook.h"
#include "types.h"

namespace adamw {

// What is the same for all elements of a tensor in one step, derived in double precision and narrowed once.
struct Coefficients {
  float gradient_scale;   // +-1 / grad_scale * clipping: g = raw * gradient_scale
  float beta2;            // v = beta2 * v + one_minus_beta2 * g^2
  float one_minus_beta1;  // m = m + one_minus_beta1 * (g - m)
  float one_minus_beta2;
  float inverse_root_bc2;  // 1 / sqrt(1 - beta2^step)
  float eps;
  float decay;               // 1 - lr * weight_decay
  float negative_step_size;  // -lr / (1 - beta1^step), times the max_unorm scale
  std::uint32_t state_key;   // of the random words that round the second moment
  std::uint32_t param_key;   // of those that round the parameter
  double bc1;                // 1 - beta1^step, which negative_step_size contains
};

constexpr float largest_float = 3.40282346638528859811704183484516925e+38f;
constexpr float smallest_scale = 1.17549435082228750796873653722224568e-38f;  // 2^-126: its reciprocal is finite

// ---- the update ----

template <class V>
struct Moments {
  V exp_avg, exp_avg_sq;
};

template <class V>
ADAMW_INLINE Moments<V> update_moments(V exp_avg, V exp_avg_sq, V g, const Coefficients &c) {
  return {fma(V(c.one_minus_beta1), g - exp_avg, exp_avg), fma(V(c.one_minus_beta2) * g, g, V(c.beta2) * exp_avg_sq)};
}

// u = exp_avg / (root / sqrt(bc2) + eps), where root = sqrt(exp_avg_sq) or its amsgrad maximum.
template <class V>
ADAMW_INLINE V update_direction(V exp_avg, V root, const Coefficients &c) {
  return exp_avg / fma(root, V(c.inverse_root_bc2), V(c.eps));
}

template <class V>
ADAMW_INLINE V update_param(V p, V direction, const Coefficients &c) {
  return fma(V(c.negative_step_size), direction, p * V(c.decay));
}

// One element's new values. root: of exp_avg_sq; for 32-bit state exp_avg_sq itself, likewise max_root.
// exp_avg_sq before it is masked.
template <class V>
struct Stepped {
  V param, exp_avg, root, max_root, direction, exp_avg_sq;
};

// 8-bit state. Masked = false: the arithmetic alone. A gradient that is not finite, or whose square overflows, shows as
// a root that is not finite. Masked = true leaves such elements, and with skip_zeros those without gradient, as they
// are; their direction is 0.
template <bool Amsgrad, bool Masked, class V>
ADAMW_INLINE Stepped<V> step_element8(V p, V raw, V m, V r, V x, const Coefficients &c, bool skip_zeros) {
  const V g = raw * V(c.gradient_scale), zero(0.0f);
  const Moments<V> next = update_moments(m, r * r, g, c);
  Stepped<V> s;
  s.exp_avg = next.exp_avg;
  s.exp_avg_sq = next.exp_avg_sq;
  s.root = sqrt(next.exp_avg_sq);
  s.max_root = Amsgrad ? maximum(x, s.root) : s.root;
  s.direction = update_direction(s.exp_avg, s.max_root, c);
  s.param = update_param(p, s.direction, c);
  if (Masked) {
    const auto finite = less_equal(next.exp_avg_sq, V(largest_float));
    const auto ok = finite & not_equal(g, skip_zeros ? zero : V(-1.0f) / zero);
    s = {select(ok, s.param, p),    select(ok, s.exp_avg, m),      select(ok, s.root, r),
         select(ok, s.max_root, x), select(ok, s.direction, zero), next.exp_avg_sq};
  }
  return s;
}

template <bool Amsgrad, class V>
ADAMW_INLINE Stepped<V> step_element32(V p, V raw, V m, V v, V x, const Coefficients &c, bool skip_zeros) {
  const V g = raw * V(c.gradient_scale);
  const Moments<V> next = update_moments(m, v, g, c);
  const V largest = Amsgrad ? maximum(x, next.exp_avg_sq) : next.exp_avg_sq;
  Stepped<V> s{p, next.exp_avg, next.exp_avg_sq, largest, update_direction(next.exp_avg, sqrt(largest), c), largest};
  s.param = update_param(p, s.direction, c);
  if (skip_zeros) {
    const auto ok = not_equal(g, V(0.0f));
    s = {select(ok, s.param, p), select(ok, s.exp_avg, m),         select(ok, s.root, v),
         select(ok, largest, x), select(ok, s.direction, V(0.0f)), largest};
  }
  return s;
}

// ---- random words: one 32-bit word per (key, global element index) ----
// One hash serves eight neighbours, each of which multiplies it by its own odd constant: that keeps every word uniform
// and costs an eighth of the hash.

ADAMW_TABLE std::uint32_t word_multipliers[8] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu,
                                                 0x165667B1u, 0xD3A2646Du, 0xFD7046C5u, 0xB55A4F09u};

ADAMW_INLINE std::uint32_t shift_right(std::uint32_t x, int n) { return x >> n; }

// A bijective finalizer with good avalanche ("lowbias32" of Wellons' hash prospector). I may be uint32_t or a vector.
template <class I>
ADAMW_INLINE I mix32(I x) {
  x = x ^ shift_right(x, 16);
  x = x * I(0x7FEB352Du);
  x = x ^ shift_right(x, 15);
  x = x * I(0x846CA68Bu);
  return x ^ shift_right(x, 16);
}

// The key of the groups (of eight elements) whose number has these upper 32 bits.
ADAMW_INLINE std::uint32_t group_key(std::uint32_t key, std::uint32_t upper) {
  return mix32(key ^ (upper * 0x85EBCA6Bu));
}

ADAMW_INLINE std::uint32_t random_word(std::uint32_t key, std::uint64_t index) {
  const std::uint64_t group = index >> 3;
  const std::uint32_t hash =
      mix32(static_cast<std::uint32_t>(group) ^ group_key(key, static_cast<std::uint32_t>(group >> 32)));
  return hash * word_multipliers[index & 7];
}

// The upper 22 bits of a word as a number in the open interval (1, 2): an odd multiple of 2^-23.
template <class V, class I>
ADAMW_INLINE V rounding_number(I word) {
  return from_bits(shift_right(word, 9) | I(0x3F800001u));
}

// ---- 8-bit codes ----

template <class V>
ADAMW_INLINE V magnitude(V x) {
  return from_bits(bits(x) & 0x7FFFFFFFu);
}

template <class V, class I>
ADAMW_INLINE V decode_signed(I code) {
  const V k = to_float(code) - V(127.0f);
  const V a = magnitude(k);
  const I entry = shift_right(bits(a + V(0.5f)), 23);
  const V value = fma(a, lookup8(signed_map.decode_slope, entry), lookup8(signed_map.decode_offset, entry));
  return from_bits(bits(value) ^ (bits(k) & 0x80000000u));
}

template <class V, class I>
ADAMW_INLINE V decode_unsigned(I code) {
  const V k = to_float(code) + V(1.0f);
  const I entry = shift_right(bits(k), 23);
  return fma(k, lookup8(unsigned_map.decode_slope, entry), lookup8(unsigned_map.decode_offset, entry));
}

// The magnitude a in [0, 1] in units of codes, less 1.5: k - 1.5 where a is the value of magnitude k, linear in
// between. zone_line() finds the line of a's zone: a target may keep the tables in the form that it reads best.
template <class V, class Map>
ADAMW_INLINE V code_position(V a, const Map &map, const ZoneNumbers &numbers) {
  const auto z = zone_line(map, numbers, a);
  const V line = fma(a, z.slope, z.offset);
  return min(line, fma(line, V(1.0f / 3.0f), z.gap_offset));
}

// Nearest integer, ties to even, of x + plus, -2^21 < x < 2^21: adding 1.5 * 2^23 leaves it in the low bits.
template <class V>
ADAMW_INLINE auto round_to_int(V x, float plus) {
  return bits(x + V(12582912.0f + plus)) - 0x4B400000u;
}

// Both encoders: x * inverse_scale lies in [-1, 1] up to rounding; `rounding` is in (1, 2): 1.5 rounds to nearest,
// rounding_number() stochastically. Codes may exceed [0, 255] by one at the ends: stores saturate. Zero stays zero.

// Stochastic below magnitude 64 only (a tenth of the scale): there neighbours are so far apart that nearest rounding
// would undo the decay of exp_avg in every step; above, it is the more exact of the two.
template <class V, class Map>
ADAMW_INLINE auto encode_signed(V x, V inverse_scale, V rounding, const Map &map) {
  const auto sign = bits(x) & 0x80000000u;
  const V position = code_position(magnitude(x) * inverse_scale, map, signed_zones);
  const V rounded = position + select(less(position, V(62.5f)), rounding, V(1.5f));
  return round_to_int(from_bits(bits(rounded) | sign), 127.0f);
}

// What is above zero becomes at least 1.
template <class V, class Map>
ADAMW_INLINE auto encode_unsigned(V x, V inverse_scale, V rounding, const Map &map) {
  const V position = max(code_position(x * inverse_scale, map, unsigned_zones) + rounding, V(1.0f));
  return round_to_int(zero_unless(less(V(0.0f), x), position), 0.0f);
}

// The stored scale of a block and its reciprocal, from its largest magnitude.
struct Scale {
  float absmax, inverse;
};

ADAMW_INLINE Scale block_scale(float largest) {
  return largest >= smallest_scale ? Scale{largest, 1.0f / largest} : Scale{0.0f, 0.0f};
}

// ---- 16-bit dtypes (bits in the low half of an int lane) ----

template <class V, class I>
ADAMW_INLINE V bfloat16_to_float(I half) {
  return from_bits(shift_left(half, 16));
}

template <class V>
ADAMW_INLINE auto float_to_bfloat16(V x) {
  const auto b = bits(x);
  const auto rounded = shift_right(b + 0x7FFFu + (shift_right(b, 16) & 1u), 16);
  return select(not_equal(x, x), shift_right(b, 16) | 0x40u, rounded);  // a NaN stays one
}

template <class V>
ADAMW_INLINE auto is_finite(V x) {
  return less_equal(magnitude(x), V(largest_float));
}

// Stochastic rounding: adds random bits below the kept ones and truncates, so that it rounds away from zero with a
// probability equal to the rest. NaN and infinities go the way of nearest rounding.
template <class V, class I>
ADAMW_INLINE I float_to_bfloat16_stochastic(V x, I word) {
  return select(is_finite(x), shift_right(bits(x) + shift_right(word, 16), 16), float_to_bfloat16(x));
}

template <class V, class I>
ADAMW_INLINE I float_to_float16_stochastic(V x, I word) {
  const V normal = from_bits((bits(x) + shift_right(word, 19)) & 0xFFFFE000u);
  // Below 2^-14 binary16 is fixed point with a unit of 2^-24: 24 - 11 bits to drop are not enough.
  const V units =
      to_float(truncate(min(magnitude(x), V(1.0f)) * V(16777216.0f) + (rounding_number<V>(word) - V(1.0f))));
  const V denormal = from_bits(bits(units * V(5.9604644775390625e-8f)) | (bits(x) & 0x80000000u));
  const V rounded = select(less(magnitude(x), V(6.103515625e-5f)), denormal, normal);
  return float_to_float16(select(is_finite(x), rounded, x));
}

}  // namespace adamw
