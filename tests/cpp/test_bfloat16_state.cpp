// Owns the law of 16-bit state, exactly: a step is that of 32-bit state from the same numbers, whose new moments are
// then rounded: exp_avg and max_exp_avg_sq to nearest even, exp_avg_sq by the upper half of each element's word.
// (Its average over a run: test_averages.cpp.)
#include <cmath>

#include "model.h"
#include "words.h"

namespace {

const std::vector<TensorShape> shapes = {{1, 1, 5},   {5, 100, 0},  {1, 33, (std::int64_t{1} << 35) - 16},
                                         {1, 257, 3}, {3, 300, 17}, {2, 512, 0, 512, 900}};

bool is_nan(float x) { return x != x; }

// With the part that is dropped, and a number that it is compared with: what rounds up.
std::uint16_t rounded(float x, std::uint32_t noise) {
  const std::uint32_t bits = bits_of(x), lower = bits & 0xFFFFu;
  return static_cast<std::uint16_t>((bits >> 16) + (lower + noise >= 0x10000u ? 1u : 0u));
}
std::uint16_t nearest_even(float x) {
  const bool odd = (bits_of(x) >> 16 & 1) != 0;
  return rounded(x, odd ? 0x8000u : 0x7FFFu);
}
std::uint16_t stochastic(float x, std::uint32_t word) {
  return std::isfinite(x) ? rounded(x, word >> 16) : nearest_even(x);
}

const std::uint16_t *halves(const Model &m, std::size_t t, Model::Buffer buffer) {
  return reinterpret_cast<const std::uint16_t *>(m.memory[t][buffer].memory.data());
}

std::uint64_t index_of(const adamw_tensor &row, std::int64_t i) {
  const std::int64_t in_runs = row.run_length == 0 ? i : i / row.run_length * row.run_stride + i % row.run_length;
  return static_cast<std::uint64_t>(row.global_offset + in_runs);
}

// The moments of `from`, as floats.
void take_moments(const Model &from, Model &to) {
  for (std::size_t t = 0; t < shapes.size(); ++t)
    for (Model::Buffer b : {Model::exp_avg, Model::exp_avg_sq, Model::max_exp_avg_sq})
      for (std::int64_t i = 0; i < to.rows[t].numel; ++i)
        to.memory[t][b].floats()[i] = float_from_bits(static_cast<std::uint32_t>(halves(from, t, b)[i]) << 16);
}

void compare(const Model &is, Model &must, int step) {
  const adamw_step_options &o = is.options;
  const bool amsgrad = (o.flags & ADAMW_STEP_AMSGRAD) != 0;
  const std::uint32_t key = state_key_by_definition(o.seed, step);
  for (std::size_t t = 0; t < shapes.size(); ++t) {
    // The sign and payload of a NaN are not promised; these models have none among their parameters.
    CHECK(is.memory[t][Model::param].memory == must.memory[t][Model::param].memory &&
              is.memory[t][Model::remainder].memory == must.memory[t][Model::remainder].memory &&
              is.memory[t][Model::history].memory == must.memory[t][Model::history].memory,
          "flags %u, parameters %d with %d bits more, step %d: tensor %zu steps otherwise", o.flags, o.param_dtype,
          o.remainder_bits, step, t);
    for (std::int64_t i = 0; i < is.rows[t].numel; ++i) {
      const auto check = [&](Model::Buffer b, bool random) {
        const float x = must.memory[t][b].floats()[i];
        const std::uint16_t half = halves(is, t, b)[i];
        const std::uint32_t word = word_by_definition(key, index_of(is.rows[t], i));
        const std::uint16_t right = random ? stochastic(x, word) : nearest_even(x);
        CHECK(is_nan(x) ? (half & 0x7FFF) > 0x7F80 : half == right,
              "flags %u, step %d, tensor %zu, element %lld: buffer %d: %a became %04x, must be %04x", o.flags, step, t,
              static_cast<long long>(i), b, double{x}, half, right);
      };
      check(Model::exp_avg, false);
      check(Model::exp_avg_sq, true);
      if (amsgrad) check(Model::max_exp_avg_sq, false);
    }
  }
}

// `hard`: gradients of any size, whose squares vanish or overflow.
void check_steps(const adamw_step_options &options, bool hard) {
  adamw_step_options floats = options;
  floats.state_format = ADAMW_STATE_FLOAT32;
  Model is(options, shapes), must(floats, shapes);
  for (int step = 1; step <= 8; ++step) {
    is.new_gradients(static_cast<std::uint64_t>(step));
    Random random(static_cast<std::uint64_t>(step));
    for (std::size_t t = 0; hard && t < shapes.size(); ++t)
      fill(is.memory[t][Model::grad].at(), static_cast<adamw_dtype>(options.grad_dtype), is.rows[t].numel, random);
    must.take_gradients(is);
    take_moments(is, must);
    for (Model *m : {&is, &must}) CHECK(m->call(step) == ADAMW_OK, "%s", adamw_last_error());
    compare(is, must, step);
  }
}

// Law: gradients that are not finite propagate, and spoil no other element.
void check_not_finite() {
  Model is(step_options(ADAMW_STATE_BFLOAT16, ADAMW_STEP_AMSGRAD), {{1, 600, 0}}), plain(is.options, {{1, 600, 0}});
  for (int step = 1; step <= 3; ++step) {
    for (Model *m : {&is, &plain}) m->new_gradients(static_cast<std::uint64_t>(step));
    float *grad = is.memory[0][Model::grad].floats();
    grad[7] = NAN, grad[300] = INFINITY, grad[599] = -INFINITY;
    for (Model *m : {&is, &plain}) CHECK(m->call(step) == ADAMW_OK, "%s", adamw_last_error());
  }
  for (std::int64_t i = 0; i < 600; ++i) {
    const bool bad = i == 7 || i == 300 || i == 599;
    const float p = is.memory[0][Model::param].floats()[i];
    CHECK(bad ? is_nan(p) : p == plain.memory[0][Model::param].floats()[i], "element %lld is %a",
          static_cast<long long>(i), double{p});
    for (Model::Buffer b : {Model::exp_avg, Model::exp_avg_sq, Model::max_exp_avg_sq}) {
      const std::uint16_t half = halves(is, 0, b)[i];
      CHECK(bad ? (half & 0x7FFF) >= 0x7F80 : half == halves(plain, 0, b)[i], "element %lld: buffer %d is %04x",
            static_cast<long long>(i), b, half);
    }
  }
}

}  // namespace

int main() {
  for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD}, unsigned{ADAMW_STEP_SKIP_ZEROS | ADAMW_STEP_MAXIMIZE},
                              unsigned{ADAMW_STEP_STOCHASTIC_ROUNDING | ADAMW_STEP_AMSGRAD}})
    for (int p = 0; p < 3; ++p)
      for (int g = 0; g < 3; ++g)
        for (int bits = 0; bits <= (p == ADAMW_BFLOAT16 ? 16 : 0); bits += 8) {
          adamw_step_options o =
              step_options(ADAMW_STATE_BFLOAT16, flags, static_cast<adamw_dtype>(p), static_cast<adamw_dtype>(g), bits);
          check_steps(o, false);
          check_steps(o, true);
          o.max_unorm = 0.01, o.percentile_clipping = 30, o.seed = 0x123456789ABCDEF;
          check_steps(o, false);
        }
  check_not_finite();
  return finish();
}
