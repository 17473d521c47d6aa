// Owns the laws of steps at the limits of single precision: no lr, a scale whose square overflows. (What a step
// computes elsewhere: test_reference.cpp.)
#include "model.h"

namespace {

// Law: with lr 0 parameters stay (zeros among them), and moments move; with 8-bit state also where lr is so small that
// its reciprocal overflows, for that step divides by the step size.
void check_no_lr() {
  for (int format = 0; format < 3; ++format) {
    for (double lr : {0.0, 1e-45, 1e-40}) {
      if (format == ADAMW_STATE_FLOAT32 && lr > 0.0) continue;
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

// Law: a scale whose square overflows (from a damaged checkpoint) does not reach elements whose second moment is 0.
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

}  // namespace

int main() {
  check_exact_numbers_stay();
  check_count_of_skipped();
  check_no_lr();
  check_huge_scale();
  return finish();
}
