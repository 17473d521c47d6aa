// Owns the GPU's approximate instructions at their worst: any result that their documentation allows, chosen by operand
// and seed.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "runtime.h"

namespace simt {

// 32 bits that are the same for the same operand and seed.
inline std::uint32_t operand_hash(float x) {
  std::uint32_t b;
  std::memcpy(&b, &x, 4);
  std::uint64_t h = (b ^ settings().seed << 32) * 0x9E3779B97F4A7C15u;
  h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
  return static_cast<std::uint32_t>(h >> 32);
}

inline float flushed(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }

// rcp.approx.ftz.f32: the maximum error is 1 unit in the last place.
inline float approximate_reciprocal(float x, bool coarse) {
  x = flushed(x);
  const double exact = 1.0 / static_cast<double>(x);
  if (!std::isfinite(exact) || exact == 0.0) return static_cast<float>(exact);
  const std::uint32_t choice = operand_hash(x);
  if (coarse) return static_cast<float>(exact * (choice % 2 == 0 ? 0.97 : 1.03));
  const float nearest = static_cast<float>(exact), infinity = std::numeric_limits<float>::infinity();
  // The two floats around the exact value; around a float, those beside it.
  const double value = static_cast<double>(nearest);
  const float below = value < exact ? nearest : std::nextafter(nearest, -infinity),
              above = value > exact ? nearest : std::nextafter(nearest, infinity);
  return flushed(choice % 4 == 0 ? nearest : choice % 2 == 0 ? below : above);
}

// rsqrt.approx.ftz.f32: the maximum relative error is 2^-22.9.
inline float approximate_inverse_root(float x, bool coarse) {
  x = flushed(x);
  const double exact = 1.0 / std::sqrt(static_cast<double>(x));
  if (!std::isfinite(exact) || exact == 0.0) return static_cast<float>(exact);
  const double most = coarse ? 0x1p-9 : 0x1.125p-23;  // 2^-22.9
  const std::uint32_t choice = operand_hash(x);
  const double error = choice % 4 == 0 ? most : choice % 4 == 1 ? -most : most * (choice / 0x1p31 - 1.0);
  float y = static_cast<float>(exact * (1.0 + error));
  // Rounding may have gone beyond.
  if (std::fabs(static_cast<double>(y) - exact) > most * exact) y = std::nextafter(y, static_cast<float>(exact));
  return y;
}

}  // namespace simt
