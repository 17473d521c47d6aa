// Owns how a float32 weight is kept as a bfloat16 parameter and the bits that the parameter lacks: the definition of
// adamw_split_weights(), for one element. Knows nothing of memory. V and I are those of math.h.
#pragma once

#include "math.h"

namespace adamw {

// The weight of a parameter (16 bits) and its remainder (sign-extended). A program that sets a parameter may leave a
// sum that is no number, as of 0 and a negative remainder: the parameter then counts alone.
template <int remainder_bits, class V, class I>
ADAMW_INLINE V joined_weight(I param, I remainder) {
  const I upper = shift_left(param, 16);
  const V sum = from_bits(upper + (remainder_bits == 8 ? shift_left(remainder, 8) : remainder));
  return select(not_equal(sum, sum), V(from_bits(upper)), sum);
}

// The bits of a weight that parameter and remainder are made of. noise: what is added before those below 24 are
// dropped, in 0 ... 255; with 16 bits of remainder, none are.
template <int remainder_bits, class V, class I>
ADAMW_INLINE I split_weight(V weight, I noise) {
  const I whole = select(not_equal(weight, weight), I(0x7FC00000u), bits(weight));
  return remainder_bits == 8 ? whole + noise : whole;
}
constexpr std::uint32_t nearest_of_24_bits = 0x80;
// From an element's random word, whose upper 16 bits round its moments.
template <class I>
ADAMW_INLINE I noise_of_24_bits(I word) {
  return shift_right(word, 8) & I(0xFFu);
}

template <class I>
ADAMW_INLINE I param_of(I split) {
  return shift_right(split + I(0x8000u), 16);
}
// Bits 0 ... 15 of what is split, or bits 8 ... 15; what is above them here is no part of it.
template <int remainder_bits, class I>
ADAMW_INLINE I remainder_of(I split) {
  return remainder_bits == 8 ? shift_right(split, 8) : split;
}

}  // namespace adamw
