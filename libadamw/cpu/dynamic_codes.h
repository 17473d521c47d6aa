// Owns how numerics/dynamic_codes.h looks up its lines and rounds on vectors. Knows nothing of where codes lie.
#pragma once

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

}  // namespace
}  // namespace adamw
