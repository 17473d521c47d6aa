// Owns the laws of steps on master weights, through the public C API: with 16 bits of remainder a run is that of
// float32 parameters, bit for bit; with 8 it is a float32 step whose result adamw_split_weights() splits; whatever a
// program does to parameters in between. (Every pattern, and averages: test_master_weights.cpp.)
#include <algorithm>
#include <cmath>
#include <functional>

#include "cpu/kernels.h"
#include "model.h"
#include "weights.h"

namespace {

// Single elements, flat blocks, short blocks, blocks that follow rows, runs; and where each run begins.
const std::vector<TensorShape> shapes = {{1, 1, 5},   {5, 100, 0},  {1, 33, 256},          {7, 64, 8000},
                                         {1, 257, 3}, {3, 300, 17}, {2, 512, 0, 512, 900}, {4, 300, 7, 600, 5000}};

std::uint16_t *params(Model &m, std::size_t t) { return static_cast<std::uint16_t *>(m.memory[t][Model::param].at()); }
int rest_of(const Model &m, std::size_t t, std::int64_t i) {
  const void *at = m.rows[t].param_remainder;
  return m.options.remainder_bits == 8 ? static_cast<const std::int8_t *>(at)[i]
                                       : static_cast<const std::int16_t *>(at)[i];
}
void set_rest(Model &m, std::size_t t, std::int64_t i, int rest) {
  void *at = m.rows[t].param_remainder;
  if (m.options.remainder_bits == 8) static_cast<std::int8_t *>(at)[i] = static_cast<std::int8_t>(rest);
  if (m.options.remainder_bits == 16) static_cast<std::int16_t *>(at)[i] = static_cast<std::int16_t>(rest);
}

// Steps on master weights, and the same tensors with float32 parameters.
struct Twins {
  Model split, whole;
  int number = 0;  // of steps

  static adamw_step_options whole_options(adamw_step_options o) {
    o.param_dtype = ADAMW_FLOAT32, o.remainder_bits = 0;
    return o;
  }
  Twins(const adamw_step_options &o, const std::vector<TensorShape> &s = shapes)
      : split(o, s), whole(whole_options(o), s) {
    Random random(11);
    for (std::size_t t = 0; t < s.size(); ++t) {
      for (std::int64_t i = 0; i < whole.rows[t].numel; ++i) {
        float &w = weights(t)[i];
        if (i % 50 == 7) w = std::ldexp(random.uniform(), -random.below(160));  // subnormal ones, too
        if (i % 50 == 11) w = 0.0f;
      }
    }
    split_now();
    join_now();
  }
  float *weights(std::size_t t) { return static_cast<float *>(whole.rows[t].param); }

  // Calls body(first element, how many, index of the first) for each run of a tensor.
  template <class Body>
  void over_runs(std::size_t t, const Body &body) const {
    const adamw_tensor &row = whole.rows[t];
    const std::int64_t length = row.run_length != 0 ? row.run_length : row.numel;
    for (std::int64_t i = 0; i < row.numel; i += length)
      body(i, length, row.global_offset + i / length * row.run_stride);
  }
  // What the float32 parameters are split into: to nearest, or as step `step` rounds.
  void split_now(std::int64_t step = -1) { split_to(split, step); }
  void split_to(Model &to, std::int64_t step) {
    for (std::size_t t = 0; t < whole.rows.size(); ++t)
      over_runs(t, [&](std::int64_t first, std::int64_t n, std::int64_t index) {
        adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
        o.remainder_bits = split.options.remainder_bits, o.numel = n, o.seed = split.options.seed;
        if (step >= 0) o.rounding = ADAMW_ROUND_STOCHASTIC, o.step = step, o.global_offset = index;
        auto *rest = static_cast<std::uint8_t *>(to.rows[t].param_remainder);
        CHECK(adamw_split_weights(&o, weights(t) + first, params(to, t) + first, rest + first * o.remainder_bits / 8) ==
                  ADAMW_OK,
              "%s", adamw_last_error());
      });
  }
  // The float32 parameters become what the others are by definition.
  void join_now() {
    for (std::size_t t = 0; t < whole.rows.size(); ++t)
      for (std::int64_t i = 0; i < whole.rows[t].numel; ++i)
        weights(t)[i] = float_from_bits(
            joined_by_definition(split.options.remainder_bits, params(split, t)[i], rest_of(split, t, i)));
  }
  void take_state() {
    for (std::size_t t = 0; t < whole.memory.size(); ++t)
      for (int b = Model::exp_avg; b <= Model::history; ++b) {
        const auto k = static_cast<std::size_t>(b);
        std::copy(split.memory[t][k].memory.begin(), split.memory[t][k].memory.end(),
                  whole.memory[t][k].memory.begin());
      }
  }
  void step(int spread = 8) {
    ++number;
    for (Model *m : {&split, &whole}) {
      m->new_gradients(static_cast<std::uint64_t>(number), spread);
      CHECK(m->call(number) == ADAMW_OK, "%s", adamw_last_error());
    }
  }

