// Owns the law that stochastic rounding is right on average: to 8 bits but for what adamw.h says at adamw_state_format
// (the average by codes.h is at most so much too large, and the library keeps that average), to 16-bit state and master
// weights of 24 bits over a run.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "codes.h"
#include "model.h"

namespace {

// ---- the average, from the two codes beside a number and how far it is between them ----

// The mean of what x becomes, in units of absmax; below one sixteenth of it for exp_avg.
double mean_of_exp_avg(double x) {
  const double position = 127.0 * root_of(x, 2), lower = std::floor(position), part = position - lower;
  return exp_avg_value(lower) * (1.0 - part) + exp_avg_value(lower + 1.0) * part;
}
double mean_of_exp_avg_sq(double x, double floor) {
  const bool zeros = floor == double{floor_of_zeros};
  const double position = std::clamp(255.0 * (root_of(x, 3) - floor) / (1.0 - floor), zeros ? 1.0 : 0.0, 255.0);
  const double lower = std::min(std::floor(position), 254.0), part = position - lower;
  return exp_avg_sq_value(lower, floor) * (1.0 - part) + exp_avg_sq_value(lower + 1.0, floor) * part;
}

// "too large by at most" a figure: the most that is found is at most that, and at least 0.8 of it. Numbers are tried at
// every power of two, where an excess is largest, and in between.
template <class Mean>
double most_excess(double from, double to, const Mean &mean) {
  double most = 0.0;
  for (double x = from; x < to; x *= abridged ? 1.01 : 1.0003) most = std::max(most, mean(x) / x - 1.0);
  for (int e = -140; e < 0; ++e) {
    const double x = std::ldexp(1.0, e);
    if (x >= from && x < to) most = std::max(most, mean(x) / x - 1.0);
  }
  return most;
}
// The same in units of absmax, not of the number.
template <class Mean>
double most_added(double from, double to, const Mean &mean) {
  double most = 0.0;
  for (double x = from; x < to; x *= 1.01) most = std::max(most, mean(x) - x);
  return most;
}
void check_figure(const char *what, double most, double figure) {
  CHECK(most <= figure && most >= 0.8 * figure, "%s: too large by up to %g, not %g", what, most, figure);
}

void check_exp_avg_figures() {
  check_figure("exp_avg from 1e-6", most_excess(1e-6, 0.0625, mean_of_exp_avg), 0.027);
  check_figure("exp_avg from 6.2e-8", most_excess(6.2e-8, 1e-6, mean_of_exp_avg), 0.28);
  check_figure("exp_avg from 3.9e-9", most_excess(3.9e-9, 6.2e-8, mean_of_exp_avg), 1.40);
  check_figure("exp_avg below 3.8e-9", most_added(1e-13, 3.8e-9, mean_of_exp_avg), 2e-9);
}

void check_exp_avg_sq_figures() {
  const double figures[][2] = {{1e-2, 0.004}, {1e-4, 0.011}, {1e-6, 0.026}, {1e-8, 0.057}, {1e-12, 0.13}};
  for (const auto &[smallest, figure] : figures) {
    const double least = root_of(smallest, 3);
    double most = 0.0;
    for (double floor = least; floor <= double{largest_floor}; floor += abridged ? 1e-3 : 1e-5)
      for (int e = -60; e < 0; ++e) {
        const double x = std::ldexp(1.0, e);
        if (root_of(x, 3) > floor) most = std::max(most, mean_of_exp_avg_sq(x, floor) / x - 1.0);
      }
    check_figure("exp_avg_sq", most, figure);
    const double inside = most_excess(smallest, 1.0, [=](double x) { return mean_of_exp_avg_sq(x, least); });
    CHECK(inside <= figure, "exp_avg_sq from %g: %g", smallest, inside);
  }
  const auto with_zeros = [](double x) { return mean_of_exp_avg_sq(x, double{floor_of_zeros}); };
  check_figure("with zeros, from 1e-12", most_excess(1e-12, 1.0, with_zeros), 0.03);
  check_figure("with zeros, from 3.8e-15", most_excess(3.8e-15, 1e-12, with_zeros), 0.28);
  check_figure("with zeros, from 1.5e-17", most_excess(1.5e-17, 3.8e-15, with_zeros), 1.45);
  check_figure("with zeros, below 1.5e-17", most_added(1e-40, 1.5e-17, with_zeros), 8e-18);
}

// ---- what the library keeps ----

constexpr std::int64_t count = 256 * (abridged ? 512 : 4096);

// The average of what the numbers of a moment become, all of them x beside an absmax of 1 and, for exp_avg_sq, a
// smallest number: to 5 standard errors, 2^-14 of the distance of the codes (positions have 15 fractional bits, and so
// many are rounded), and the 8e-7 of the bits that a root drops.
void check_average(adamw_moment moment, float x, float smallest, double expected) {
  static std::vector<float> source(count), target(count);
  static std::vector<std::uint8_t> codes(count);
  source.assign(count, x);
  source[0] = 1.0f;
  source[1] = smallest;
  adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
  o.moment = moment;
  o.state_format = ADAMW_STATE_TENSOR8;
  o.numel = o.row_length = count;
  o.rounding = ADAMW_ROUND_STOCHASTIC;
  o.seed = 17;
  double sum = 0.0, squares = 0.0, number = 0.0, least = INFINITY, most = -INFINITY;
  for (o.step = 1; o.step <= 2; ++o.step) {
    float absmax, floor;
    CHECK(adamw_quantize(&o, source.data(), codes.data(), &absmax, &floor) == ADAMW_OK &&
              adamw_dequantize(&o, codes.data(), &absmax, &floor, target.data()) == ADAMW_OK,
          "%s", adamw_last_error());
    for (std::size_t i = 2; i < target.size(); ++i) {
      const double ratio = double{target[i]} / double{x};
      sum += ratio;
      squares += ratio * ratio;
      number += 1.0;
      least = std::min(least, ratio);
      most = std::max(most, ratio);
    }
  }
  const double mean = sum / number, variance = std::max(0.0, squares / number - mean * mean);
  const double tolerance = 5.0 * std::sqrt(variance / number) + (most - least) * 0x1p-14 + 8e-7 * mean;
  CHECK(std::fabs(mean - expected / std::fabs(x)) <= tolerance,
        "moment %d, smallest %g: %g becomes %g of it, not %g +- %g", moment, double{smallest}, double{x}, mean,
        expected / std::fabs(x), tolerance);
}

void check_averages() {
  for (float sign : {1.0f, -1.0f})
    for (double x : {1e-11, 4e-10, 1.9e-9, 3.8e-9, 0x1p-27, 3e-8, 0x1p-23, 4e-7, 0x1p-20, 1.1e-6, 0x1p-17, 1.2e-5, 5e-5,
                     0x1p-13, 1e-3, 0x1p-9, 0.008, 0.02, 0.0624})
      check_average(ADAMW_MOMENT_EXP_AVG, sign * static_cast<float>(x), 0.0f,
                    mean_of_exp_avg(double{static_cast<float>(x)}));
  // "to the nearest code from there up"
  for (float x : {0.0626f, 0.3f, 0.99f})
    check_average(ADAMW_MOMENT_EXP_AVG, x, 0.0f, exp_avg_value(std::round(127.0 * root_of(double{x}, 2))));
  for (float smallest : {0.0f, 1e-12f, 1e-8f, 1e-6f, 1e-4f, 1e-2f, 0.5f, 0.999f}) {
    const double floor = double{floor_of(smallest)};
    for (double x : {1e-30, 6e-20, 2e-18, 0x1p-55, 0x1p-47, 1.1e-12, 2e-9, 0x1p-30, 1e-5, 0x1p-16, 0x1p-13, 0.0012,
                     0x1p-7, 0.2, 0.5, 0.7, 0.9991, 0.9999})
      if (x > double{smallest})
        check_average(ADAMW_MOMENT_EXP_AVG_SQ, static_cast<float>(x), smallest,
                      mean_of_exp_avg_sq(double{static_cast<float>(x)}, floor));
  }
}

// "The element with the largest magnitude gets the last code, and that with the smallest exp_avg_sq gets code 0 unless
// it is above 31/32 of absmax. For exp_avg_sq, each may get the code next to that: the smallest with a probability of
// at most 1/30000, the largest with one of 1/16000 if floor is below 2/3, or 1/250 with any floor, so that absmax is
// kept to 2e-6 on average": over scales of all mantissas, within 5 standard errors.
void check_extremes() {
  constexpr std::int64_t rows = 1 << 12, keys = abridged ? 1 : 32;
  std::vector<float> source(rows * 64), target(rows * 64), absmax(rows), floor(rows);
  std::vector<std::uint8_t> codes(rows * 64);
  for (const float smallest : {-1.0f, 0.0f, 1e-3f, 0.039f, 0.2f, 0.9f, 0.999f, 1.0f}) {  // the root of 0.039 is 2/3
    const bool is_signed = smallest == -1.0f;
    for (std::size_t i = 0; i < source.size(); ++i) {
      const float largest = 1.0f + static_cast<float>(i / 64) / rows;
      source[i] = i % 64 == 5 ? largest * smallest : largest;
    }
    adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
    o.moment = is_signed ? ADAMW_MOMENT_EXP_AVG : ADAMW_MOMENT_EXP_AVG_SQ;
    o.numel = rows * 64;
    o.row_length = 64;
    o.rounding = ADAMW_ROUND_STOCHASTIC;
    double draws = 0.0, below = 0.0, above = 0.0, kept = 0.0, squares = 0.0;
    for (o.step = 1; o.step <= keys; ++o.step) {
      CHECK(adamw_quantize(&o, source.data(), codes.data(), absmax.data(), floor.data()) == ADAMW_OK &&
                adamw_dequantize(&o, codes.data(), absmax.data(), floor.data(), target.data()) == ADAMW_OK,
            "%s", adamw_last_error());
      for (std::size_t i = 0; i < codes.size(); ++i) {
        if (i % 64 == 5) {
          above += codes[i] == 1;
          CHECK(smallest > 0.97f || (is_signed ? codes[i] == 1 : codes[i] <= 1), "the smallest became %d", codes[i]);
          continue;
        }
        const double lost = 1.0 - double{target[i]} / double{source[i]};
        draws += 1.0;
        below += codes[i] == 254;
        kept += lost;
        squares += lost * lost;
        CHECK(codes[i] == 255 || (!is_signed && codes[i] == 254), "%g: the largest became %d", double{smallest},
              codes[i]);
      }
    }
    const double most = is_signed ? 0.0 : draws / (smallest < 0.04f ? 16000.0 : 250.0);
    CHECK(below <= most + 5.0 * std::sqrt(most), "%g: %g of %g", double{smallest}, below, draws);
    const double one_up = draws / 63.0 / 30000.0;
    CHECK(is_signed || above <= one_up + 5.0 * std::sqrt(one_up), "%g: %g of %g", double{smallest}, above, draws);
    CHECK(std::fabs(kept) <= 2e-6 * draws + 5.0 * std::sqrt(squares), "%g: loses %g", double{smallest}, kept / draws);
  }
}

// ---- runs whose changes are smaller than what a kept number can show ----

struct Average {
  double mean, error;  // of the mean: the standard one
};
template <class Number>
Average average_of(std::int64_t n, const Number &number) {
  double sum = 0.0, squares = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double x = number(i);
    sum += x;
    squares += x * x;
  }
  const double all = static_cast<double>(n), mean = sum / all;
  return {mean, std::sqrt(std::max(0.0, squares / all - mean * mean) / all)};
}

