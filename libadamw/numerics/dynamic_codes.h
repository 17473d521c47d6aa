// Owns the 8-bit codes of the dynamic maps: from a code to its value and back, and the scale that both refer to. Knows
// nothing of where codes lie. V and I as in math.h, whose operations it is written with.
#pragma once

#include "codebook.h"
#include "math.h"

namespace adamw {

template <class V, class I>
ADAMW_INLINE V decode_signed(I code) {
  const V k = fma(to_float(code), V(4.0f), V(-508.0f));  // four times the magnitude, with its sign
  const I entry = shift_right(bits(k), 23);
  const V offset = lookup8(signed_map.decode_offset, entry);
  return fma(k, lookup8(signed_map.decode_slope, entry), flip_sign(offset, k));
}

template <class V, class I>
ADAMW_INLINE V decode_unsigned(I code) {
  const V k = to_float(code) + V(1.0f);
  const I entry = shift_right(bits(k), 23);
  return fma(k, lookup8(unsigned_map.decode_slope, entry), lookup8(unsigned_map.decode_offset, entry));
}

// Where a = |x|, in units of the scale / encode_unit, lies among the codes: k where it is the value of magnitude k,
// linear in between (and plus what the map adds). Positions are concave: each decade has twice the codes of the one
// below on ten times the length. So the position is the lowest of the lines of a decade, of the gap above it and of the
// decade beyond. map_lines() finds them by the class of a, or of x, as it likes: 0 below 2^-18, then one more every
// three binades up to 7, 1 and above. A target may keep the tables in the form that it reads best.
template <class V, class Map>
ADAMW_INLINE V code_position(V a, V x, const Map &map) {
  const auto lines = map_lines(map, a, x);
  const V line = fma(a, lines.slope, lines.offset);
  return lowest(line, fma(line, V(1.0f / 3.0f), lines.gap_offset), fma(line, V(0.2f), lines.next_offset));
}

template <class V>
ADAMW_INLINE V next_offset(V gap_offset) {
  return fma(gap_offset, V(1.2f), V(0.4f));
}

// Both encoders end with a number in [256, 512), where floats are multiples of 2^-15: half a code above the position.
// rounded_code() adds `noise`, where it is to, to its bits, which leaves the code in them: no noise rounds to nearest,
// halves up. rounded_code_or_zero() does so everywhere, and leaves 0 where x is 0, at least 1 where it is not.

// Stochastic below a tenth of the scale only: there neighbours are so far apart that nearest rounding would undo the
// decay of exp_avg in every step; above, it is the more exact of the two.
template <class V, class I, class Map>
ADAMW_INLINE auto encode_signed(V x, V inverse_scale, I noise, const Map &map) {
  const V scaled = x * inverse_scale, a = magnitude(scaled), position = code_position(a, scaled, map);
  return rounded_code(flip_sign(position, x) + V(encode_start + 127.0f), less(a, V(0.1f * encode_unit)), noise);
}

template <class V, class I, class Map>
ADAMW_INLINE auto encode_unsigned(V x, V inverse_scale, I noise, const Map &map) {
  const V a = x * inverse_scale;
  return rounded_code_or_zero(code_position(a, a, map), x, noise);
}

// The stored scale of a block, from its largest magnitude, and what encoding multiplies by.
struct Scale {
  float absmax, inverse;
};

template <class F = float>
ADAMW_INLINE Scale block_scale(float largest) {
  return largest >= smallest_scale ? Scale{largest, as_float(F(1.0f) / F(largest)) * encode_unit} : Scale{0.0f, 0.0f};
}

// What a coding is: the codes of 0, and the way of all moments of some elements, or of one of their kinds, from codes
// to values (in units of the scale) and back. Here exp_avg takes the signed map, nearest from a tenth of the scale up
// and stochastic below; exp_avg_sq's root takes the unsigned map, stochastic, and its maximum nearest.
struct DynamicCodes {
  static constexpr PerMoment<std::uint8_t> zero{127, 0, 0};

  template <class V, class I>
  static ADAMW_INLINE PerMoment<V> decode(bool amsgrad, const PerMoment<I> &codes) {
    return {decode_signed<V>(codes.exp_avg), decode_unsigned<V>(codes.exp_avg_sq),
            amsgrad ? decode_unsigned<V>(codes.max_exp_avg_sq) : V(0.0f)};
  }
  template <class V, class I>
  static ADAMW_INLINE PerMoment<I> encode(bool amsgrad, const PerMoment<V> &x, const PerMoment<Scale> &scales,
                                          I noise) {
    return {encode_signed(x.exp_avg, V(scales.exp_avg.inverse), noise, signed_map),
            encode_unsigned(x.exp_avg_sq, V(scales.exp_avg_sq.inverse), noise, unsigned_map),
            amsgrad ? encode_unsigned(x.max_exp_avg_sq, V(scales.max_exp_avg_sq.inverse), I(0u), unsigned_map) : I(0u)};
  }
  template <class V, class I>
  static ADAMW_INLINE V decode_one(bool is_signed, I code) {
    return is_signed ? decode_signed<V>(code) : decode_unsigned<V>(code);
  }
  template <class V, class I>
  static ADAMW_INLINE I encode_one(bool is_signed, V x, const Scale &scale, I noise) {
    return is_signed ? encode_signed(x, V(scale.inverse), noise, signed_map)
                     : encode_unsigned(x, V(scale.inverse), noise, unsigned_map);
  }
};

}  // namespace adamw
