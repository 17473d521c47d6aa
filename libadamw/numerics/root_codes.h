// Owns the 8-bit codes: from a code to its value and back, and the scale and floor that both refer to. Knows nothing of
// where codes lie. V and I as in math.h, whose operations it is written with.
//
// A magnitude a in [0, 1], which is a number divided by its block's largest, is taken to t = root<s>(a): a 2^s-th root
// that is linear in a between powers of two. Codes are equidistant on t. So rounding stochastically on t is right on
// average in a, but for the few codes between which a power of two lies.
//   exp_avg      code 128 + k for the sign of k, and t = |k| / 127 with s = 2
//   exp_avg_sq   t = floor + code * (1 - floor) / 255 with s = 3; floor is the root of the block's smallest number. In
//                most blocks all second moments lie within two decades, and codes for those alone are finer
#pragma once

#include "math.h"

namespace adamw {

// The root of 0, as bits.
ADAMW_INLINE constexpr std::uint32_t root_of_zero(int s) { return 0x3F800000u - (0x3F800000u >> s); }

// s bits of `a` are dropped. Of 1, it is 1.
template <int s, class V>
ADAMW_INLINE V root(V a) {
  return from_bits(shift_right(bits(a), s) + root_of_zero(s));
}

// Of |t|, which is 0 or at least the root of 0: the shift drops the sign.
template <int s, class V>
ADAMW_INLINE V unroot(V t) {
  return from_bits(shift_left(less_by(bits(t), root_of_zero(s)), s));
}

// Of a block: what decoding takes from its floor. A floor of 0, as fresh state has it, decodes code 0 to 0; so does any
// that no block can have (of a damaged checkpoint): unroot() must not see what targets would take differently.
struct CodeLine {
  float slope, floor;
};
ADAMW_INLINE CodeLine code_line(float floor) {
  const float valid = floor >= 0x1.2p-16f && floor <= 1.0f ? floor : 0.0f;
  return {(1.0f - valid) * (1.0f / 255.0f), valid};
}

template <class V, class I>
ADAMW_INLINE V decode_exp_avg(I code) {
  const V t = fma(to_float(code), V(1.0f / 127.0f), V(-128.0f / 127.0f));  // (code - 128) / 127, rounded once
  return flip_sign(unroot<2>(t), t);
}

template <class V, class I>
ADAMW_INLINE V decode_exp_avg_sq(I code, const CodeLine &line) {
  return unroot<3>(fma(to_float(code), V(line.slope), V(line.floor)));
}

// What a block has beside its codes, from its largest and smallest magnitude, and what encoding takes from that.
struct Scale {
  float absmax, inverse;
  float floor, per_code, start;  // of exp_avg_sq and its maximum; start: of the position of t = 0