// Law: after a run, exp_avg_sq of 16-bit state is right on average. With a constant gradient of 1 it is
// 1 - 0.999^steps: each step of the last hundreds moves it by less than half the distance of two bfloat16 numbers, so
// that rounding to nearest would have stalled it. Within 5 standard errors, and 2^-24 of it a step for the roundings of
// single precision.
void check_second_moments() {
  constexpr int steps = abridged ? 300 : 2000;
  constexpr std::int64_t n = 1 << 14;
  adamw_step_options o = step_options(ADAMW_STATE_BFLOAT16);
  o.lr = 0.0;
  Model model(o, {{1, n, 0}});
  std::fill_n(model.memory[0][Model::grad].floats(), n, 1.0f);
  for (int step = 1; step <= steps; ++step) CHECK(model.call(step) == ADAMW_OK, "%s", adamw_last_error());
  const auto *v = static_cast<const std::uint16_t *>(model.rows[0].exp_avg_sq);
  const Average is =
      average_of(n, [&](std::int64_t i) { return double{float_from_bits(static_cast<std::uint32_t>(v[i]) << 16)}; });
  const double must = 1.0 - std::pow(0.999, steps);
  CHECK(std::fabs(is.mean - must) <= 5.0 * is.error + steps * 0x1p-24 * must, "%g, must be %g +- %g", is.mean, must,
        is.error);
  std::printf("exp_avg_sq of 16 bits after %d steps: %.6f, exactly %.6f: %+.1f standard errors\n", steps, is.mean, must,
              (is.mean - must) / is.error);
}

