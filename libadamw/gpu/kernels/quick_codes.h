// Owns how the common path takes codes to values: root_codes.h's bits, in fewer instructions, for what a step leaves.
#pragma once

#include "block.h"

namespace adamw {
namespace gpu {
namespace {

// A code alone in bits 16 ... 23 of a word is, taken as a float, code * 2^-133: as an exponent of 0 or 1 has it, all of
// these are multiples of one unit. So no conversion is needed, and a fused multiply-add takes the power back.
constexpr float inverse_unit_127 = (1.0f / 127.0f) * 0x1p67f * 0x1p66f,
                inverse_unit_255 = (1.0f / 255.0f) * 0x1p67f * 0x1p66f;

ADAMW_DEVICE float code_as_float(const std::uint32_t *codes, int j) {
  return from_bits(code_in_place(codes[j / 4], j % 4));
}

// Every code but that of 0 is at least 1 / 127 from it, far above the root of 0, and subtracting that leaves 0 there.
ADAMW_DEVICE float quick_exp_avg(const std::uint32_t *codes, int j) {
  constexpr std::uint32_t zero = root_of_zero(2);
  const float t = fma(code_as_float(codes, j), inverse_unit_127, -128.0f / 127.0f);
  const std::uint32_t least = bits(max(absolute(t), from_bits(zero)));
  return from_bits(((least << 2) - (zero << 2)) | (bits(t) & 0x80000000u));
}

// A floor is at least the root of 0 but in fresh state, whose absmax is 0: there any value will do that is finite.
struct QuickLine {
  float slope, floor;
};
ADAMW_DEVICE bool has_quick_line(const StoredScale &scale) {
  return scale.floor >= from_bits(root_of_zero(3)) || scale.absmax == 0.0f;
}
ADAMW_DEVICE QuickLine quick_line(float stored) {
  const float floor = max(stored, from_bits(root_of_zero(3)));
  return {(1.0f - floor) * inverse_unit_255, floor};
}
ADAMW_DEVICE float quick_exp_avg_sq(const std::uint32_t *codes, int j, const QuickLine &line) {
  const float t = fma(code_as_float(codes, j), line.slope, line.floor);
  return from_bits((bits(t) << 3) - (root_of_zero(3) << 3));
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
