// Owns how the common path takes codes to values: root_codes.h's bits, in fewer instructions, for what a step leaves.
#pragma once

#include "block.h"

namespace adamw {
namespace gpu {
namespace {

// A code alone in bits 16 ... 23 of a word is, taken as a float, code * 2^-133: as an exponent of 0 or 1 has it, all of
// these are multiples of one unit. So no conversion is needed, and a fused multiply-add takes the power back.
ADAMW_DEVICE float code_as_float(const std::uint32_t *codes, int j) {
  return from_bits(code_in_place(codes[j / 4], j % 4));
}

// An eighth of the value. With t * 2^-32 instead of t, shifting alone is unroot<2>() but for that factor: the bits that
// it drops are those that unroot() subtracts, in all t but 0, which stays 0. Eight times the factor that it is
// multiplied by is always exact.
ADAMW_DEVICE float quick_exp_avg(const std::uint32_t *codes, int j) {
  const float t = fma(code_as_float(codes, j), (1.0f / 127.0f) * 0x1p101f, (-128.0f / 127.0f) * 0x1p-32f);
  return from_bits(with_sign(bits(t) << 2, bits(t)));
}

// A floor is at least the root of 0 but in fresh state, whose absmax is 0: there any value will do that is finite.
struct QuickLine {
  float slope, floor;
};
ADAMW_DEVICE bool has_quick_line(const StoredScale &scale) {
  return (scale.floor >= from_bits(root_of_zero(3)) && scale.floor <= 1.0f) || scale.absmax == 0.0f;
}
ADAMW_DEVICE QuickLine quick_line(float stored) {
  const float floor = max(stored, from_bits(root_of_zero(3)));
  return {(1.0f - floor) * ((1.0f / 255.0f) * 0x1p67f * 0x1p66f), floor};
}
ADAMW_DEVICE float quick_exp_avg_sq(const std::uint32_t *codes, int j, const QuickLine &line) {
  const float t = fma(code_as_float(codes, j), line.slope, line.floor);
  return from_bits((bits(t) << 3) - (root_of_zero(3) << 3));
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
