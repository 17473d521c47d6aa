// Owns division and square root without branches, for a GPU's common path: from the approximate reciprocal by the
// textbook fused multiply-add steps, which give the correctly rounded result, so IEEE's bits, as long as nothing on the
// way leaves the normal numbers. InRange says for which operands that holds; a block with others takes the way that any
// operand may. The compiler's own IEEE operations test every operand and branch, which keeps the eight elements of a
// lane from overlapping.
#pragma once

#include "lane.h"

namespace adamw {

struct Quick {
  float x;
  Quick() = default;
  ADAMW_DEVICE Quick(float value) : x(value) {}
};

ADAMW_DEVICE float as_float(float x) { return x; }
ADAMW_DEVICE float as_float(Quick a) { return a.x; }
ADAMW_DEVICE Quick operator+(Quick a, Quick b) { return a.x + b.x; }
ADAMW_DEVICE Quick operator-(Quick a, Quick b) { return a.x - b.x; }
ADAMW_DEVICE Quick operator*(Quick a, Quick b) { return a.x * b.x; }
ADAMW_DEVICE Quick fma(Quick a, Quick b, Quick c) { return fma(a.x, b.x, c.x); }
ADAMW_DEVICE Quick maximum(Quick a, Quick b) { return maximum(a.x, b.x); }
ADAMW_DEVICE bool not_equal(Quick a, Quick b) { return a.x != b.x; }
ADAMW_DEVICE bool less_equal(Quick a, Quick b) { return a.x <= b.x; }
ADAMW_DEVICE Quick select(bool m, Quick a, Quick b) { return m ? a.x : b.x; }

ADAMW_DEVICE Quick sqrt(Quick a) {
  const float y = min(gpu::approximate_inverse_root(a.x), 0x1p60f);  // of 0: no infinity
  const float s = a.x * y;
  return fma(fma(-s, s, a.x), 0.5f * y, s);
}

ADAMW_DEVICE Quick operator/(Quick a, Quick b) {
  float r = gpu::approximate_reciprocal(b.x);
  r = fma(r, fma(-b.x, r, 1.0f), r);
  float q = a.x * r;
  q = fma(r, fma(-b.x, q, a.x), q);
  return fma(r, fma(-b.x, q, a.x), q);
}

// Watches the operands of a step, exp_avg and exp_avg_sq: each must be 0 or 2^-100 ... 2^20 in magnitude. Then a root
// is at most 2^10, a denominator at most 2^20 + eps, and a quotient at least 2^-120. Subtracting one from the bits
// takes 0 to the top.
struct InRange {
  std::uint32_t lowest = 0xFFFFFFFFu, highest = 0;

  ADAMW_DEVICE void see_lowest(float m, float v) {
    const std::uint32_t bm = bits(absolute(m)) - 1, bv = bits(v) - 1;
    lowest = bv < lowest ? bv : lowest;
    lowest = bm < lowest ? bm : lowest;
  }
  ADAMW_DEVICE void see_highest(float m, float v) {
    const std::uint32_t bm = bits(absolute(m)), bv = bits(v);
    highest = bv > highest ? bv : highest;
    highest = bm > highest ? bm : highest;
  }
  ADAMW_DEVICE bool all() const { return lowest >= bits(0x1p-100f) - 1 && highest <= bits(0x1p20f); }
};
// What the hyperparameters contribute: the denominator is root * inverse_root_bc2 + eps.
ADAMW_DEVICE bool quick_range(const Coefficients &c) {
  return c.eps >= 0x1p-40f && c.eps <= 0x1p20f && c.inverse_root_bc2 <= 0x1p10f;
}

}  // namespace adamw