  // Whether code 0 stands for 0. Then it must not stand for anything else.
  ADAMW_INLINE bool zeros() const { return floor <= 0x1.2p-16f; }
};

template <class F = float>
ADAMW_INLINE Scale exp_avg_scale(float largest) {
  if (largest >= smallest_scale) return {largest, as_float(inverse(F(largest))), 0.0f, 0.0f, 0.0f};
  return {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
}

// A little less than 255 / width.
constexpr float almost_last_code = 255.0f - 0x1p-16f;
ADAMW_INLINE float codes_over(float width) { return almost_last_code / width; }

// The position of t is t * per_code + start. Both ends of it matter, since what passes one would wrap around:
// - Of t = 1 it is 511.5 exactly, because start is exact, but for 2^-16 that the sum rounds away.
// - per_code is a little less than 255 / (1 - floor), so of t = floor it is 256.5 or more.
// A floor above 1 - 2^-8 would leave start too few bits. Codes are 1e-4 of a number apart there.
template <class F = float>
ADAMW_INLINE Scale exp_avg_sq_scale(float largest, float smallest) {
  Scale s = exp_avg_scale<F>(largest);
  const float t = root<3>(smallest * s.inverse);
  s.floor = t < 1.0f - 0x1p-8f ? t : 1.0f - 0x1p-8f;
  s.per_code = as_float(codes_over(F(1.0f - s.floor)));
  s.start = 511.5f - s.per_code;
  return s;
}

// Both encoders end with a number in [256, 512), where floats are multiples of 2^-15: half a code above the position.
// rounded_code() adds `noise`, where it is to, to its bits, which leaves the code in them: no noise rounds to nearest,
// halves up.

// Stochastic below a sixteenth of the scale only: there neighbours are so far apart that nearest rounding would undo
// the decay of exp_avg in every step; above, it is the more exact of the two.
template <class V, class I>
ADAMW_INLINE auto encode_exp_avg(V x, const Scale &scale, I noise) {
  const V a = magnitude(x) * V(scale.inverse);
  return rounded_code(fma(flip_sign(root<2>(a), x), V(127.0f), V(384.5f)), less(a, V(0.0625f)), noise);
}

// Zeros: the block may have some, or numbers that are as good as zero beside its largest. 0 alone becomes code 0 there.
template <bool Zeros, class V, class I>
ADAMW_INLINE auto encode_exp_avg_sq(V x, const Scale &scale, I noise) {
  const V position = fma(root<3>(x * V(scale.inverse)), V(scale.per_code), V(scale.start));
  if (!Zeros) return rounded_code(position, noise);
  return zero_where_zero(x, rounded_code(max(position, V(scale.zeros() ? 257.5f : 256.5f)), noise));
}

// What a coding is: the codes of 0, and the way of all moments of some elements, or of one of their kinds, from codes
// to values (in units of the scale) and back. Here the maximum of exp_avg_sq is rounded to nearest: a maximum of
// stochastically rounded numbers would drift upwards.
struct RootCodes {
  static constexpr PerMoment<std::uint8_t> zero{128, 0, 0};

  template <class V, class I>
  static ADAMW_INLINE PerMoment<V> decode(bool amsgrad, const PerMoment<I> &codes, const PerMoment<CodeLine> &lines) {
    return {decode_exp_avg<V>(codes.exp_avg), decode_exp_avg_sq<V>(codes.exp_avg_sq, lines.exp_avg_sq),
            amsgrad ? decode_exp_avg_sq<V>(codes.max_exp_avg_sq, lines.max_exp_avg_sq) : V(0.0f)};
  }
  template <bool Zeros, class V, class I>
  static ADAMW_INLINE PerMoment<I> encode(bool amsgrad, const PerMoment<V> &x, const PerMoment<Scale> &scales,
                                          I noise) {
    return {encode_exp_avg(x.exp_avg, scales.exp_avg, noise),
            encode_exp_avg_sq<Zeros>(x.exp_avg_sq, scales.exp_avg_sq, noise),
            amsgrad ? encode_exp_avg_sq<Zeros>(x.max_exp_avg_sq, scales.max_exp_avg_sq, I(0u)) : I(0u)};
  }
  static ADAMW_INLINE bool zeros(bool amsgrad, const PerMoment<Scale> &scales) {
    return scales.exp_avg_sq.zeros() || (amsgrad && scales.max_exp_avg_sq.zeros());
  }
  template <class F = float>
  static ADAMW_INLINE PerMoment<Scale> scales(bool amsgrad, const PerMoment<Extremes> &found) {
    return {exp_avg_scale<F>(found.exp_avg.largest),
            exp_avg_sq_scale<F>(found.exp_avg_sq.largest, found.exp_avg_sq.smallest),
            amsgrad ? exp_avg_sq_scale<F>(found.max_exp_avg_sq.largest, found.max_exp_avg_sq.smallest) : Scale{}};
  }

  template <class V, class I>
  static ADAMW_INLINE V decode_one(bool is_signed, I code, float floor) {
    return is_signed ? decode_exp_avg<V>(code) : decode_exp_avg_sq<V>(code, code_line(floor));
  }
  template <class V, class I>
  static ADAMW_INLINE I encode_one(bool is_signed, V x, const Scale &scale, I noise) {
    return is_signed ? encode_exp_avg(x, scale, noise) : encode_exp_avg_sq<true>(x, scale, noise);
  }
  static ADAMW_INLINE Scale scale_one(bool is_signed, const Extremes &found) {
    return is_signed ? exp_avg_scale(found.largest) : exp_avg_sq_scale(found.largest, found.smallest);
  }
};

}  // namespace adamw
