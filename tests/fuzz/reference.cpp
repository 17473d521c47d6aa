// Owns the comparison of a step with double precision, see reference.h. Tolerances count the roundings to single
// precision (u each); numbers of sizes at which single precision underflows or overflows are left out, but for the
// rules of NaN.
#include "reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "../cpp/weights.h"
#include "finding.h"
#include "kept.h"

namespace {

constexpr double u = 0x1p-24, largest = 3.4028234663852886e38;

// A number whose square and products stay ordinary. exp_avg is not squared.
bool everyday(double x, double least = 0x1p-40) { return x == 0 || (std::fabs(x) > least && std::fabs(x) < 0x1p50); }

// Half a unit in the last place of a dtype at x. A bfloat16 may have some bits more.
double half_ulp(double x, std::int32_t dtype, int more = 0) {
  const int bits = dtype == ADAMW_FLOAT32 ? 24 : dtype == ADAMW_BFLOAT16 ? 8 + more : 11;
  int e;
  std::frexp(x, &e);
  return std::ldexp(0.5, std::max(e - 1, dtype == ADAMW_FLOAT16 ? -14 : -126) - bits + 1);
}

struct Element {
  double p, g, m, v, x;                   // before; 8 bits: the numbers that codes and scales stand for
  double new_m, new_v, new_x, direction;  // after
  bool sure, skipped;                     // can be compared; is left as it is
};

struct Row {
  const adamw_step_options &o;
  const adamw_tensor &t;
  std::int64_t number;
  const RowBytes &before, &after;
  bool eight, sixteen, amsgrad, skip_zeros;
  double lr, scale, bc1, bc2, norms = 0;  // norms: relative error of the norms that the step contains
  std::int64_t row_length, per_row;       // of blocks: row_length and blocks in it, or numel and 0
  double length_error = 0;                // relative, of the update's norm, for max_unorm

