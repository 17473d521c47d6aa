// Owns the laws of steps at the limits: no lr, gradients that are scaled or not finite, blocks that are padded, a scale
// that is huge. (What a step computes elsewhere: test_reference.cpp.)
#include <algorithm>
#include <cmath>

#include "model.h"

namespace {

// Law: with lr 0 parameters stay (zeros among them), and moments move; with 8-bit state also where lr is so small that
// its reciprocal overflows, for that step divides by the step size.
void check_no_lr() {
  for (int format = 0; format < 4; ++format) {
    for (double lr : {0.0, 1e-45, 1e-40}) {
      if ((format == ADAMW_STATE_FLOAT32 || format == ADAMW_STATE_BFLOAT16) && lr > 0.0) continue;
      adamw_step_options o = step_options(static_cast<adamw_state_format>(format));
      o.lr = lr;
      Model model(o, {{3, 300, 0}});
      float *param = model.memory[0][Model::param].floats();
      for (int i = 0; i < 900; i += 7) param[i] = i % 2 == 0 ? 0.0f : -0.0f;
      const Bytes before = model.memory[0][Model::param], moment = model.memory[0][Model::exp_avg];
      model.run(3);
      for (int i = 0; i < 900; ++i) {
        const float p = param[i], b = const_cast<Bytes &>(before).floats()[i];
        CHECK(p == b, "format %d lr %g: %a became %a", format, lr, double{b}, double{p});
      }
      CHECK(model.memory[0][Model::exp_avg].memory != moment.memory, "format %d lr %g: no moment moved", format, lr);
    }
  }
}

// Law: a scale that is huge (from a damaged checkpoint) does not reach elements whose second moment is 0.
void check_huge_scale() {
  for (int format = 1; format < 3; ++format) {
    Model plain(step_options(static_cast<adamw_state_format>(format)), {{1, 777, 0}}),
        huge(plain.options, {{1, 777, 0}});
    for (std::size_t i = 0; i < 777; ++i) {  // codes of zero
      for (Model *model : {&plain, &huge}) model->memory[0][Model::exp_avg].memory[i] = 128;
    }
    Bytes &scales = huge.memory[0][Model::absmax1];
    for (std::size_t i = 0; i < scales.memory.size() / 4; ++i) scales.floats()[i] = 3e38f;
    for (Model *model : {&plain, &huge}) {
      model->new_gradients(1);
      CHECK(model->call(1) == ADAMW_OK, "%s", adamw_last_error());
    }
    CHECK(plain.contents() == huge.contents(), "format %d: the scale of zeros matters", format);
  }
}

// Law: a parameter that does not move stays: stochastic rounding leaves what its dtype has exactly. Every finite number
// of 16 bits.
void check_exact_numbers_stay() {
  constexpr std::int64_t n = 65536;
  for (adamw_dtype dtype : {ADAMW_BFLOAT16, ADAMW_FLOAT16}) {
    adamw_step_options o = step_options(ADAMW_STATE_FLOAT32, ADAMW_STEP_STOCHASTIC_ROUNDING, dtype);
    o.weight_decay = 0;
    const std::uint32_t infinity = dtype == ADAMW_BFLOAT16 ? 0x7F80 : 0x7C00;
    Model model(o, {{1, n, 0}});
    auto *param = static_cast<std::uint16_t *>(model.memory[0][Model::param].at());
    for (std::uint32_t i = 0; i < n; ++i)
      param[i] = static_cast<std::uint16_t>((i & 0x7FFFu) < infinity ? i : i & 0x8000u);
    const Bytes before = model.memory[0][Model::param];
    for (int step = 1; step <= (abridged ? 10 : 1000); ++step)
      CHECK(model.call(step) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(before.memory == model.memory[0][Model::param].memory, "dtype %d: some have moved", dtype);
  }
}

// Law: `skipped` counts elements, also where all of a block are, by a factor that is infinite.
void check_count_of_skipped() {
  for (std::int64_t n : {1, 7, 255, 256, 300, 1000}) {
    Model model(step_options(ADAMW_STATE_BLOCK8), {{1, n, 0}});
    std::int64_t skipped = 0;
    const float tiny = 1e-40f;
    model.options.skipped = &skipped;
    model.options.grad_scale = &tiny;
    model.new_gradients(1);
    CHECK(model.call(1) == ADAMW_OK && skipped == n, "%lld of %lld", static_cast<long long>(skipped),
          static_cast<long long>(n));
  }
}

// Law: what pads a block is none of its numbers. All second moments are the same; then all decay, but for the padding,
// whose gradient is zero. absmax is that of the others, beta2 times what it was: to the rounding of beta2 and of two
// products. So is the maximum's, which does not decay; and all numbers are the smallest, too.
void check_padding() {
  for (int format = 1; format < 3; ++format)
    for (std::int64_t n : {1, 31, 33, 45, 255, 300}) {
      Model model(step_options(static_cast<adamw_state_format>(format), ADAMW_STEP_AMSGRAD | ADAMW_STEP_SKIP_ZEROS),
                  {{1, n, 0}});
      auto &b = model.memory[0];
      const auto step = [&](int number, float gradient) {
        std::fill_n(b[Model::grad].floats(), n, gradient);
        CHECK(model.call(number) == ADAMW_OK, "%s", adamw_last_error());
        return b[Model::absmax1].floats()[0];
      };
      const double first = step(1, 0.5f), second = step(2, 1e-20f), maximum = b[Model::absmax2].floats()[0];
      CHECK(std::fabs(second - 0.999 * first) <= 0x1p-22 * first, "format %d, %lld elements: %.9g of %.9g", format,
            static_cast<long long>(n), second, first);
      CHECK(maximum <= first, "the maximum grew to %.9g of %.9g", maximum, first);
      for (int floor : {Model::floor1, Model::floor2})
        CHECK(b[static_cast<std::size_t>(floor)].floats()[0] == 255.0f / 256.0f, "floor %a",
              double{b[static_cast<std::size_t>(floor)].floats()[0]});
    }
}

// Law: found_inf changes nothing; a power-of-two grad_scale only undoes itself; skipped counts each bad element once
// and spares it.
void check_scaler() {
  for (int format = 0; format < 4; ++format) {
    const bool numbers = format == ADAMW_STATE_FLOAT32 || format == ADAMW_STATE_BFLOAT16;
    const adamw_step_options o = step_options(static_cast<adamw_state_format>(format));
    const std::vector<TensorShape> shapes = {{4, 250, 0}, {1, 50000, 0}};
    Model plain(o, shapes), scaled(o, shapes);
    const float scale = 1024.0f, found = 1.0f, none = 0.0f;
    for (int step = 1; step <= 3; ++step) {
      plain.new_gradients(static_cast<std::uint64_t>(step));
      CHECK(plain.call(step) == ADAMW_OK, "%s", adamw_last_error());
      scaled.new_gradients(static_cast<std::uint64_t>(step));
      auto unscaled = scaled.memory;
      for (auto &b : scaled.memory)
        for (std::size_t i = 0; i < b[Model::grad].memory.size() / 4; ++i) b[Model::grad].floats()[i] *= scale;
      scaled.options.grad_scale = &scale;
      scaled.options.found_inf = &found;
      const auto before = scaled.contents();
      CHECK(scaled.call(step) == ADAMW_OK && scaled.contents() == before, "format %d: found_inf was not obeyed",
            format);
      scaled.options.found_inf = &none;
      CHECK(scaled.call(step) == ADAMW_OK, "%s", adamw_last_error());
      for (std::size_t t = 0; t < shapes.size(); ++t)
        std::copy_n(unscaled[t][Model::grad].floats(), scaled.rows[t].numel, scaled.memory[t][Model::grad].floats());
    }
    CHECK(plain.contents() == scaled.contents(), "format %d: grad_scale matters", format);

    Model bad(o, shapes), good(o, shapes);
    std::int64_t counter = 1000;
    bad.options.skipped = &counter;
    for (Model *model : {&bad, &good}) model->new_gradients(1);
    const float kinds[] = {NAN, INFINITY, -INFINITY, 3e30f, -3e38f};
    std::int64_t placed = 0;
    Random random(8);
    std::vector<std::vector<bool>> hit = {std::vector<bool>(1000), std::vector<bool>(50000)};
    for (std::size_t t = 0; t < 2; ++t)
      for (std::size_t i = 0; i < hit[t].size(); ++i)
        if (random.below(97) == 0) {
          hit[t][i] = true;
          bad.memory[t][Model::grad].floats()[i] = kinds[placed++ % 5];
          good.memory[t][Model::grad].floats()[i] = 0.0f;
        }
    const auto start = bad.memory;
    CHECK(bad.call(1) == ADAMW_OK && good.call(1) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(counter == 1000 + (numbers ? 0 : placed), "format %d: counted %lld, placed %lld", format,
          static_cast<long long>(counter - 1000), static_cast<long long>(placed));
    for (std::size_t t = 0; t < 2; ++t)
      for (std::size_t i = 0; i < hit[t].size(); ++i) {
        if (numbers && hit[t][i]) continue;
        const float p = bad.memory[t][Model::param].floats()[i];
        const float expected = hit[t][i] ? const_cast<Bytes &>(start[t][Model::param]).floats()[i]
                                         : good.memory[t][Model::param].floats()[i];
        CHECK(bits_of(p) == bits_of(expected), "format %d tensor %zu element %zu: %a, not %a", format, t, i, double{p},
              double{expected});
      }
  }
}

}  // namespace

int main() {
  check_exact_numbers_stay();
  check_count_of_skipped();
  check_no_lr();
  check_padding();
  check_scaler();
  check_huge_scale();
  return finish();
}