  // Law: the state has the same bits, and parameters and remainders those that the float32 parameters are split into.
  void compare(const char *what) {
    const adamw_step_options &o = split.options;
    Model must = split;
    for (std::size_t t = 0; t < must.rows.size(); ++t) {
      must.rows[t].param_remainder = must.memory[t][Model::remainder].at();
    }
    split_to(must, o.remainder_bits == 8 ? number : -1);
    for (std::size_t t = 0; t < must.rows.size(); ++t) {
      for (std::int64_t i = 0; i < must.rows[t].numel; ++i)
        CHECK(
            params(split, t)[i] == params(must, t)[i] && rest_of(split, t, i) == rest_of(must, t, i),
            "%s: %d bits, format %d, flags %u, step %d: tensor %zu, element %lld: %04x and %d, must be %04x and %d: %a",
            what, o.remainder_bits, o.state_format, o.flags, number, t, static_cast<long long>(i), params(split, t)[i],
            rest_of(split, t, i), params(must, t)[i], rest_of(must, t, i), double{weights(t)[i]});
      for (int b = Model::exp_avg; b <= Model::history; ++b)
        CHECK(
            split.memory[t][static_cast<std::size_t>(b)].memory == whole.memory[t][static_cast<std::size_t>(b)].memory,
            "%s: %d bits, format %d, flags %u, step %d: tensor %zu: buffer %d", what, o.remainder_bits, o.state_format,
            o.flags, number, t, b);
    }
  }
};

using Body = std::function<void(const adamw_step_options &)>;
void for_each_kind(int bits, const Body &body) {
  for (int format = ADAMW_STATE_FLOAT32; format <= ADAMW_STATE_BFLOAT16; ++format)
    for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD}, unsigned{ADAMW_STEP_SKIP_ZEROS}})
      body(step_options(static_cast<adamw_state_format>(format), flags, ADAMW_BFLOAT16,
                        flags == 0 ? ADAMW_FLOAT32 : ADAMW_BFLOAT16, bits));
}

// Law "32 bits": over 1000 steps, the bits of master weights and state are those of float32 parameters, and p is the
// master weight, rounded half a unit away from zero.
void check_run() {
  for_each_kind(16, [](const adamw_step_options &options) {
    Twins twins(options);
    for (int step = 1; step <= (abridged ? 30 : 1000); ++step) {
      twins.step();
      if (step <= 3 || step % 100 == 0) twins.compare("a run");
    }
    twins.compare("a run");
    for (std::size_t t = 0; t < shapes.size(); ++t)
      for (std::int64_t i = 0; i < twins.whole.rows[t].numel; ++i) {
        const std::uint32_t w = bits_of(twins.weights(t)[i]);
        CHECK(params(twins.split, t)[i] == param_by_definition(16, w), "%08x is rounded to %04x", w,
              params(twins.split, t)[i]);
      }
  });
}

// Law "24 bits": each step is a float32 step of what parameters and remainders are together; its result is split with
// the bytes of (seed, step, index), as adamw_split_weights() does. Both widths; and what makes steps differ: norms,
// which are those of master weights, scaled gradients, clipping.
void check_single_steps(int bits) {
  for_each_kind(bits, [](const adamw_step_options &options) {
    const float scale = 3.0f;
    for (int variant = 0; variant < 4; ++variant) {
      adamw_step_options o = options;
      if (variant == 1) o.max_unorm = 1e-3;
      if (variant == 2) o.percentile_clipping = 20, o.grad_scale = &scale;
      if (variant == 3) o.lr = 0.7, o.flags |= ADAMW_STEP_MAXIMIZE, o.seed = 0x123456789ABCDEFu;
      Twins twins(o);
      for (int step = 1; step <= 6; ++step) {
        twins.step();
        twins.compare("a step");
        twins.join_now();
      }
    }
  });
}

