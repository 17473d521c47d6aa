// Owns the laws of the norm of all gradients: what adamw_norm() adds up, what adamw_clip_factor() makes of it, what a
// step makes of that; and what all three refuse.
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "cpu/kernels.h"
#include "model.h"

using adamw::Kernels;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

float value_of(const void *at, adamw_dtype dtype, std::int64_t i) {
  if (dtype == ADAMW_FLOAT32) return static_cast<const float *>(at)[i];
  const std::uint16_t half = static_cast<const std::uint16_t *>(at)[i];
  if (dtype == ADAMW_BFLOAT16) {
    const std::uint32_t bits = std::uint32_t{half} << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  }
  const int exponent = half >> 10 & 31;
  const float fraction = static_cast<float>(half & 1023);
  const float x = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024.0f + fraction, exponent - 25);
  return half >> 15 != 0 ? -x : x;
}

struct Gradients {
  std::vector<std::vector<std::uint8_t>> memory;
  std::vector<adamw_gradient> table;
  long double squares = 0.0L;

  Gradients(const std::vector<std::int64_t> &lengths, std::uint64_t seed) {
    Random random(seed);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto dtype = static_cast<adamw_dtype>((i + seed) % 3);
      memory.emplace_back(static_cast<std::size_t>(lengths[i]) * size_of(dtype));
      std::uint8_t *const at = memory.back().data();
      if (seed % 2 == 0) {
        fill(at, dtype, lengths[i], random);
      } else {
        fill_alike(at, dtype, lengths[i], some_zeros, -2, random);
      }
      for (std::int64_t k = 0; k < lengths[i]; ++k) {
        const long double x = static_cast<long double>(value_of(at, dtype, k));
        squares += x * x;
      }
      table.push_back({lengths[i] != 0 ? at : nullptr, lengths[i], dtype, 0});
    }
  }
  double norm(int threads) const {
    adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
    o.num_threads = threads;
    double sum = -1.0;
    CHECK(adamw_norm(&o, table.data(), sizeof table[0], static_cast<std::int64_t>(table.size()), &sum) == ADAMW_OK,
          "%s", adamw_last_error());
    return sum;
  }
};

