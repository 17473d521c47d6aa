// Owns the law that stochastic rounding to 8 bits is right on average from where adamw.h says on, and below it keeps
// what adamw.h says: figures that are given at adamw_state_format, each measured in both directions.
#include <cmath>
#include <cstdint>
#include <vector>

#include "../../include/adamw.h"
#include "check.h"

namespace {

constexpr std::int64_t count = 256 * (abridged ? 512 : 4096);
constexpr double smallest_signed = 5.5e-7, smallest_unsigned = 3.25e-7;  // the smallest codes but zero

struct Average {
  double kept;       // of the number, on average
  double tolerance;  // 5 standard errors, and what positions of 15 fractional bits may be off
  float least, most;
};

// What a number becomes whose scale is 1, over many elements and two keys.
Average average_of(adamw_map map, float x) {
  static std::vector<float> source(count), absmax(count / 256), target(count);
  static std::vector<std::uint8_t> codes(count);
  source.assign(count, x);
  for (std::int64_t i = 0; i < count; i += 256) source[static_cast<std::size_t>(i)] = 1.0f;
  adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
  o.map = map;
  o.numel = o.row_length = count;
  o.rounding = ADAMW_ROUND_STOCHASTIC;
  o.seed = 17;
  double sum = 0.0, squares = 0.0, number = 0.0;
  Average result{0.0, 0.0, INFINITY, -INFINITY};
  for (o.step = 1; o.step <= 2; ++o.step) {
    CHECK(adamw_quantize(&o, source.data(), codes.data(), absmax.data()) == ADAMW_OK &&
              adamw_dequantize(&o, codes.data(), absmax.data(), target.data()) == ADAMW_OK,
          "%s", adamw_last_error());
    for (std::size_t i = 0; i < target.size(); ++i) {
      if (i % 256 == 0) continue;
      const double ratio = double{target[i]} / double{x};
      sum += ratio;
      squares += ratio * ratio;
      number += 1.0;
      result.least = std::fmin(result.least, target[i]);
      result.most = std::fmax(result.most, target[i]);
    }
  }
  result.kept = sum / number;
  const double variance = std::fmax(0.0, squares / number - result.kept * result.kept);
  const double distance = (double{result.most} - double{result.least}) / std::fabs(double{x});
  result.tolerance = 5.0 * std::sqrt(variance / number) + distance * std::ldexp(1.0, -15) + 1e-6;
  return result;
}

// "from 3.81e-6 up", to the tenth of the scale from which on the nearest code is stored; and "100% from 1.08e-6 up to
// 3.25e-6".
void check_exp_avg() {
  for (const float sign : {1.0f, -1.0f}) {
    for (double x :
         {1.08e-6, 1.1e-6, 1.5e-6, 3e-6, 3.24e-6, 3.81e-6, 7e-6, 1.05e-5, 2e-5, 1.1e-4, 1e-3, 1.04e-2, 0.03, 0.0999}) {
      const Average a = average_of(ADAMW_MAP_SIGNED, sign * static_cast<float>(x));
      CHECK(std::fabs(a.kept - 1.0) <= a.tolerance, "%g of the scale: %g of it is kept, +-%g", sign * x, a.kept,
            a.tolerance);
    }
    // "below 9e-7: 61% (5.5 / 9: each becomes 0 or the smallest code)"
    for (double x : {1e-7, 3e-7, 4.6e-7, 5.5e-7, 7e-7, 8.99e-7}) {
      const Average a = average_of(ADAMW_MAP_SIGNED, sign * static_cast<float>(x));
      const double code = sign > 0 ? a.most : -a.least, other = sign > 0 ? a.least : a.most;
      CHECK(std::fabs(a.kept - 5.5 / 9.0) <= a.tolerance, "%g of the scale: %g of it is kept, +-%g", sign * x, a.kept,
            a.tolerance);
      CHECK(std::fabs(code - smallest_signed) < 1e-12 && other == 0.0, "%g became %g and %g", sign * x, code, other);
    }
    // "9e-7 to 1.08e-6: rises from 61% to 100%": the ends are no further apart than they are.
    double before = 5.5 / 9.0;
    for (double x : {9.1e-7, 9.5e-7, 1e-6, 1.03e-6, 1.06e-6}) {
      const Average a = average_of(ADAMW_MAP_SIGNED, sign * static_cast<float>(x));
      CHECK(a.kept > before + a.tolerance && a.kept < 1.0 - a.tolerance, "%g of the scale: %g of it is kept, +-%g",
            sign * x, a.kept, a.tolerance);
      before = a.kept;
    }
    // "3.25e-6 to 3.81e-6: rises to 109%"
    before = 1.0;
    for (double x : {3.3e-6, 3.5e-6, 3.7e-6, 3.8e-6}) {
      const Average a = average_of(ADAMW_MAP_SIGNED, sign * static_cast<float>(x));
      CHECK(a.kept > before + a.tolerance && a.kept < 1.095, "%g of the scale: %g of it is kept, +-%g", sign * x,
            a.kept, a.tolerance);
      before = a.kept;
    }
    CHECK(before > 1.085, "%g of it is kept", before);
  }
}

// "sqrt(exp_avg_sq): right from 3.25e-7 up. Smaller numbers except 0 become that code."
void check_root() {
  for (double x : {3.26e-7, 4e-7, 7.7e-7, 9.3e-7, 1.1e-6, 5e-6, 1.1e-4, 1e-2, 0.11, 0.5, 0.99}) {
    const Average a = average_of(ADAMW_MAP_UNSIGNED, static_cast<float>(x));
    CHECK(std::fabs(a.kept - 1.0) <= a.tolerance, "%g of the scale: %g of it is kept, +-%g", x, a.kept, a.tolerance);
  }
  for (double x : {1e-30, 1e-9, 1e-7, 3.24e-7}) {
    const Average a = average_of(ADAMW_MAP_UNSIGNED, static_cast<float>(x));
    CHECK(a.least == a.most && std::fabs(a.least - smallest_unsigned) < 1e-12, "%g became %g to %g", x, a.least,
          a.most);
  }
}

// "Its element gets the last code; for sqrt(exp_avg_sq), with a probability of 1/16000, the code below it": over scales
// of all mantissas, within 5 standard errors and 5%, since the probability is rounded.
void check_largest() {
  constexpr std::int64_t rows = 1 << 12, keys = abridged ? 1 : 256;
  std::vector<float> source(rows * 64);
  for (std::size_t i = 0; i < source.size(); ++i) source[i] = 1.0f + static_cast<float>(i / 64) / rows;
  std::vector<float> absmax(rows);
  std::vector<std::uint8_t> codes(rows * 64);
  for (const adamw_map map : {ADAMW_MAP_SIGNED, ADAMW_MAP_UNSIGNED}) {
    adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
    o.map = map;
    o.numel = rows * 64;
    o.row_length = 64;
    o.rounding = ADAMW_ROUND_STOCHASTIC;
    double draws = 0.0, below = 0.0;
    for (o.step = 1; o.step <= keys; ++o.step) {
      CHECK(adamw_quantize(&o, source.data(), codes.data(), absmax.data()) == ADAMW_OK, "%s", adamw_last_error());
      for (std::uint8_t code : codes) {
        draws += 1.0;
        below += code == 254;
        CHECK(code >= 254, "the largest became %d", code);
      }
    }
    const double expected = map == ADAMW_MAP_SIGNED ? 0.0 : draws / 16000.0;
    CHECK(std::fabs(below - expected) <= 5.0 * std::sqrt(expected) + 0.05 * expected, "map %d: %g of %g, not %g", map,
          below, draws, expected);
  }
  float values[256];
  CHECK(adamw_codebook(ADAMW_MAP_UNSIGNED, values) == ADAMW_OK && std::fabs(1.0 - double{values[254]} - 0.0035) < 5e-5,
        "%g", double{values[254]});
}

}  // namespace

int main() {
  check_exp_avg();
  check_root();
  check_largest();
  return finish();
}