// Law: numbers that are not finite, and those so large that p is infinite and they are not, go the way of float32
// parameters.
void check_limits(int bits) {
  for_each_kind(bits, [](const adamw_step_options &options) {
    Twins twins(options);
    for (int step = 1; step <= 5; ++step) {
      for (std::size_t t = 0; t < shapes.size(); ++t)
        for (std::int64_t i = step; i < twins.whole.rows[t].numel; i += 9) {
          constexpr std::uint32_t some[] = {0x7F7FFFFF, 0xFF7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0xFF800000,
                                            0x7FC00000, 0x00000001, 0x807FFFFF, 0x80000000, 0x00800000, 0x7F7FFF7F};
          twins.weights(t)[i] = float_from_bits(some[i / 9 % 12]);
        }
      twins.split_now();
      twins.join_now();
      ++twins.number;
      for (Model *m : {&twins.split, &twins.whole}) {
        m->new_gradients(static_cast<std::uint64_t>(step));
        for (std::size_t t = 0; t < shapes.size(); ++t) {
          Random random(t + 1);
          fill(m->memory[t][Model::grad].at(), static_cast<adamw_dtype>(m->options.grad_dtype), m->rows[t].numel,
               random,
               m->options.state_format != ADAMW_STATE_FLOAT32 && m->options.state_format != ADAMW_STATE_BFLOAT16);
        }
        CHECK(m->call(step) == ADAMW_OK, "%s", adamw_last_error());
      }
      twins.compare("limits");
      twins.join_now();
    }
  });
}

// Law: whatever a program makes of parameters between two steps, the next step takes both parts as they are together by
// definition: never a NaN from numbers, and what the master weight lacks of p is half a unit of p at most.
void check_edits(int bits) {
  for_each_kind(bits, [](const adamw_step_options &options) {
    Twins twins(options);
    const int most = options.remainder_bits == 8 ? 127 : 32767;
    for (int step = 1; step <= 6; ++step) {
      twins.step();
      Random random(static_cast<std::uint64_t>(step));
      for (std::size_t t = 0; t < shapes.size(); ++t)
        for (std::int64_t i = 0; i < twins.split.rows[t].numel; ++i) {
          std::uint16_t &p = params(twins.split, t)[i];
          constexpr std::uint16_t values[] = {0x0000, 0x8000, 0x7F80, 0xFF80, 0x7F7F, 0x0001, 0x3F80, 0xBF80, 0x7FC0};
          const int kind = random.below(24);
          if (kind < 9 && !(step < 4 && (values[kind] & 0x7FFF) >= 0x7F7F)) p = values[kind];          // set, loaded
          if (kind >= 9 && kind < 14) p = std::min<std::uint16_t>(p & 0x7FFF, 0x3E00) | (p & 0x8000);  // clamped
          if (kind == 14) set_rest(twins.split, t, i, -most - 1);
          if (kind == 15) set_rest(twins.split, t, i, most);
          if (kind == 16) p = 0, set_rest(twins.split, t, i, -1);
          if (kind == 17 && step >= 4) p = 0x7F80, set_rest(twins.split, t, i, 1);
        }
      twins.join_now();
      twins.take_state();
      for (std::size_t t = 0; t < shapes.size(); ++t)
        for (std::int64_t i = 0; i < twins.split.rows[t].numel; ++i) {
          const std::uint16_t p = params(twins.split, t)[i];
          const float w = twins.weights(t)[i], own = float_from_bits(static_cast<std::uint32_t>(p) << 16);
          CHECK((w != w) == is_nan(p), "%04x and %d are %a", p, rest_of(twins.split, t, i), double{w});
          if ((p & 0x7F80) == 0x7F80) continue;
          const double unit = std::ldexp(1.0, std::max((p >> 7 & 255), 1) - 127 - 7);
          CHECK(std::fabs(double{w} - double{own}) <= unit / 2, "%04x and %d are %a", p, rest_of(twins.split, t, i),
                double{w});
        }
      twins.step();
      twins.compare("edits");
      twins.join_now();
    }
  });
}

