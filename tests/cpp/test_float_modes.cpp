// Owns the law that a call has the same bits whatever the caller's rounding mode and flush-to-zero flags are, and
// leaves them as they were.
#include <cfenv>
#include <functional>
#include <memory>
#include <string>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model.h"

namespace {

// What decides over the arithmetic of a thread, as a word.
std::uint64_t mode_word() {
#if defined(__x86_64__)
  return _mm_getcsr() & 0xFFC0u;
#elif defined(__aarch64__)
  std::uint64_t word;
  __asm__ volatile("mrs %0, fpcr" : "=r"(word));
  return word;
#else
  return static_cast<std::uint64_t>(std::fegetround());
#endif
}

void flush_to_zero() {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040u);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" : : "r"(mode_word() | std::uint64_t{1} << 24));
#endif
}

struct Mode {
  const char *name;
  std::function<void()> set;
};
const Mode modes[] = {{"flush to zero", flush_to_zero},
                      {"upward", [] { std::fesetround(FE_UPWARD); }},
                      {"downward", [] { std::fesetround(FE_DOWNWARD); }},
                      {"toward zero", [] { std::fesetround(FE_TOWARDZERO); }}};

// call() makes a call and says its status; bytes() is what it left, and what a new call starts from is made by fresh().
void check(const std::string &what, const std::function<void()> &fresh, const std::function<adamw_status()> &call,
           const std::function<std::vector<std::uint8_t>()> &bytes) {
  fresh();
  CHECK(call() == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
  const std::vector<std::uint8_t> right = bytes();
  for (const Mode &mode : modes) {
    fresh();
    std::fenv_t before;
    std::fegetenv(&before);
    mode.set();
    const std::uint64_t set = mode_word();
    const adamw_status status = call();
    const std::uint64_t left = mode_word();
    std::fesetenv(&before);
    CHECK(status == ADAMW_OK, "%s, %s: %s", what.c_str(), mode.name, adamw_last_error());
    CHECK(left == set, "%s, %s: the caller's mode was changed", what.c_str(), mode.name);
    CHECK(bytes() == right, "%s, %s: other bits", what.c_str(), mode.name);
  }
}

template <class T>
std::vector<std::uint8_t> bytes_of(const std::vector<T> &values) {
  const auto *const at = reinterpret_cast<const std::uint8_t *>(values.data());
  return {at, at + values.size() * sizeof(T)};
}

// factor: as it comes out of adamw_clip_factor(), or so small that it is a denormal.
void check_step(adamw_state_format format, float factor, bool norms) {
  const std::vector<TensorShape> shapes = {{3, 300, 0}, {1, 40000, 0}};
  const float scale = 3.0f;
  std::unique_ptr<Model> model;
  check(
      "step, format " + std::to_string(format) + ", factor " + std::to_string(factor) + (norms ? ", norms" : ""),
      [&] {
        model = std::make_unique<Model>(step_options(format), shapes);
        model->run(1);
        model->new_gradients(2);
        model->options.grad_scale = &scale, model->options.grad_factor = &factor, model->options.num_threads = 2;
        if (norms) model->options.percentile_clipping = 50, model->options.max_unorm = 0.01;
        if (factor >= 0x1p-126f) return;
        for (auto &buffers : model->memory)
          for (int i = 0; i < 300; ++i) buffers[Model::grad].floats()[i] *= 0x1p120f;
      },
      [&] { return model->call(2); }, [&] { return model->contents(); });
}

void check_norm() {
  Random random(7);
  std::vector<float> values(100'003);
  for (float &x : values) x = random.uniform();
  const std::vector<adamw_gradient> table = {{values.data(), 100'003, ADAMW_FLOAT32, 0},
                                             {values.data(), 1'003, ADAMW_FLOAT32, 0}};
  adamw_norm_options norm = ADAMW_NORM_OPTIONS_INIT;
  norm.num_threads = 2;
  std::vector<double> sum(1);
  check(
      "norm", [&] { sum[0] = -1.0; }, [&] { return adamw_norm(&norm, table.data(), sizeof table[0], 2, sum.data()); },
      [&] { return bytes_of(sum); });
  for (double max_norm : {0.3, 1e-42, 0x1p-130}) {
    adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
    clip.max_norm = max_norm;
    const double squares[] = {1.0 / 3.0, 1.0 / 7.0, 1.0 / 11.0};
    std::vector<float> out(2);
    check(
        "factor for " + std::to_string(max_norm), [&] { out = {-1.0f, -1.0f}; },
        [&] { return adamw_clip_factor(&clip, squares, 3, out.data(), out.data() + 1); },
        [&] { return bytes_of(out); });
  }
}

void check_quantize(adamw_state_format format) {
  Random random(8);
  std::vector<float> values(5000), absmax(20), floor(20);
  for (float &x : values) x = static_cast<float>((0.3 + random.unit()) * 1e30);
  std::vector<std::uint8_t> codes(5000);
  adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
  o.numel = o.row_length = 5000, o.state_format = format, o.moment = ADAMW_MOMENT_EXP_AVG_SQ;
  check(
      "quantize, format " + std::to_string(format),
      [&] {
        std::fill(codes.begin(), codes.end(), std::uint8_t{7});
        std::fill(floor.begin(), floor.end(), 7.0f);
      },
      [&] { return adamw_quantize(&o, values.data(), codes.data(), absmax.data(), floor.data()); },
      [&] {
        std::vector<std::uint8_t> all = bytes_of(floor);
        all.insert(all.end(), codes.begin(), codes.end());
        return all;
      });
}

}  // namespace

int main() {
  for (adamw_state_format format : {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8, ADAMW_STATE_BFLOAT16})
    for (float factor : {0.7f, 0x1p-140f})
      for (bool norms : {false, true}) check_step(format, factor, norms);
  check_norm();
  for (adamw_state_format format : {ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8}) check_quantize(format);
  return finish();
}