// Law: after a run, master weights of 24 bits are where those of float32 parameters are, on average, though each step
// is a thirty-second of the distance of two of them: 2^-20 of numbers in [1, 2). Within 5 standard errors.
void check_master_weights() {
  constexpr int steps = abridged ? 100 : 1000;
  constexpr std::int64_t n = 1 << 14;
  adamw_step_options o = step_options(ADAMW_STATE_FLOAT32, 0, ADAMW_BFLOAT16, ADAMW_FLOAT32, 8);
  o.lr = 0x1p-20, o.weight_decay = 0.0;
  Model model(o, {{1, n, 0}});
  std::fill_n(model.memory[0][Model::grad].floats(), n, 1.0f);
  auto *param = static_cast<std::uint16_t *>(model.memory[0][Model::param].at());
  std::fill_n(param, n, std::uint16_t{0x3FC0});  // 1.5
  for (int step = 1; step <= steps; ++step) CHECK(model.call(step) == ADAMW_OK, "%s", adamw_last_error());
  const auto *rest = static_cast<const std::int8_t *>(model.rows[0].param_remainder);
  const Average is = average_of(n, [&](std::int64_t i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(param[i]) << 16;
    return double{float_from_bits(bits + static_cast<std::uint32_t>(rest[i] * 256))} - 1.5;
  });
  const double must = -0x1p-20 * steps;  // the first moment over the root of the second is 1 in every step
  CHECK(std::fabs(is.mean - must) <= 5.0 * is.error, "%g, must be %g +- %g", is.mean, must, is.error);
  std::printf("master weights of 24 bits after %d steps: %.4e, exactly %.4e: %+.1f standard errors\n", steps, is.mean,
              must, (is.mean - must) / is.error);
}

}  // namespace

int main() {
  check_exp_avg_figures();
  check_exp_avg_sq_figures();
  check_averages();
  check_extremes();
  check_second_moments();
  check_master_weights();
  return finish();
}