// Law: what is not stepped stays, both parts: elements whose gradient is 0 (ADAMW_STEP_SKIP_ZEROS), that 8-bit state
// skips, or whose call found infinities; whatever pattern a weight has.
void check_unstepped(int bits) {
  for_each_kind(bits, [](const adamw_step_options &options) {
    const bool zeros = (options.flags & ADAMW_STEP_SKIP_ZEROS) != 0,
               eight = options.state_format == ADAMW_STATE_BLOCK8 || options.state_format == ADAMW_STATE_TENSOR8;
    Model model(options, shapes);
    model.run(2);
    Random random(3);
    for (std::size_t t = 0; t < shapes.size(); ++t)
      for (std::int64_t i = 0; i < model.rows[t].numel; ++i) {
        const std::uint32_t w = random.bits();
        params(model, t)[i] = param_by_definition(options.remainder_bits, w);
        set_rest(model, t, i, remainder_by_definition(options.remainder_bits, w));
      }
    const auto before = model.contents();
    const float found = 1.0f;
    model.options.found_inf = &found;
    CHECK(model.call(3) == ADAMW_OK && model.contents() == before, "format %d: found_inf", options.state_format);
    model.options.found_inf = nullptr;
    if (!zeros && !eight) return;
    const auto memory = model.memory;
    for (std::size_t t = 0; t < shapes.size(); ++t)
      for (std::int64_t i = 0; i < model.rows[t].numel; ++i) {
        const auto dtype = static_cast<adamw_dtype>(options.grad_dtype);
        void *at =
            static_cast<char *>(model.memory[t][Model::grad].at()) + static_cast<std::size_t>(i) * size_of(dtype);
        put(at, dtype, 0, zeros ? -1000 : 127, 0);  // 0, or a number whose square overflows
      }
    CHECK(model.call(3) == ADAMW_OK, "%s", adamw_last_error());
    for (std::size_t t = 0; t < shapes.size(); ++t)
      CHECK(model.memory[t][Model::param].memory == memory[t][Model::param].memory &&
                model.memory[t][Model::remainder].memory == memory[t][Model::remainder].memory,
            "%d bits, format %d, flags %u: tensor %zu: elements that are skipped moved", options.remainder_bits,
            options.state_format, options.flags, t);
  });
}

// Law: stochastic rounding of parameters has no effect on master weights.
void check_no_second_rounding(int bits) {
  for_each_kind(bits, [](const adamw_step_options &options) {
    Model plain(options, shapes), flagged(options, shapes);
    flagged.options.flags |= ADAMW_STEP_STOCHASTIC_ROUNDING;
    for (Model *m : {&plain, &flagged}) m->run(4);
    CHECK(plain.contents() == flagged.contents(), "%d bits, format %d, flags %u: the flag has an effect",
          options.remainder_bits, options.state_format, options.flags);
  });
}

// Law: every kernel leaves the same bits.
void check_kernels(int bits) {
  const auto kernels = adamw::usable_kernels();
  for_each_kind(bits, [&](const adamw_step_options &options) {
    const bool amsgrad = (options.flags & ADAMW_STEP_AMSGRAD) != 0;
    if (options.state_format == ADAMW_STATE_TENSOR8) return;  // its scales are found by other passes: digest.cpp
    const adamw::StepKind kind{ADAMW_BFLOAT16,
                               static_cast<adamw_dtype>(options.grad_dtype),
                               static_cast<adamw_state_format>(options.state_format),
                               options.remainder_bits,
                               amsgrad,
                               false,
                               (options.flags & ADAMW_STEP_SKIP_ZEROS) != 0};
    std::vector<std::uint8_t> first;
    for (const adamw::Kernels *kernel : kernels) {
      Model model(options, shapes);
      for (int step = 1; step <= 3; ++step) {
        model.new_gradients(static_cast<std::uint64_t>(step));
        for (const adamw_tensor &tensor : model.rows) {
          adamw::Row row{};
          row.tensor = tensor;
          row.blocks = adamw::block_layout(tensor.numel, tensor.row_length);
          row.coefficients = adamw::coefficients(
              {options.lr, options.beta1, options.beta2, options.eps, options.weight_decay, options.seed, false}, step);
          row.runs = {tensor.run_length, tensor.run_stride, 0};
          kernel->step(kind, row, nullptr, 0, row.blocks.count);
        }
      }
      if (first.empty()) first = model.contents();
      CHECK(model.contents() == first, "%d bits, format %d, flags %u: %s and %s differ", options.remainder_bits,
            options.state_format, options.flags, kernel->name, kernels[0]->name);
    }
  });
}

}  // namespace

int main() {
  check_run();
  for (int bits : {8, 16}) {
    check_single_steps(bits);
    check_limits(bits);
    check_edits(bits);
    check_unstepped(bits);
    check_no_second_rounding(bits);
    check_kernels(bits);
  }
  return finish();
}
