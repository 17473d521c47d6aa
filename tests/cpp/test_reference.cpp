// Owns the law that a step computes what adamw.h says: each step of each kind against the formulas in double precision,
// from the state that the library holds before it. Tolerances count the float roundings in between (u = 2^-24 each).
#include <algorithm>
#include <cmath>

#include "codes.h"
#include "model.h"
#include "weights.h"

namespace {

constexpr double u = 0x1p-24;

float value(const Bytes &bytes, std::int64_t i, std::int32_t dtype) {
  const std::uint8_t *at = bytes.memory.data() + bytes.offset + i * (dtype == ADAMW_FLOAT32 ? 4 : 2);
  std::uint32_t word = 0;
  std::memcpy(&word, at, dtype == ADAMW_FLOAT32 ? 4 : 2);
  if (dtype == ADAMW_FLOAT32) return float_from_bits(word);
  if (dtype == ADAMW_BFLOAT16) return float_from_bits(word << 16);
  const int e = static_cast<int>(word >> 10 & 31), m = static_cast<int>(word & 1023);
  const float magnitude = e == 31 ? (m != 0 ? NAN : INFINITY)
                                  : std::ldexp(static_cast<float>(e == 0 ? m : m + 1024), (e == 0 ? 1 : e) - 25);
  return (word & 0x8000) != 0 ? -magnitude : magnitude;
}

std::vector<double> values(const Bytes &bytes, std::int64_t n, std::int32_t dtype) {
  std::vector<double> result(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) result[static_cast<std::size_t>(i)] = double{value(bytes, i, dtype)};
  return result;
}

// Half a unit in the last place of a dtype at x. A bfloat16 may have some bits more.
double half_ulp(double x, std::int32_t dtype, int more = 0) {
  const int bits = dtype == ADAMW_FLOAT32    ? 24
                   : dtype == ADAMW_BFLOAT16 ? 8 + more
                                             : 11,
            lowest = dtype == ADAMW_FLOAT16 ? -14 : -126;
  int e;
  std::frexp(x, &e);
  return std::ldexp(0.5, std::max(e - 1, lowest) - bits + 1);
}

// Parameters, or the master weights that they make with their remainders.
std::vector<double> weights(const Model &model) {
  const adamw_step_options &o = model.options;
  const adamw_tensor &t = model.rows[0];
  std::vector<double> all = values(model.memory[0][Model::param], t.numel, o.param_dtype);
  for (std::size_t i = 0; o.remainder_bits != 0 && i < all.size(); ++i) {
    const int rest = o.remainder_bits == 8 ? static_cast<const std::int8_t *>(t.param_remainder)[i]
                                           : static_cast<const std::int16_t *>(t.param_remainder)[i];
    const auto param = static_cast<const std::uint16_t *>(t.param)[i];
    all[i] = double{float_from_bits(joined_by_definition(o.remainder_bits, param, rest))};
  }
  return all;
}

struct State {
  std::vector<double> p, g, m, v, x;  // v, x: the second moment and its maximum
};

State read(Model &model) {
  const adamw_tensor &t = model.rows[0];
  const adamw_step_options &o = model.options;
  State s;
  const auto &b = model.memory[0];
  s.p = weights(model);
  s.g = values(b[Model::grad], t.numel, o.grad_dtype);
  std::vector<double> *moments[] = {&s.m, &s.v, &s.x};
  for (std::size_t i = 0; i < 3; ++i) {
    if (o.state_format == ADAMW_STATE_FLOAT32 || o.state_format == ADAMW_STATE_BFLOAT16) {
      const adamw_dtype dtype = o.state_format == ADAMW_STATE_FLOAT32 ? ADAMW_FLOAT32 : ADAMW_BFLOAT16;
      *moments[i] = values(b[Model::exp_avg + i], t.numel, dtype);
      continue;
    }
    adamw_quantize_options q = ADAMW_QUANTIZE_OPTIONS_INIT;
    q.moment = i == 0 ? ADAMW_MOMENT_EXP_AVG : ADAMW_MOMENT_EXP_AVG_SQ;
    q.state_format = o.state_format;
    q.numel = t.numel;
    q.row_length = t.row_length;
    std::vector<float> floats(static_cast<std::size_t>(t.numel));
    auto &buffers = model.memory[0];
    const float *floor = i == 0 ? nullptr : buffers[Model::floor1 + i - 1].floats();
    CHECK(adamw_dequantize(&q, b[Model::exp_avg + i].memory.data(), buffers[Model::absmax0 + i].floats(), floor,
                           floats.data()) == ADAMW_OK,
          "%s", adamw_last_error());
    moments[i]->assign(floats.begin(), floats.end());
  }
  return s;
}

// Calls body(first element, one after the last, block) for what has one scale.
template <class Body>
void for_each_scale(const Model &model, const Body &body) {
  const adamw_tensor &t = model.rows[0];
  const auto n = static_cast<std::size_t>(t.numel), row = static_cast<std::size_t>(t.row_length);
  if (model.options.state_format == ADAMW_STATE_TENSOR8) return body(std::size_t{0}, n, std::size_t{0});
  const std::size_t unit = row < ADAMW_SHORTEST_BLOCK_ROW || row % ADAMW_BLOCK_SIZE == 0 ? n : row;
  std::size_t block = 0;
  for (std::size_t begin = 0; begin < n; begin += unit)
    for (std::size_t at = begin; at < begin + unit; at += ADAMW_BLOCK_SIZE)
      body(at, std::min(at + ADAMW_BLOCK_SIZE, begin + unit), block++);
}

// Second moments, of a relative error, in 8 bits: absmax is the largest of a block, floor the root of the smallest, and
// each number becomes one of the two codes beside its root, or (nearest) the closer one.
void check_kept(Model &model, std::size_t which, const std::vector<double> &v, const std::vector<double> &kept,
                bool nearest, double error, int step) {
  const float *absmax = model.memory[0][Model::absmax1 + which].floats(),
              *floors = model.memory[0][Model::floor1 + which].floats();
  for_each_scale(model, [&](std::size_t begin, std::size_t end, std::size_t block) {
    const double largest = *std::max_element(v.begin() + static_cast<std::ptrdiff_t>(begin),
                                             v.begin() + static_cast<std::ptrdiff_t>(end)),
                 smallest = *std::min_element(v.begin() + static_cast<std::ptrdiff_t>(begin),
                                              v.begin() + static_cast<std::ptrdiff_t>(end));
    const double scale = absmax[block], floor = floors[block],
                 must = std::min(root_of(smallest / std::max(largest, 1e-300), 3), double{largest_floor});
    CHECK(std::fabs(scale - largest) <= error * largest + 0x1p-149, "step %d: absmax %g of %g", step, scale, largest);
    // A power grows 8 times as fast as its root, or 16 times, where a power of two lies near; and roots are cut.
    CHECK(std::fabs(floor - must) <= (2 * error + 8 * u) * must, "step %d: floor %.9g, not %.9g", step, floor, must);
    for (std::size_t i = begin; i < end; ++i) {
      const double t = root_of(v[i] / std::max(largest, 1e-300), 3),
                   is = root_of(kept[i] / std::max(largest, 1e-300), 3);
      const double code = (1.0 - floor) / 255.0, tolerance = code * (nearest ? 0.501 : 1.001) + 2 * error + 8 * u;
      // Beside a zero, the smallest numbers get code 1.
      const double to = floor == floor_of_zeros && v[i] > 0 ? std::max(t, floor + code) : t;
      CHECK(std::fabs(is - to) <= tolerance && (kept[i] == 0) == (v[i] == 0),
            "step %d: %.9g of %.9g became %.9g: root %.9g, not %.9g +- %.2g", step, v[i], largest, kept[i], is, to,
            tolerance);
    }
  });
}

double norm(const std::vector<double> &x) {
  double sum = 0.0;
  for (double e : x) sum += e * e;
  return std::sqrt(sum);
}

struct Case {
  adamw_step_options options;
  TensorShape shape;
  float grad_scale;
};

// `steps` steps of one tensor. From what the library held before each step, the formulas of adamw.h give p, m, v after
// it.
void check(const Case &c, int steps) {
  Model model(c.options, {c.shape});
  const adamw_step_options &o = model.options;
  const bool sixteen = o.state_format == ADAMW_STATE_BFLOAT16,
             eight = !sixteen && o.state_format != ADAMW_STATE_FLOAT32, amsgrad = (o.flags & ADAMW_STEP_AMSGRAD) != 0;
  const bool flagged = (o.flags & ADAMW_STEP_STOCHASTIC_ROUNDING) != 0 && o.param_dtype != ADAMW_FLOAT32;
  const bool stochastic = o.remainder_bits == 8 || (flagged && o.remainder_bits == 0);
  model.options.grad_scale = &c.grad_scale;
  std::vector<double> history;
  for (int step = 1; step <= steps; ++step) {
    // Norms that vary from step to step, so that some are clipped; without eps no zeros, whose 0 / 0 is NaN in torch,
    // too.
    model.new_gradients(static_cast<std::uint64_t>(step), o.eps == 0.0 ? 0 : step % 3);
    const State before = read(model);
    CHECK(model.call(step) == ADAMW_OK, "%s", adamw_last_error());
    const State after = read(model);

    const double gnorm = norm(before.g) / c.grad_scale;
    double scale = ((o.flags & ADAMW_STEP_MAXIMIZE) != 0 ? -1.0 : 1.0) / c.grad_scale;
    if (o.percentile_clipping < 100) {
      if (history.empty()) history.assign(ADAMW_GNORM_HISTORY, gnorm * gnorm);
      history[static_cast<std::size_t>(step % ADAMW_GNORM_HISTORY)] = gnorm * gnorm;
      auto sorted = history;
      std::sort(sorted.begin(), sorted.end());
      const double clip = std::sqrt(sorted[static_cast<std::size_t>(o.percentile_clipping)]);
      if (gnorm > clip * (1 + 1e-6)) scale *= clip / gnorm;
      for (int k = 0; k < ADAMW_GNORM_HISTORY; ++k) {
        const double kept = model.memory[0][Model::history].floats()[k],
                     recorded = history[static_cast<std::size_t>(k)];
        CHECK(std::fabs(kept - recorded) <= 2e-6 * recorded, "step %d: history[%d] is %g, not %g", step, k, kept,
              recorded);
      }
    }
    const double bc1 = 1 - std::pow(o.beta1, step), bc2 = 1 - std::pow(o.beta2, step);
    const std::size_t n = before.p.size();
    std::vector<double> m(n), v(n), x(n), direction(n);
    for (std::size_t i = 0; i < n; ++i) {
      const double g = before.g[i] * scale;
      const bool skip = (o.flags & ADAMW_STEP_SKIP_ZEROS) != 0 && g == 0;
      m[i] = skip ? before.m[i] : o.beta1 * before.m[i] + (1 - o.beta1) * g;
      v[i] = skip ? before.v[i] : o.beta2 * before.v[i] + (1 - o.beta2) * g * g;
      x[i] = skip ? before.x[i] : std::max(before.x[i], v[i]);
      direction[i] = skip ? 0.0 : (m[i] / bc1) / (std::sqrt((amsgrad ? x : v)[i]) / std::sqrt(bc2) + o.eps);
    }
    double lr = o.lr;
    const double most = o.max_unorm * norm(before.p), length = norm(direction);
    if (o.max_unorm > 0 && length > most) lr *= most / length;

    std::vector<double> largest_m(n);
    for_each_scale(model, [&](std::size_t begin, std::size_t end, std::size_t) {
      double largest = 0;
      for (std::size_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(m[i]));
      std::fill(largest_m.begin() + static_cast<std::ptrdiff_t>(begin),
                largest_m.begin() + static_cast<std::ptrdiff_t>(end), largest);
    });
    const double norms = o.percentile_clipping < 100 || o.max_unorm > 0 ? 2e-6 : 0.0;
    if (eight) {
      check_kept(model, 0, v, after.v, false, 8 * u + 2 * norms, step);
      if (amsgrad) check_kept(model, 1, x, after.x, true, 8 * u + 2 * norms, step);
    }
    for (std::size_t i = 0; i < n; ++i) {
      const double g = std::fabs(before.g[i] * scale);
      const bool skip = (o.flags & ADAMW_STEP_SKIP_ZEROS) != 0 && g == 0;
      const double p = skip ? before.p[i] : before.p[i] * (1 - o.lr * o.weight_decay) - lr * direction[i];
      // m: g - m, its product's constant and the fma; norms (clipping, max_unorm) are good to 1e-6. v likewise, then
      // its root.
      const double m_error = (4 * u + norms) * (g + std::fabs(before.m[i])),
                   v_error = (8 * u + 2 * norms) * v[i] + 0x1p-149;
      // direction = m / denominator: its own relative error, and m's absolute one.
      const double slope = std::fabs(m[i]) > 0 ? std::fabs(direction[i] / m[i]) : 0.0;
      const double p_error =
          3 * u * std::fabs(before.p[i]) + lr * (std::fabs(direction[i]) * (16 * u + 2 * norms) + slope * m_error);
      const double rounding = half_ulp(p, o.param_dtype, o.remainder_bits) * (stochastic ? 2 : 1) * (1 + 1e-6);
      const double p_tolerance = skip ? 0.0 : p_error + rounding;
      CHECK(std::fabs(after.p[i] - p) <= p_tolerance,
            "format %d flags %u dtypes %d %d bits %d step %d element %zu: p %.9g, not %.9g +- %.2g", o.state_format,
            o.flags, o.param_dtype, o.grad_dtype, o.remainder_bits, step, i, after.p[i], p, p_tolerance);
      if (!eight) {
        // 16 bits: exp_avg_sq becomes one of its two neighbours, the others the nearer one.
        const auto rounds = [&](double number) { return sixteen && !skip ? half_ulp(number, ADAMW_BFLOAT16) : 0.0; };
        const double more = 1 + 1e-6;
        CHECK(std::fabs(after.m[i] - m[i]) <= m_error + rounds(m[i]) * more, "m %.9g, not %.9g", after.m[i], m[i]);
        CHECK(std::fabs(after.v[i] - v[i]) <= v_error + 2 * rounds(v[i]) * more, "v %.9g, not %.9g", after.v[i], v[i]);
        if (!amsgrad) continue;
        const double maximum = sixteen ? x[i] : std::max(before.x[i], after.v[i]),
                     x_error = sixteen ? v_error + rounds(x[i]) * more : 0.0;
        CHECK(std::fabs(after.x[i] - maximum) <= x_error, "maximum %.9g of %.9g, not %.9g", after.x[i], after.v[i],
              maximum);
        continue;
      }
      // 8 bits: a root is rounded to half of 1/127, or below a sixteenth to a neighbour.
      const double relative = std::fabs(m[i]) / std::max(largest_m[i], 1e-300), t = root_of(relative, 2);
      const double is = root_of(std::fabs(after.m[i]) / std::max(largest_m[i], 1e-300), 2);
      const double from_zero = after.m[i] * m[i] < 0 ? -is : is;  // a sign may not change
      const double error = t * m_error / std::max(std::fabs(m[i]), 1e-300) + 8 * u;
      CHECK(std::fabs(from_zero - t) <= (relative > 0.06251 ? 0.501 : 1.001) / 127.0 + error,
            "step %d: m %.9g of %.9g, not %.9g", step, after.m[i], largest_m[i], m[i]);
      CHECK(after.m[i] == 0 || m[i] != 0, "step %d: zero became %g", step, after.m[i]);
    }
  }
}

void check_all() {
  const std::uint32_t flag_sets[] = {0, ADAMW_STEP_AMSGRAD, ADAMW_STEP_MAXIMIZE | ADAMW_STEP_SKIP_ZEROS,
                                     ADAMW_STEP_STOCHASTIC_ROUNDING | ADAMW_STEP_AMSGRAD | ADAMW_STEP_SKIP_ZEROS};
  for (int format = 0; format < 4; ++format)
    for (std::uint32_t flags : flag_sets) {
      for (int bits : {8, 16}) {
        adamw_step_options o = step_options(static_cast<adamw_state_format>(format), flags, ADAMW_BFLOAT16,
                                            bits == 8 ? ADAMW_BFLOAT16 : ADAMW_FLOAT32, bits);
        check({o, {3, 300, 0}, 1.0f}, 6);
        o.lr = 0.05, o.beta1 = 0.8, o.beta2 = 0.95, o.eps = 1e-6, o.weight_decay = 0.3;
        check({o, {1, 1001, 7}, 3.0f}, 6);
        o.max_unorm = 0.02;
        check({o, {9, 65, 0}, 1.0f}, 6);
      }
      for (int p = 0; p < 3; ++p)
        for (int g = 0; g < 3; ++g) {
          adamw_step_options o = step_options(static_cast<adamw_state_format>(format), flags,
                                              static_cast<adamw_dtype>(p), static_cast<adamw_dtype>(g));
          check({o, {3, 300, 0}, 1.0f}, 6);
          o.lr = 0.05, o.beta1 = 0.8, o.beta2 = 0.95, o.eps = 1e-6, o.weight_decay = 0.3;
          check({o, {1, 1001, 7}, 3.0f}, 6);
          if (p != g) continue;
          o.percentile_clipping = 40;
          check({o, {1, 777, 0}, 0.5f}, 130);
          o.percentile_clipping = 100;
          o.max_unorm = 0.02;
          check({o, {9, 65, 0}, 1.0f}, 6);
          if (flags == 0) o.eps = 0.0;  // padding must not enter the norm
          if (flags == 0) check({o, {1, 45, 0}, 1.0f}, 1);
        }
    }
}

}  // namespace

int main() {
  check_all();
  return finish();
}
