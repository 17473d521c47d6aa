// Owns what kept.h says: positions among codes in double precision, as wide as what is known of a number.
#include "kept.h"

#include <algorithm>
#include <cmath>

#include "../cpp/codes.h"
#include "finding.h"

namespace {

constexpr double u = 0x1p-24;

double exp_avg_at(double x, double scale) { return std::copysign(127.0 * root_of(std::fabs(x) / scale, 2), x); }
double exp_avg_sq_at(double x, double scale, double floor) {
  const double at = 255.0 * (root_of(std::max(x, 0.0) / scale, 3) - floor) / (1.0 - floor);
  return std::clamp(at, floor == double{floor_of_zeros} ? 1.0 : 0.0, 255.0);
}

}  // namespace

void compare_kept(const std::vector<Known> &numbers, int moment, const std::uint8_t *codes, float absmax, float floor,
                  std::int64_t row, std::int64_t first) {
  const bool is_exp_avg = moment == 0;
  const int zero = is_exp_avg ? 128 : 0;
  const double scale = double{absmax}, from = double{floor};
  Known most{0, 0}, least{INFINITY, INFINITY};  // of magnitudes
  for (const Known &x : numbers) {
    const double a = std::fabs(x.low), b = std::fabs(x.high), low = x.low <= 0 && x.high >= 0 ? 0 : std::min(a, b);
    most = {std::max(most.low, low), std::max(most.high, std::max(a, b))};
    least = {std::min(least.low, low), std::min(least.high, std::max(a, b))};
  }
  if (!(scale >= most.low - 0x1p-120 && scale <= most.high + 0x1p-120))
    finding("row %lld, element %lld: absmax %d is %.9g, must be %.9g", static_cast<long long>(row),
            static_cast<long long>(first), moment, scale, most.high);
  if (scale == 0) return;
  if (!is_exp_avg) {
    const auto limited = [](double root) { return std::min(root, double{largest_floor}); };
    const double low = limited(root_of(least.low / scale, 3) - 8 * u),
                 high = limited(root_of(least.high / scale, 3) + 8 * u);
    if (!(from >= low && from <= high) || (least.high == 0 && floor != floor_of_zeros))
      finding("row %lld, element %lld: floor %d is %.9g, must be %.9g", static_cast<long long>(row),
              static_cast<long long>(first), moment, from, high);
  }
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const Known &x = numbers[i];
    const int code = codes[i] - zero;
    const bool is_zero = x.low == 0 && x.high == 0;
    const double low = is_exp_avg ? exp_avg_at(x.low, scale) : exp_avg_sq_at(x.low, scale, from);
    const double high = is_exp_avg ? exp_avg_at(x.high, scale) : exp_avg_sq_at(x.high, scale, from);
    const bool nearest = moment == 2 || (is_exp_avg && std::min(std::fabs(x.low), std::fabs(x.high)) > 0.0626 * scale);
    // Narrow blocks have 65280 codes in a root's unit, of which 2^-23 may be cut or rounded.
    const double reach = (nearest ? 0.5 : 1.0) + 0.02;
    const bool lies_there = is_zero ? code == 0 : code >= low - reach && code <= high + reach;
    const bool became_zero = moment > 0 && x.low > 0 && code == 0 && floor <= floor_of_zeros;
    if (!lies_there || became_zero)
      finding("row %lld, element %lld: moment %d has code %d of absmax %.9g and floor %.9g, but is %.9g",
              static_cast<long long>(row), static_cast<long long>(first) + static_cast<long long>(i), moment, codes[i],
              scale, from, x.high);
  }
}

float decoded(bool is_exp_avg, std::uint8_t code, float absmax, float floor) {
  if (is_exp_avg) {
    const float t = static_cast<float>(code - 128) * (1.0f / 127.0f);
    return std::copysign(static_cast<float>(power_of(std::fabs(double{t}), 2)), t) * absmax;
  }
  const float from = floor >= floor_of_zeros && floor <= 1.0f ? floor : 0.0f;  // as adamw.h says of others
  const float t = std::fma(static_cast<float>(code), (1.0f - from) * (1.0f / 255.0f), from);
  return static_cast<float>(power_of(double{t}, 3)) * absmax;
}
