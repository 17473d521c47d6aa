// Owns division and square root without branches, for a GPU's common path: from the approximate reciprocal by the
// textbook fused multiply-add steps, which give the correctly rounded result, so IEEE's bits, as long as nothing on the
// way leaves the normal numbers (and but for two of the 2^46 pairs of mantissas, if the approximation errs the wrong
// way there: tests/simt/test_fast_div_sqrt.cpp). InRange32 and InRange8 say for which operands that holds; a block with
// others takes the way that any operand may. The compiler's own IEEE operations test every operand and branch, which
// keeps the eight elements of a lane from overlapping.
#pragma once

#include "scalar_ops.h"
// The operations on lanes come first.
#include "../../numerics/root_codes.h"

namespace adamw {

struct Quick {
  float x;
  Quick() = default;
  ADAMW_DEVICE Quick(float value) : x(value) {}
};

ADAMW_DEVICE float as_float(Quick a) { return a.x; }
ADAMW_DEVICE Quick operator-(Quick a, Quick b) { return a.x - b.x; }
ADAMW_DEVICE Quick operator*(Quick a, Quick b) { return a.x * b.x; }
ADAMW_DEVICE Quick fma(Quick a, Quick b, Quick c) { return fma(a.x, b.x, c.x); }
ADAMW_DEVICE Quick maximum(Quick a, Quick b) { return maximum(a.x, b.x); }
ADAMW_DEVICE bool not_equal(Quick a, Quick b) { return a.x != b.x; }
ADAMW_DEVICE Quick select(bool m, Quick a, Quick b) { return m ? a.x : b.x; }

// The root of a, from the approximate inverse of it. Zeros: a may be 0.
template <bool Zeros>
ADAMW_DEVICE Quick root_from(Quick a, float inverse_root) {
  const float y = Zeros ? min(inverse_root, 0x1p60f) : inverse_root;  // of 0: no infinity
  const float s = a.x * y;
  return fma(fma(-s, s, a.x), 0.5f * y, s);
}
ADAMW_DEVICE Quick sqrt(Quick a) { return root_from<true>(a, gpu::approximate_inverse_root(a.x)); }

ADAMW_DEVICE Quick operator/(Quick a, Quick b) {
  float r = gpu::approximate_reciprocal(b.x);
  r = fma(r, fma(-b.x, r, 1.0f), r);
  const float q = a.x * r;
  return fma(r, fma(-b.x, q, a.x), q);
}

// Where has_quick_inverse() says so, one correction is enough.
ADAMW_DEVICE Quick inverse(Quick a) {
  const float r = gpu::approximate_reciprocal(a.x);
  return fma(r, fma(-a.x, r, 1.0f), r);
}

// For this dividend, the approximation itself will do: of all divisors (tests/simt/test_fast_div_sqrt.cpp).
ADAMW_DEVICE Quick codes_over(Quick width) {
  const float r = gpu::approximate_reciprocal(width.x), q = almost_last_code * r;
  return fma(r, fma(-width.x, q, almost_last_code), q);
}

// Watches the operands of a step, the new exp_avg and exp_avg_sq: which of them is the smallest but for zero, which
// subtracting one from the bits takes to the top.
struct Lowest {
  std::uint32_t bits_less_one = 0xFFFFFFFFu;

  ADAMW_DEVICE void see(float x) { bits_less_one = smaller(bits(x) - 1, bits_less_one); }  // not negative
  ADAMW_DEVICE bool at_least(float x) const { return bits_less_one >= bits(x) - 1; }
};
// The same of magnitudes; doubling the bits drops the sign.
struct LowestMagnitude {
  std::uint32_t doubled_less_one = 0xFFFFFFFFu;

  ADAMW_DEVICE void see(float x) { doubled_less_one = smaller(bits(x) * 2 - 1, doubled_less_one); }
  ADAMW_DEVICE bool at_least(float x) const { return doubled_less_one >= bits(x) * 2 - 1; }
};
struct Highest {
  std::uint32_t bits_seen = 0;

  ADAMW_DEVICE void see(float x) { bits_seen = larger(bits_seen, bits(absolute(x))); }
  ADAMW_DEVICE bool at_most(float x) const { return bits_seen <= bits(x); }
};

// The range of the 32-bit step: exp_avg and exp_avg_sq are 0 or 2^-100 ... 2^20 in magnitude. Then a root is at most
// 2^10, a denominator at most 2^20 + eps, and a quotient at least 2^-120.
struct InRange32 {
  LowestMagnitude low;
  Highest high;

  ADAMW_DEVICE void see(float m, float v) {
    low.see(m), low.see(v);
    high.see(m), high.see(v);
  }
  ADAMW_DEVICE bool all() const { return low.at_least(0x1p-100f) && high.at_most(0x1p20f); }
};
// What the hyperparameters contribute: the denominator is root * inverse_root_bc2 + eps.
ADAMW_DEVICE bool quick_range(const Coefficients &c) {
  return c.eps >= 0x1p-40f && c.eps <= 0x1p20f && c.inverse_root_bc2 <= 0x1p10f;
}

// Whether 1 / x is IEEE's for certain: x is a block's largest magnitude, and all ones in its mantissa are one of the
// two cases above; of millions of blocks some have it.
ADAMW_DEVICE bool has_quick_inverse(std::uint32_t x) { return (~x & 0x7FFFFFu) != 0; }

// The range of the 8-bit step: exp_avg is 0 or 2^-90 ... 2^20 in magnitude, exp_avg_sq, and its maximum, 0 or
// 2^-100 ... 2^16. Then a root is 0 or 2^-50 ... 2^8, a denominator at most 2^36, a quotient at least 2^-126, and the
// inverse of a block's largest at most 2^100. The quotient of its codes is 255 / (1 - floor), at most 2^32.
struct InRange8 {
  LowestMagnitude m;
  Lowest v;

  ADAMW_DEVICE bool all() const { return m.at_least(0x1p-90f) && v.at_least(0x1p-100f); }
};
// Of a block's largest, as bits; above those of any number are infinities, NaN and what is negative.
ADAMW_DEVICE bool in_range8(std::uint32_t exp_avg, std::uint32_t exp_avg_sq) {
  return (exp_avg <= bits(0x1p20f)) & (exp_avg_sq <= bits(0x1p16f));
}
// Whether no exp_avg is below 2^-63: all numbers from there on, up to 2, have this bit, and so has their conjunction.
constexpr std::uint32_t common_bit = 0x20000000u;
ADAMW_DEVICE bool quick_range(const Factors8 &f) {
  const float eps = absolute(f.eps);
  return eps >= 0x1p-60f && eps <= 0x1p35f && absolute(f.root_weight) <= 0x1p27f;
}

}  // namespace adamw
