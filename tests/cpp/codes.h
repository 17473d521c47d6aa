// Owns the root codes by adamw.h's words, in double precision and apart from the library: what a number's position
// among the codes is, and what a code stands for.
#pragma once

#include <cmath>

#include "inputs.h"

// log2, exact at powers of two and linear between them: a float's bits are 2^23 times this and its bias, so that it
// goes on below 2^-126, to -127 at 0.
inline double log_line(double x) {
  if (x < 0x1p-126) return -127.0 + x * 0x1p126;
  int e;
  const double m = std::frexp(x, &e);
  return e - 2 + 2.0 * m;
}

inline double exp_line(double l) {
  if (l < -126.0) return l < -127.0 ? 0.0 : (l + 127.0) * 0x1p-126;
  const double whole = std::floor(l);
  return std::ldexp(1.0 + (l - whole), static_cast<int>(whole));
}

// adamw.h's power(t, s), and its inverse. Of floats both are exact here.
inline double power_of(double t, int s) { return exp_line(log_line(t) * (1 << s)); }
inline double root_of(double a, int s) { return exp_line(log_line(a) / (1 << s)); }

// The float next to a number that is not negative, towards zero.
inline float cut_to_float(double x) {
  const float nearest = static_cast<float>(x);
  return static_cast<double>(nearest) > x ? std::nextafterf(nearest, 0.0f) : nearest;
}

// Where a magnitude is among 0 ... 127, of those of exp_avg, and among 0 ... 255. The library cuts the root to a float.
inline double exp_avg_position(float a) { return 127.0 * static_cast<double>(cut_to_float(root_of(double{a}, 2))); }
inline double exp_avg_sq_position(float a, float floor) {
  return 255.0 * (static_cast<double>(cut_to_float(root_of(double{a}, 3))) - double{floor}) / (1.0 - double{floor});
}

// In units of absmax. position: of a code, or between two.
inline double exp_avg_value(double position) { return power_of(position / 127.0, 2); }
inline double exp_avg_sq_value(double position, double floor) {
  return power_of(floor + position * (1.0 - floor) / 255.0, 3);
}

// The root of 0, which is the floor of a block that has zeros; and that of a block whose numbers are alike.
constexpr float floor_of_zeros = 0x1.2p-16f, largest_floor = 255.0f / 256.0f;

// What a block's floor is by that, of its smallest number in units of absmax.
inline float floor_of(float smallest) { return std::fmin(cut_to_float(root_of(double{smallest}, 3)), largest_floor); }

// How far the library's position may be off, in codes: 1 - floor and its reciprocal (each rounded to 2^-24, of up to
// 256), per_code's 2^-16, start and the fma (2^-16 each) and the noise's own 2^-15: below 2^-13 together.
constexpr double position_error = 0x1p-13;

// The code that a word gives to the position; nearest is that of a word of 0. -1: too close to call.
inline int code_at(double position, std::uint32_t word) {
  const double noise = static_cast<double>(static_cast<std::int32_t>(word) >> 17) * 0x1p-15;
  const double sum = position + 0.5 + noise, code = std::floor(sum);
  if (std::fabs(sum - std::round(sum)) < position_error) return -1;
  return static_cast<int>(code);
}