  std::int64_t block_of(std::int64_t i) const {
    if (o.state_format == ADAMW_STATE_TENSOR8) return 0;
    if (per_row == 0) return i / ADAMW_BLOCK_SIZE;
    return i / row_length * per_row + i % row_length / ADAMW_BLOCK_SIZE;
  }
  double moment(const RowBytes &bytes, int k, std::int64_t i) const {
    if (!eight) return element(bytes.moments[k], sixteen ? ADAMW_BFLOAT16 : ADAMW_FLOAT32, i);
    const std::int64_t block = block_of(i);
    const float floor = k == 0 ? 0.0f : bytes.floors[k][block];
    const float value = decoded(k == 0, static_cast<const std::uint8_t *>(bytes.moments[k])[i], 1.0f, floor);
    return double{value} * double{bytes.scales[k][block]};
  }
};

thread_local std::vector<Element> elements;

// A parameter, or the master weight that it makes with its remainder.
double weight(const RowBytes &bytes, const adamw_step_options &o, std::int64_t i) {
  if (o.remainder_bits == 0) return element(bytes.param, o.param_dtype, i);
  const int rest = o.remainder_bits == 8 ? static_cast<const std::int8_t *>(bytes.remainder)[i]
                                         : static_cast<const std::int16_t *>(bytes.remainder)[i];
  const std::uint16_t param = static_cast<const std::uint16_t *>(bytes.param)[i];
  return double{float_from_bits(joined_by_definition(o.remainder_bits, param, rest))};
}

bool record_norm(const Row &r, double squares, double &clip) {
  std::vector<double> history(r.before.history, r.before.history + ADAMW_GNORM_HISTORY);
  const bool fresh = std::all_of(history.begin(), history.end(), [](double x) { return x == 0; });
  const double step = static_cast<double>(r.t.step);
  if (step == 1 || fresh) {
    history.assign(ADAMW_GNORM_HISTORY, squares);
  } else {
    history[static_cast<std::size_t>(r.t.step % ADAMW_GNORM_HISTORY)] = squares;
  }
  for (std::size_t k = 0; k < ADAMW_GNORM_HISTORY; ++k) {
    const double kept = static_cast<double>(r.after.history[k]);
    if (!(std::fabs(kept - history[k]) <= 2e-6 * history[k]))
      finding("row %lld: gnorm_history[%zu] is %.9g, not %.9g", static_cast<long long>(r.number), k, kept, history[k]);
  }
  std::sort(history.begin(), history.end());
  clip = std::sqrt(history[static_cast<std::size_t>(r.o.percentile_clipping)]);
  return true;
}

// Percentile clipping: false if nothing can be said of the row.
bool clip_gradient(Row &r) {
  double squares = 0;
  for (const Element &e : elements) squares += e.g * r.scale * e.g * r.scale;
  if (!std::isfinite(squares)) {
    if (std::memcmp(r.before.history, r.after.history, ADAMW_GNORM_HISTORY * sizeof(float)) != 0)
      finding("row %lld: a norm that is not finite was recorded", static_cast<long long>(r.number));
    return true;
  }
  if (squares != 0 && (squares < 1e-20 || squares > 1e30)) return false;
  double clip;
  record_norm(r, squares, clip);
  if (squares > 0 && std::sqrt(squares) > clip) r.scale *= clip / std::sqrt(squares);
  r.norms = 3e-6;
  return true;
}

// Zero before it is multiplied or after, but not both, which only factors of 0 and NaN make: the header does not say
// which of them ADAMW_STEP_SKIP_ZEROS means.
bool is_unclear(const Row &r, const Element &e) { return r.skip_zeros && (e.g == 0) != (e.g * r.scale == 0); }

void step_element(const Row &r, Element &e) {
  const adamw_step_options &o = r.o;
  const double g = e.g * r.scale;
  e.new_m = o.beta1 * e.m + (1 - o.beta1) * g;
  e.new_v = o.beta2 * e.v + (1 - o.beta2) * g * g;
  const bool overflows = r.eight && !(e.new_v < 1.01 * largest), bad = r.eight && !std::isfinite(g);
  e.skipped = (r.skip_zeros && e.g == 0) || bad || (overflows && std::fabs(g) > 1e19);
  e.sure = everyday(e.m, 0x1p-60) && everyday(e.p) && (e.v == 0 || (e.v > 0x1p-90 && e.v < 0x1p100)) &&
           (e.x == 0 || (e.x > 0x1p-90 && e.x < 0x1p100)) && (e.skipped || (everyday(e.g) && everyday(g)));
  if ((overflows && !bad && e.new_v < 2 * largest) || is_unclear(r, e)) e.sure = false;
  if (e.skipped) e.new_m = e.m, e.new_v = e.v;
  e.new_x = r.amsgrad && !e.skipped ? std::max(e.x, e.new_v) : e.x;
  const double root = std::sqrt(r.amsgrad ? e.new_x : e.new_v) / std::sqrt(r.bc2);
  e.direction = e.skipped ? 0 : e.new_m / r.bc1 / (root + o.eps);
  if (!e.skipped && (root + o.eps < 1e-30 || (e.new_v != 0 && e.new_v < 0x1p-110))) e.sure = false;
}

// exp_avg's error is relative to what it was, too, which may be much larger than what it is.
double direction_error(const Row &r, const Element &e) {
  const double m_error = (6 * u + r.norms) * (std::fabs(e.g * r.scale) + std::fabs(e.m));
  const double slope = e.new_m != 0 ? std::fabs(e.direction / e.new_m)
                                    : 1 / r.bc1 / (std::sqrt((r.amsgrad ? e.new_x : e.new_v) / r.bc2) + r.o.eps);
  return std::fabs(e.direction) * (20 * u + 2 * r.norms) + slope * m_error;
}

void compare_param(const Row &r, const Element &e, std::int64_t i, double lr) {
  const adamw_step_options &o = r.o;
  const double is = weight(r.after, o, i);
  if (is != is && e.p != e.p) return;  // another NaN, perhaps
  const bool flagged = (o.flags & ADAMW_STEP_STOCHASTIC_ROUNDING) != 0 && o.param_dtype != ADAMW_FLOAT32,
             stochastic = o.remainder_bits == 8 || (flagged && o.remainder_bits == 0);
  if (e.skipped) {
    const std::size_t size = size_of(static_cast<adamw_dtype>(o.param_dtype));
    const auto at = static_cast<std::size_t>(i) * size;
    if (std::memcmp(static_cast<const char *>(r.before.param) + at, static_cast<const char *>(r.after.param) + at,
                    size) ||
        is != e.p)
      finding("row %lld, element %lld: gradient %g is skipped, but the parameter changed from %.9g to %.9g",
              static_cast<long long>(r.number), static_cast<long long>(i), e.g, e.p, is);
    return;
  }
  const double decay = 1 - r.lr * o.weight_decay, p = e.p * decay - lr * e.direction;
  if (std::fabs(p) > 6e4 && (o.param_dtype == ADAMW_FLOAT16 || std::fabs(p) > 1e30)) return;
  const double error = 4 * u * (std::fabs(e.p) + std::fabs(e.p * decay)) +
                       lr * (direction_error(r, e) + std::fabs(e.direction) * r.length_error) + 0x1p-140;
  const double tolerance =
      error + half_ulp(std::fabs(p) + error, o.param_dtype, o.remainder_bits) * (stochastic ? 2 : 1) * (1 + 1e-6);
  if (!(std::fabs(is - p) <= tolerance))
    finding("row %lld, element %lld: parameter %.9g of %.9g, gradient %g, moments %g %g: must be %.9g +- %.2g",
            static_cast<long long>(r.number), static_cast<long long>(i), is, e.p, e.g, e.m, e.v, p, tolerance);
}

void compare_moments(const Row &r, const Element &e, std::int64_t i) {
  const double g = std::fabs(e.g * r.scale), m = r.moment(r.after, 0, i), v = r.moment(r.after, 1, i);
  const double m_error = e.skipped ? 0 : (6 * u + r.norms) * (g + std::fabs(e.m)) + 0x1p-140,
               v_error = e.skipped ? 0 : (10 * u + 2 * r.norms) * e.new_v + 0x1p-140;
  const auto wrong = [&](const char *what, double is, double must) {
    finding("row %lld, element %lld: %s is %.9g, must be %.9g; was %g %g, gradient %g",
            static_cast<long long>(r.number), static_cast<long long>(i), what, is, must, e.m, e.v, e.g);
  };
  // 16 bits: exp_avg_sq becomes one of its two neighbours, the others the nearer one.
  const auto rounds = [&](double number) {
    return r.sixteen && !e.skipped ? half_ulp(number, ADAMW_BFLOAT16) * (1 + 1e-6) : 0;
  };
  if (!(std::fabs(m - e.new_m) <= m_error + rounds(e.new_m))) wrong("exp_avg", m, e.new_m);
  if (!(std::fabs(v - e.new_v) <= v_error + 2 * rounds(e.new_v))) wrong("exp_avg_sq", v, e.new_v);
  if (!r.amsgrad) return;
  const double x = r.moment(r.after, 2, i), must = e.skipped ? e.x : r.sixteen ? e.new_x : std::max(e.x, v);
  if (!(std::fabs(x - must) <= (r.sixteen ? v_error + rounds(must) : 0))) wrong("max_exp_avg_sq", x, must);
}

// Elements [first, end), which have the scale of a block.
void compare_codes(const Row &r, std::int64_t first, std::int64_t end, std::int64_t block) {
  static thread_local std::vector<Known> numbers;
  for (int k = 0; k < (r.amsgrad ? 3 : 2); ++k) {
    numbers.clear();
    for (std::int64_t i = first; i < end; ++i) {
      const Element &e = elements[static_cast<std::size_t>(i)];
      const double x = k == 0 ? e.new_m : k == 1 ? e.new_v : e.new_x;
      const double g = e.skipped ? 0 : std::fabs(e.g * r.scale);  // which may be NaN
      const double error = (10 * u + 2 * r.norms) * (k == 0 ? g + std::fabs(e.m) : x);
      numbers.push_back({x - error, x + error});
    }
    compare_kept(numbers, k, static_cast<const std::uint8_t *>(r.after.moments[k]) + first, r.after.scales[k][block],
                 k == 0 ? 0.0f : r.after.floors[k][block], r.number, first);
  }
}

// 32-bit and 16-bit state: what is not finite goes on, as in torch.
void compare_propagation(const Row &r, const Element &e, std::int64_t i) {
  const double m = r.moment(r.after, 0, i), v = r.moment(r.after, 1, i), p = element(r.after.param, r.o.param_dtype, i);
  if (std::isfinite(m) || std::isfinite(v) || std::isfinite(p))
    finding("row %lld, element %lld: gradient %g left %g %g %g", static_cast<long long>(r.number),
            static_cast<long long>(i), e.g, p, m, v);
}

}  // namespace

