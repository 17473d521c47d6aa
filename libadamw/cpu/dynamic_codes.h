// Owns how numerics/dynamic_codes.h looks up its lines and rounds on vectors. Knows nothing of where codes lie.
#pragma once

#include "../../include/adamw.h"
#include "../numerics/dynamic_codes.h"
#include "vector.h"

namespace adamw {
namespace {

struct MapLines {
  V slope, offset, gap_offset, next_offset;
};

ADAMW_INLINE MapLines map_lines(const MapTables &map, V a, V) {
  const I c = line_class(a);
  const V gap_offset = lookup8(map.gap_offset, c);
  return {lookup8(map.slope, c), lookup8(map.offset, c), gap_offset, next_offset(gap_offset)};
}

// The noise of a random word: a signed number of 15 bits, uniform.
ADAMW_INLINE I noise_of(I word) { return shift_right_signed(word, 17); }

ADAMW_INLINE I rounded_code(V position, M noisy, I noise) { return add_where(noisy, bits(position), noise); }
ADAMW_INLINE I rounded_code_or_zero(V position, V x, I noise) {
  return zero_where_zero(x, bits(max(position, V(encode_start + 1.0f))) + noise);
}

// The codes of a block's moments, from moments and scales; `noise` for those that are rounded stochastically.
ADAMW_INLINE PerMoment<I> encode(DynamicCodes, bool amsgrad, const PerMoment<V> &x, const PerMoment<Scale> &scales,
                                 I noise) {
  return {encode_signed(x.exp_avg, V(scales.exp_avg.inverse), noise, signed_map),
          encode_unsigned(x.exp_avg_sq, V(scales.exp_avg_sq.inverse), noise, unsigned_map),
          amsgrad ? encode_unsigned(x.max_exp_avg_sq, V(scales.max_exp_avg_sq.inverse), I(0u), unsigned_map) : I(0u)};
}

// Of one moment, for quantization alone.
ADAMW_INLINE I encode_as(DynamicCodes, adamw_map map, V value, const Scale &scale, I noise) {
  return map == ADAMW_MAP_SIGNED ? encode_signed(value, V(scale.inverse), noise, signed_map)
                                 : encode_unsigned(value, V(scale.inverse), noise, unsigned_map);
}
ADAMW_INLINE V decode_as(DynamicCodes, adamw_map map, I code) {
  return map == ADAMW_MAP_SIGNED ? decode_signed<V>(code) : decode_unsigned<V>(code);
}

}  // namespace
}  // namespace adamw
