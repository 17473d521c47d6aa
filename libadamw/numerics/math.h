// Owns the arithmetic: THE update, dtype conversion and the random bits, each defined once and compiled for every
// target. Knows nothing of memory layout, threads, blocks or codes (root_codes.h).
//
// V is a float vector, I an int32 vector of as many lanes, M their comparison mask; a target supplies them with the
// operations used here (cpu/vector.h; gpu/kernels/scalar_ops.h: plain float and int, included first). All are IEEE
// single precision with explicit fma; the translation units are compiled without contraction, so every target computes
// the same bits.
#pragma once

#include "moments.h"
#include "types.h"

namespace adamw {

// What is the same for all elements of a tensor in one step, derived in double precision and narrowed once.
struct Coefficients {
  float gradient_scale;  // +-1 / grad_scale * clipping: g = raw * gradient_scale
  float beta1, beta2;
  float one_minus_beta1, one_minus_beta2, root_one_minus_beta2;
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

// ---- the update of 32-bit state: torch's operations in torch's order ----

// exp_avg_sq: the new second moment before its amsgrad maximum, or before it is left as it was.
template <class V>
struct Stepped {
  V param, exp_avg, exp_avg_sq, max_exp_avg_sq, direction;
};

template <bool Amsgrad, class V>
ADAMW_INLINE Stepped<V> step_element32(V p, V raw, V m, V v, V x, const Coefficients &c, bool skip_zeros) {
  const V g = raw * V(c.gradient_scale);
  Stepped<V> s;
  s.exp_avg = fma(V(c.one_minus_beta1), g - m, m);
  s.exp_avg_sq = fma(V(c.one_minus_beta2) * g, g, V(c.beta2) * v);
  s.max_exp_avg_sq = Amsgrad ? maximum(x, s.exp_avg_sq) : s.exp_avg_sq;
  s.direction = s.exp_avg / fma(sqrt(s.max_exp_avg_sq), V(c.inverse_root_bc2), V(c.eps));
  s.param = fma(V(c.negative_step_size), s.direction, p * V(c.decay));
  if (skip_zeros) {
    const auto ok = not_equal(g, V(0.0f));
    s = {select(ok, s.param, p), select(ok, s.exp_avg, m), select(ok, s.exp_avg_sq, v), select(ok, s.max_exp_avg_sq, x),
         select(ok, s.direction, V(0.0f))};
  }
  return s;
}

// ---- the update of 8-bit state: the same formula, with what is constant multiplied together ----
// Roundings in 2^-24 do not matter beside those of the codes; operations do: they bound the speed of this step.

// Per tensor and step. root_weight and eps are premultiplied by -1 / step size, so that the parameter becomes
// p * decay + exp_avg / (root * root_weight + eps).
struct Factors8 {
  float exp_avg, root;  // of the gradient: exp_avg = ... + raw * exp_avg, exp_avg_sq = ... + (raw * root)^2
  float beta1, beta2, decay, root_weight, eps;
};

ADAMW_INLINE bool finite(float x) { return x - x == 0.0f; }

ADAMW_INLINE Factors8 factors8(const Coefficients &c) {
  const float inverse = 1.0f / c.negative_step_size, weight = c.inverse_root_bc2 * inverse, eps = c.eps * inverse;
  const float infinity = 1.0f / 0.0f;
  const bool moves = finite(weight) && finite(eps);  // not with lr 0, nor so close to it that nothing would change
  return {c.gradient_scale * c.one_minus_beta1,
          c.gradient_scale * c.root_one_minus_beta2,
          c.beta1,
          c.beta2,
          c.decay,
          moves ? weight : 0.0f,
          moves ? eps : -infinity};
}

// Those whose change, but for its sign, is the update direction exp_avg / (root / sqrt(bc2) + eps).
ADAMW_INLINE Factors8 direction_factors8(Coefficients c) {
  c.negative_step_size = -1.0f;
  return factors8(c);
}

// Of a block: what its old codes' values are multiplied by, from their scales.
struct OldFactors {
  float exp_avg, exp_avg_sq;
};

ADAMW_INLINE OldFactors old_factors(const Factors8 &f, float exp_avg_scale, float exp_avg_sq_scale) {
  return {f.beta1 * exp_avg_scale, f.beta2 * exp_avg_sq_scale};
}

template <class V>
struct Moments {
  V exp_avg, exp_avg_sq;
};

// exp_avg, exp_avg_sq: the values of the old codes. A gradient that is not finite, or whose square overflows, shows as
// an exp_avg_sq that is not finite.
template <class V>
ADAMW_INLINE Moments<V> update_moments8(V exp_avg, V exp_avg_sq, V raw, const Factors8 &f, const OldFactors &old) {
  const V g = raw * V(f.root);
  return {fma(exp_avg, V(old.exp_avg), raw * V(f.exp_avg)), fma(exp_avg_sq, V(old.exp_avg_sq), g * g)};
}

// Which elements are stepped: the others, and their moments, stay as they are.
template <class V>
ADAMW_INLINE auto steps8(V exp_avg_sq, V raw, bool skip_zeros) {
  const V zero(0.0f);
  return less_equal(exp_avg_sq, V(largest_float)) & not_equal(raw, skip_zeros ? zero : V(-1.0f) / zero);
}

// What is added to the parameter. root: of exp_avg_sq, or of its maximum.
template <class V>
ADAMW_INLINE V change8(V exp_avg, V root, const Factors8 &f) {
  return exp_avg / fma(root, V(f.root_weight), V(f.eps));
}

template <class V>
ADAMW_INLINE V update_param8(V p, V exp_avg, V root, const Factors8 &f) {
  return fma(p, V(f.decay), change8(exp_avg, root, f));
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

template <class V>
ADAMW_INLINE V magnitude(V x) {
  return from_bits(bits(x) & 0x7FFFFFFFu);
}

ADAMW_INLINE float as_float(float x) { return x; }
ADAMW_INLINE float inverse(float x) { return 1.0f / x; }

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
  // (13 random bits, as above it: with more, the sum would be rounded, up to the next unit now and then.)
  const V random = rounding_number<V>(word & 0xFFF80000u) - V(1.0f);
  const V units = to_float(truncate(min(magnitude(x), V(1.0f)) * V(16777216.0f) + random));
  const V denormal = from_bits(bits(units * V(5.9604644775390625e-8f)) | (bits(x) & 0x80000000u));
  const V rounded = select(less(magnitude(x), V(6.103515625e-5f)), denormal, normal);
  return float_to_float16(select(is_finite(x), rounded, x));
}

}  // namespace adamw