double element(const void *memory, std::int32_t dtype, std::int64_t i) {
  if (dtype == ADAMW_FLOAT32) return double{static_cast<const float *>(memory)[i]};
  const std::uint32_t half = static_cast<const std::uint16_t *>(memory)[i];
  if (dtype == ADAMW_BFLOAT16) return double{float_from_bits(half << 16)};
  const int e = static_cast<int>(half >> 10 & 31), m = static_cast<int>(half & 1023);
  const double magnitude =
      e == 31 ? (m != 0 ? NAN : INFINITY) : std::ldexp(e == 0 ? m : m + 1024, (e == 0 ? 1 : e) - 25);
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
}

void compare_step(const adamw_step_options &o, const adamw_tensor &t, std::int64_t number, const RowBytes &before,
                  const RowBytes &after, SkippedRange &skipped) {
  Row r{o,
        t,
        number,
        before,
        after,
        o.state_format == ADAMW_STATE_BLOCK8 || o.state_format == ADAMW_STATE_TENSOR8,
        o.state_format == ADAMW_STATE_BFLOAT16,
        (o.flags & ADAMW_STEP_AMSGRAD) != 0,
        (o.flags & ADAMW_STEP_SKIP_ZEROS) != 0,
        o.lr_tensor != nullptr ? double{*o.lr_tensor} : o.lr,
        1,
        1,
        1,
        0,
        0,
        0};
  const bool everyday_options = (r.lr == 0 || (r.lr > 1e-10 && r.lr < 1e4)) && o.beta1 < 0.99999 &&
                                o.beta2 < 0.999999 && (o.eps == 0 || (o.eps > 1e-20 && o.eps < 1e4)) &&
                                o.weight_decay < 1e4 && (o.max_unorm == 0 || (o.max_unorm > 1e-8 && o.max_unorm < 1e8));
  const double gs = o.grad_scale != nullptr ? double{*o.grad_scale} : 1.0;
  const double factor = o.grad_factor != nullptr ? double{*o.grad_factor} : 1.0;
  const auto unknown = [&] { skipped.max += r.eight ? t.numel : 0; };
  if (!everyday_options || gs < 1e-6 || gs > 1e6) return unknown();
  if ((factor != 0 && factor < 1e-6) || factor > 1e6) return unknown();
  const bool block_rows = t.row_length >= 64 && t.row_length % ADAMW_BLOCK_SIZE != 0 && t.row_length < t.numel;
  r.row_length = block_rows ? t.row_length : t.numel;
  r.per_row = block_rows ? (t.row_length + ADAMW_BLOCK_SIZE - 1) / ADAMW_BLOCK_SIZE : 0;
  r.scale = ((o.flags & ADAMW_STEP_MAXIMIZE) != 0 ? -1 : 1) / gs * factor;
  if (o.grad_factor != nullptr) r.norms = u;  // it is one rounding more
  const double step = static_cast<double>(t.step);
  r.bc1 = 1 - std::pow(o.beta1, step), r.bc2 = 1 - std::pow(o.beta2, step);
  elements.resize(static_cast<std::size_t>(t.numel));
  for (std::int64_t i = 0; i < t.numel; ++i) {
    Element &e = elements[static_cast<std::size_t>(i)];
    e.p = weight(before, o, i);
    e.g = element(before.grad, o.grad_dtype, i);
    e.m = r.moment(before, 0, i), e.v = r.moment(before, 1, i), e.x = r.amsgrad ? r.moment(before, 2, i) : 0;
  }
  if (o.percentile_clipping < 100 && !clip_gradient(r)) return unknown();
  bool all_sure = true;
  double params = 0, directions = 0;
  for (Element &e : elements) {
    step_element(r, e);
    all_sure = all_sure && e.sure;
    params += e.p * e.p, directions += e.direction * e.direction;
  }
  double lr = r.lr;
  if (o.max_unorm > 0) {
    const double most = o.max_unorm * std::sqrt(params), length = std::sqrt(directions);
    all_sure = all_sure && directions < 1e34 && params < 1e34;  // beyond that their squares may overflow
    if (length > most) lr *= most / length;
    double error = 0;
    for (const Element &e : elements)
      if (e.direction != 0) error += std::fabs(e.direction) * direction_error(r, e);
    r.length_error = 3e-6 + (directions > 0 ? 2 * error / directions : 0);
  }
  for (std::int64_t i = 0; i < t.numel; ++i) {
    const Element &e = elements[static_cast<std::size_t>(i)];
    const double g = e.g * r.scale;
    const bool unclear = is_unclear(r, e);
    if (r.eight && !(std::isfinite(g) && everyday(g) && e.sure)) {
      ++skipped.max;  // its square may overflow or not
      if (!std::isfinite(g) && !unclear) ++skipped.min;
    }
    if (!r.eight && !unclear && !std::isfinite(g) && everyday(e.m) && everyday(e.p)) compare_propagation(r, e, i);
    if (e.skipped && !unclear && (r.skip_zeros || !std::isfinite(g))) compare_param(r, e, i, lr);
    if (!e.sure || e.skipped || (o.max_unorm > 0 && !all_sure)) continue;
    compare_param(r, e, i, lr);
    if (!r.eight) compare_moments(r, e, i);
    ++tally.elements;
  }
  if (!r.eight) return;
  for (std::int64_t first = 0; first < t.numel;) {
    std::int64_t end = first;
    bool sure = true;
    for (; end < t.numel && r.block_of(end) == r.block_of(first); ++end)
      sure = sure && elements[static_cast<std::size_t>(end)].sure;
    if (sure) compare_codes(r, first, end, r.block_of(first));
    first = end;
  }
}