// Law: the sum of squares is right to a few units of double precision, for any lengths and dtypes; its bits depend on
// no number of threads and no instruction set.
void check_sums() {
  std::uint64_t seed = 1;
  for (const std::vector<std::int64_t> &lengths : std::vector<std::vector<std::int64_t>>{
           {}, {0}, {1}, {0, 0, 5}, {255, 256, 257}, {100, 0, 4096, 33 * 256 + 1}, {200'000, 3, 70'001, 256'000}}) {
    for (int repeat = 0; repeat < 4; ++repeat) {
      const Gradients gradients(lengths, ++seed);
      const double sum = gradients.norm(1);
      const auto off = static_cast<double>(std::fabs(static_cast<long double>(sum) - gradients.squares));
      CHECK(off <= 4e-15 * static_cast<double>(gradients.squares), "%zu gradients: %.17g is off by %g", lengths.size(),
            sum, off);
      for (int threads : {2, 7}) {
        const double other = gradients.norm(threads);
        CHECK(std::memcmp(&sum, &other, 8) == 0, "%d threads: %.17g, not %.17g", threads, other, sum);
      }
    }
  }
  const Gradients all({100'003, 100'003, 100'003}, 3);
  for (const adamw_gradient &g : all.table) {
    const std::int64_t count = adamw::segments_of(adamw::blocks_in(g.numel)).count;
    const auto sums_of = [&](const Kernels &kernels, std::int64_t first, std::int64_t last) {
      std::vector<double> sums(static_cast<std::size_t>(last - first), -1.0);
      kernels.squares(g.grad, static_cast<adamw_dtype>(g.dtype), g.numel, first, last, sums.data());
      return sums;
    };
    std::vector<double> alone;  // each segment by itself
    for (std::int64_t s = 0; s < count; ++s) alone.push_back(sums_of(*adamw::usable_kernels().back(), s, s + 1)[0]);
    for (const Kernels *kernels : adamw::usable_kernels())
      CHECK(sums_of(*kernels, 0, count) == alone, "%s: segments side by side differ from each alone", kernels->name);
  }
}

// Law: numbers whose squares no float holds do not overflow or vanish; what is not finite shows.
void check_extremes() {
  const auto sum_of = [](std::vector<float> x) {
    adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
    const adamw_gradient g{x.data(), static_cast<std::int64_t>(x.size()), ADAMW_FLOAT32, 0};
    double sum = -1.0;
    CHECK(adamw_norm(&o, &g, sizeof g, 1, &sum) == ADAMW_OK, "%s", adamw_last_error());
    return sum;
  };
  CHECK(sum_of({3e38f, -3e38f}) == 2.0 * double{3e38f} * double{3e38f}, "large numbers");
  CHECK(sum_of({0x1p-149f, 0.0f}) == 0x1p-298, "the smallest");
  CHECK(sum_of({0.0f, -0.0f}) == 0.0, "zeros");
  CHECK(std::isinf(sum_of({1.0f, -std::numeric_limits<float>::infinity()})), "an infinity");
  CHECK(std::isnan(sum_of({1.0f, std::nanf("")})), "a NaN");
}

// Law: torch.nn.utils.clip_grad_norm_()'s factor, in double precision.
void check_factors() {
  const struct {
    std::vector<double> squares;
    double max_norm;
    float scale, norm, factor;
  } cases[] = {{{4.0}, 1.0, 0.0f, 2.0f, static_cast<float>(1.0 / (2.0 + 1e-6))},
               {{1.0, 3.0}, 1.0, 0.0f, 2.0f, static_cast<float>(1.0 / (2.0 + 1e-6))},
               {{0.25}, 1.0, 0.0f, 0.5f, 1.0f},
               {{1.0}, 1.0, 0.0f, 1.0f, static_cast<float>(1.0 / (1.0 + 1e-6))},
               {{4.0}, 1.0, 4.0f, 0.5f, 1.0f},
               {{0.0}, 1.0, 0.0f, 0.0f, 1.0f},
               {{4.0}, 0.0, 0.0f, 2.0f, 0.0f},
               {{4.0}, infinity, 0.0f, 2.0f, 1.0f},
               {{1e90}, 1.0, 0.0f, std::numeric_limits<float>::infinity(), 1e-45f},
               {{infinity}, 1.0, 0.0f, std::numeric_limits<float>::infinity(), 0.0f},
               {{not_a_number}, 1.0, 0.0f, std::nanf(""), std::nanf("")},
               {{infinity}, infinity, 0.0f, std::numeric_limits<float>::infinity(), std::nanf("")}};
  for (const auto &c : cases) {
    adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
    o.max_norm = c.max_norm;
    if (c.scale != 0.0f) o.grad_scale = &c.scale;
    float norm = -1.0f, factor = -1.0f, alone = -1.0f;
    const auto count = static_cast<std::int64_t>(c.squares.size());
    CHECK(adamw_clip_factor(&o, c.squares.data(), count, &norm, &factor) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(adamw_clip_factor(&o, c.squares.data(), count, nullptr, &alone) == ADAMW_OK, "%s", adamw_last_error());
    const auto same = [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); };
    CHECK(same(norm, c.norm) && same(factor, c.factor) && same(alone, c.factor), "sum %g, max_norm %g: %g %g %g",
          c.squares[0], c.max_norm, double{norm}, double{factor}, double{alone});
  }
}

// Law: a step with a factor is the step of gradients that were multiplied before, with every state format; of a NaN and
// of 0, too.
void check_steps() {
  for (adamw_state_format format :
       {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8, ADAMW_STATE_BFLOAT16}) {
    for (float factor : {0.25f, 1.0f, 0.0f, std::nanf("")}) {
      const std::vector<TensorShape> shapes = {{3, 300, 0}, {1, 77, 0}};
      Model plain(step_options(format, 0, ADAMW_FLOAT32, ADAMW_FLOAT32), shapes), clipped(plain.options, shapes);
      if (format == ADAMW_STATE_FLOAT32) plain.options.percentile_clipping = clipped.options.percentile_clipping = 50;
      clipped.options.grad_factor = &factor;
      for (int step = 1; step <= 3; ++step) {
        for (Model *model : {&plain, &clipped}) {
          Random random(static_cast<std::uint64_t>(step));
          for (const adamw_tensor &t : model->rows) {
            auto *const grad = static_cast<float *>(const_cast<void *>(t.grad));
            for (std::int64_t i = 0; i < t.numel; ++i) grad[i] = random.uniform() * (model == &plain ? factor : 1.0f);
          }
          CHECK(model->call(step) == ADAMW_OK, "%s", adamw_last_error());
        }
      }
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        const auto *const a = static_cast<const float *>(plain.rows[i].param), *const b = static_cast<const float *>(
                                                                                   clipped.rows[i].param);
        for (std::int64_t k = 0; k < plain.rows[i].numel; ++k)
          CHECK(a[k] == b[k] || (std::isnan(a[k]) && std::isnan(b[k])), "format %d, factor %g: %g, not %g", format,
                double{factor}, double{b[k]}, double{a[k]});
      }
    }
  }
}

// ---- what is refused ----

void refused(adamw_status status, adamw_status wanted, const std::string &words) {
  const std::string message = adamw_last_error();
  CHECK(status == wanted && message.find(words) != std::string::npos, "\"%s\" lacks \"%s\" (%s)", message.c_str(),
        words.c_str(), adamw_status_string(status));
}

void check_refused_norms() {
  std::vector<float> x(40, 0.5f);
  alignas(8) double sum = -1.0;
  const std::vector<adamw_gradient> good(3, {x.data(), 40, ADAMW_FLOAT32, 0});
  const auto bad = [&](const char *words, const std::function<void(adamw_norm_options &, adamw_gradient &)> &change,
                       adamw_status status = ADAMW_ERROR_INVALID_ARGUMENT) {
    adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
    std::vector<adamw_gradient> table = good;
    change(o, table[2]);
    refused(adamw_norm(&o, table.data(), sizeof table[0], 3, &sum), status, words);
    CHECK(sum == -1.0, "%s: the sum has changed", words);
  };
  using O = adamw_norm_options;
  using G = adamw_gradient;
  bad("options.size", [](O &o, G &) { o.size = 16; }, ADAMW_ERROR_VERSION);
  bad("options.size", [](O &o, G &) { o.size = 4104; }, ADAMW_ERROR_VERSION);
  bad("options.device", [](O &o, G &) { o.device = -2; });
  bad("CPU build", [](O &o, G &) { o.device = 0; }, ADAMW_ERROR_UNSUPPORTED);
  bad("options.num_threads", [](O &o, G &) { o.num_threads = -1; });
  bad("tensor 2: numel", [](O &, G &g) { g.numel = -1; });
  bad("tensor 2: numel", [](O &, G &g) { g.numel = (std::int64_t{1} << 58) + 1; });
  bad("tensor 2: dtype", [](O &, G &g) { g.dtype = 3; });
  bad("tensor 2: dtype", [](O &, G &g) { g.dtype = -1; });
  bad("tensor 2: reserved", [](O &, G &g) { g.reserved = 1; });
  bad("tensor 2: grad is NULL", [](O &, G &g) { g.grad = nullptr; });
  bad("tensor 2: grad", [&](O &, G &g) { g.grad = reinterpret_cast<const char *>(x.data()) + 2; });
  bad("end of memory", [](O &, G &g) { g.grad = reinterpret_cast<void *>(~std::uintptr_t{15}); });
  bad("overlaps squares", [&](O &, G &g) { g = {&sum, 2, ADAMW_FLOAT32, 0}; });
  const adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
  refused(adamw_norm(nullptr, good.data(), sizeof good[0], 3, &sum), ADAMW_ERROR_INVALID_ARGUMENT, "options is NULL");
  refused(adamw_norm(&o, good.data(), sizeof good[0], 3, nullptr), ADAMW_ERROR_INVALID_ARGUMENT, "squares is NULL");
  refused(adamw_norm(&o, nullptr, sizeof good[0], 3, &sum), ADAMW_ERROR_INVALID_ARGUMENT, "gradients is NULL");
  refused(adamw_norm(&o, good.data(), 16, 3, &sum), ADAMW_ERROR_VERSION, "gradient_size");
  refused(adamw_norm(&o, good.data(), sizeof good[0], -1, &sum), ADAMW_ERROR_INVALID_ARGUMENT, "count");
  refused(adamw_norm(&o, good.data(), sizeof good[0], INT64_MAX, &sum), ADAMW_ERROR_INVALID_ARGUMENT, "count");
  struct Newer {
    adamw_gradient g;
    std::int64_t more;
  } newer[2] = {{good[0], 0}, {good[1], 0}};
  CHECK(adamw_norm(&o, &newer[0].g, sizeof newer[0], 2, &sum) == ADAMW_OK && sum == 20.0, "a newer table: %s",
        adamw_last_error());
  newer[1].more = 1;
  refused(adamw_norm(&o, &newer[0].g, sizeof newer[0], 2, &sum), ADAMW_ERROR_VERSION, "tensor 1: gradient_size");
  CHECK(adamw_norm(&o, nullptr, sizeof good[0], 0, &sum) == ADAMW_OK && sum == 0.0, "no gradients: %s",
        adamw_last_error());
}

void check_refused_factors() {
  double squares[2] = {4.0, 5.0};
  float out[2] = {-1.0f, -1.0f}, scale = 2.0f;
  const auto bad = [&](const char *words, const std::function<void(adamw_clip_options &)> &change,
                       adamw_status status = ADAMW_ERROR_INVALID_ARGUMENT) {
    adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
    o.grad_scale = &scale;
    change(o);
    refused(adamw_clip_factor(&o, squares, 2, out, out + 1), status, words);
    CHECK(out[0] == -1.0f && out[1] == -1.0f, "%s: something was written", words);
  };
  using O = adamw_clip_options;
  bad("options.size", [](O &o) { o.size = 32; }, ADAMW_ERROR_VERSION);
  bad("options.max_norm", [](O &o) { o.max_norm = -1.0; });
  bad("options.max_norm", [](O &o) { o.max_norm = not_a_number; });
  bad("options.device", [](O &o) { o.device = -2; });
  bad("CPU build", [](O &o) { o.device = 0; }, ADAMW_ERROR_UNSUPPORTED);
  bad("options.reserved", [](O &o) { o.reserved = 1; });
  bad("options.grad_scale",
      [&](O &o) { o.grad_scale = reinterpret_cast<float *>(reinterpret_cast<char *>(&scale) + 1); });
  bad("grad_scale[0]", [](O &o) {
    static const float zero = 0.0f;
    o.grad_scale = &zero;
  });
  const adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
  const auto call = [&](const double *from, std::int64_t count, float *norm, float *factor) {
    return adamw_clip_factor(&o, from, count, norm, factor);
  };
  refused(adamw_clip_factor(nullptr, squares, 2, out, out + 1), ADAMW_ERROR_INVALID_ARGUMENT, "options is NULL");
  for (std::int64_t count : {std::int64_t{0}, std::int64_t{-1}, std::int64_t{4097}, INT64_MAX})
    refused(call(squares, count, out, out + 1), ADAMW_ERROR_INVALID_ARGUMENT, "count");
  refused(call(nullptr, 2, out, out + 1), ADAMW_ERROR_INVALID_ARGUMENT, "squares is NULL");
  refused(call(squares, 2, out, nullptr), ADAMW_ERROR_INVALID_ARGUMENT, "factor is NULL");
  refused(call(squares, 2, reinterpret_cast<float *>(~std::uintptr_t{3}), out), ADAMW_ERROR_INVALID_ARGUMENT, "norm");
  refused(call(squares, 2, out, out), ADAMW_ERROR_INVALID_ARGUMENT, "overlaps");
  refused(call(squares, 2, reinterpret_cast<float *>(squares), out), ADAMW_ERROR_INVALID_ARGUMENT, "overlaps");
  CHECK(out[0] == -1.0f && squares[0] == 4.0, "something was written");
}

void check_refused_steps() {
  Model model(step_options(ADAMW_STATE_FLOAT32), {{1, 50, 0}});
  model.run(1);
  *static_cast<float *>(model.rows[0].param) = 0.5f;
  const auto before = model.contents();
  for (float factor : {-0.5f, static_cast<float>(infinity), static_cast<float>(-infinity)}) {
    model.options.grad_factor = &factor;
    refused(model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, "grad_factor[0]");
  }
  model.options.grad_factor = reinterpret_cast<const float *>(reinterpret_cast<const char *>(&before) + 1);
  refused(model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, "options.grad_factor");
  model.options.grad_factor = static_cast<const float *>(model.rows[0].param);
  refused(model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, "overlaps");
  model.options.grad_factor = nullptr;
  CHECK(model.contents() == before, "a refused step has changed something");
}

}  // namespace

int main() {
  check_sums();
  check_extremes();
  check_factors();
  check_steps();
  check_refused_norms();
  check_refused_factors();
  check_refused_steps();
  return finish();
}
