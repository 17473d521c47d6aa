// Owns the laws that no split, order, thread count or caller's mode changes a bit of a step, through the public C API.
// (Right numbers: test_reference.cpp. Refusals: test_validate.cpp.)
#include <algorithm>
#include <functional>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "model.h"

namespace {

constexpr int steps = abridged ? 2 : 3;
const std::vector<TensorShape> mixed = {{1, 1, 0},     {5, 100, 0},   {1, 0, 0},  {300, 300, 0}, {1, 33, 0},
                                        {7, 256, 512}, {1, 70001, 0}, {0, 64, 0}, {40, 63, 0},   {1, 257, 0}};

// Every kind of state with what reads its random words, and every kind of master weights.
void for_each_kind(const std::function<void(const adamw_step_options &)> &body) {
  for (int format = ADAMW_STATE_FLOAT32; format <= ADAMW_STATE_BFLOAT16; ++format) {
    for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD | ADAMW_STEP_STOCHASTIC_ROUNDING}}) {
      adamw_step_options o =
          step_options(static_cast<adamw_state_format>(format), flags, flags != 0 ? ADAMW_BFLOAT16 : ADAMW_FLOAT32,
                       flags != 0 ? ADAMW_FLOAT16 : ADAMW_FLOAT32);
      body(o);
      o.max_unorm = 0.01;
      o.percentile_clipping = 30;
      body(o);
    }
    adamw_step_options o = step_options(static_cast<adamw_state_format>(format), 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16, 8);
    body(o);
    o.flags = ADAMW_STEP_AMSGRAD | ADAMW_STEP_SKIP_ZEROS, o.grad_dtype = ADAMW_FLOAT32, o.remainder_bits = 16;
    o.max_unorm = format % 2 == 0 ? 0.01 : 0.0;
    body(o);
  }
}

// Law: 1 = 2 = 7 threads.
void check_threads(const adamw_step_options &options) {
  std::vector<std::uint8_t> one;
  for (int threads : {1, 2, 7}) {
    Model model(options, mixed);
    model.options.num_threads = threads;
    model.run(steps);
    if (threads == 1) one = model.contents();
    CHECK(model.contents() == one, "format %d flags %u: %d threads differ from one", options.state_format,
          options.flags, threads);
  }
}

// Law: one call over many rows = a call for each = a call with the rows in another order, though each has its own step
// count.
void check_batching(const adamw_step_options &options) {
  Model together(options, mixed), apart(options, mixed), reversed(options, mixed);
  for (int step = 1; step <= steps; ++step) {
    for (Model *model : {&together, &apart, &reversed}) {
      model->new_gradients(static_cast<std::uint64_t>(step));
      for (std::size_t i = 0; i < model->rows.size(); ++i)
        model->rows[i].step = step + static_cast<std::int64_t>(i % 3);
      std::vector<adamw_tensor> rows = model->rows;
      if (model == &reversed) std::reverse(rows.begin(), rows.end());
      const std::size_t at_once = model == &apart ? 1 : rows.size();
      for (std::size_t i = 0; i < rows.size(); i += at_once) {
        CHECK(adamw_step(&options, &rows[i], sizeof rows[i], static_cast<std::int64_t>(at_once)) == ADAMW_OK, "%s",
              adamw_last_error());
      }
    }
  }
  CHECK(together.contents() == apart.contents(), "format %d flags %u: many calls differ", options.state_format,
        options.flags);
  CHECK(together.contents() == reversed.contents(), "format %d flags %u: the order matters", options.state_format,
        options.flags);
}

// Law: a tensor that is cut between rows of dimension 0, with global_offset, steps as the whole does.
void check_shards(const adamw_step_options &options) {
  for (std::int64_t row_length : {300, 512, 64, 999}) {
    constexpr std::int64_t cuts[] = {0, 1, 5, 6, 12};
    Model whole(options, {{12, row_length, 0}}), sharded(options, {{12, row_length, 0}});
    for (int step = 1; step <= steps; ++step) {
      for (Model *model : {&whole, &sharded}) model->new_gradients(static_cast<std::uint64_t>(step));
      CHECK(whole.call(step) == ADAMW_OK, "%s", adamw_last_error());
      const std::int64_t p = options.param_dtype == ADAMW_FLOAT32 ? 4 : 2,
                         g = options.grad_dtype == ADAMW_FLOAT32 ? 4 : 2;
      adamw_state_layout layout;
      adamw_get_state_layout(static_cast<adamw_state_format>(options.state_format), 12 * row_length, row_length, 0,
                             options.remainder_bits, &layout);
      const std::int64_t state = layout.moment_bytes / (12 * row_length);
      std::vector<adamw_tensor> rows;
      for (int i = 0; i < 4; ++i) {
        adamw_tensor t = sharded.rows[0];
        const std::int64_t begin = cuts[i] * row_length, block = cuts[i] * layout.absmax_count / 12;
        t.param = static_cast<char *>(t.param) + begin * p;
        t.grad = static_cast<const char *>(t.grad) + begin * g;
        for (void **moment : {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq})
          *moment = static_cast<char *>(*moment) + begin * state;
        t.param_remainder = static_cast<char *>(t.param_remainder) + begin * options.remainder_bits / 8;
        for (float **scale : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax, &t.exp_avg_sq_floor,
                              &t.max_exp_avg_sq_floor})
          *scale += block;
        t.numel = (cuts[i + 1] - cuts[i]) * row_length;
        // A shard of one row is a tensor of one row: its row_length is still the whole's.
        t.step = step;
        t.global_offset = begin;
        rows.push_back(t);
      }
      std::swap(rows[0], rows[2]);
      CHECK(adamw_step(&options, rows.data(), sizeof rows[0], 4) == ADAMW_OK, "%s", adamw_last_error());
    }
    CHECK(whole.contents() == sharded.contents(), "format %d flags %u, rows of %d: shards differ", options.state_format,
          options.flags, static_cast<int>(row_length));
  }
}

// Law: thousands of tiny tensors in one call = each alone, on any number of threads.
void check_tiny(const adamw_step_options &options) {
  std::vector<TensorShape> shapes;
  for (int i = 0; i < (abridged ? 500 : 2000); ++i) shapes.push_back({1, i % 41, i});
  Model together(options, shapes), apart(options, shapes);
  together.options.num_threads = 3;
  together.run(2);
  for (int step = 1; step <= 2; ++step) {
    apart.new_gradients(static_cast<std::uint64_t>(step));
    for (adamw_tensor &row : apart.rows) {
      row.step = step;
      CHECK(adamw_step(&apart.options, &row, sizeof row, 1) == ADAMW_OK, "%s", adamw_last_error());
    }
  }
  CHECK(together.contents() == apart.contents(), "format %d flags %u: tiny tensors", options.state_format,
        options.flags);
}

// Law: a caller that flushes denormals gets the same bits, and keeps its mode.
struct FlushToZero {
#if defined(__x86_64__)
  unsigned saved = _mm_getcsr();
  static constexpr unsigned bits = 0x8040;
  FlushToZero() { _mm_setcsr(saved | bits); }
  bool kept() const { return (_mm_getcsr() & bits) == bits; }
  ~FlushToZero() { _mm_setcsr(saved); }
#elif defined(__aarch64__)
  std::uint64_t saved = get();
  static std::uint64_t get() {
    std::uint64_t x;
    __asm__ volatile("mrs %0, fpcr" : "=r"(x));
    return x;
  }
  static void set(std::uint64_t x) { __asm__ volatile("msr fpcr, %0" : : "r"(x)); }
  FlushToZero() { set(saved | 1u << 24); }
  bool kept() const { return (get() >> 24 & 1) != 0; }
  ~FlushToZero() { set(saved); }
#else
  bool kept() const { return true; }
#endif
};

void check_flush_to_zero(const adamw_step_options &options) {
  std::vector<std::uint8_t> results[2];
  for (int flush = 0; flush < 2; ++flush) {
    Model model(options, {{1, 1000, 0}, {1, 70000, 0}});
    for (std::size_t i = 0; i < 2; ++i) {  // parameters, gradients and moments that are denormal, or become so
      Random random(9);
      model.new_gradients(3);
      for (std::int64_t k = 0; k < model.rows[i].numel; k += 3) {
        put(static_cast<char *>(model.rows[i].param) +
                static_cast<std::size_t>(k) * size_of(static_cast<adamw_dtype>(options.param_dtype)),
            static_cast<adamw_dtype>(options.param_dtype), 0, -1000, random.bits());
      }
      auto *grad = static_cast<char *>(model.memory[i][Model::grad].at());
      for (std::int64_t k = 0; k < model.rows[i].numel; k += 2) {
        const adamw_dtype dtype = static_cast<adamw_dtype>(options.grad_dtype);
        put(grad + static_cast<std::size_t>(k) * size_of(dtype), dtype, 0, k % 4 == 0 ? -64 : -1000, random.bits());
      }
    }
    const float scale = 1.0f;
    model.options.grad_scale = &scale;
    model.options.num_threads = 2;
    if (flush == 1) {
      FlushToZero mode;
      CHECK(model.call(1) == ADAMW_OK && model.call(2) == ADAMW_OK, "%s", adamw_last_error());
      CHECK(mode.kept(), "the caller's flush-to-zero mode was changed");
    } else {
      CHECK(model.call(1) == ADAMW_OK && model.call(2) == ADAMW_OK, "%s", adamw_last_error());
    }
    results[flush] = model.contents();
  }
  CHECK(results[0] == results[1], "format %d flags %u: flush-to-zero matters", options.state_format, options.flags);
}

// Law: lr and the number of a step taken from memory = the same numbers given as they are, and what they stand in for
// is not looked at. (Both are floats there: 2^-10 is one.)
void check_tensors_of_one(const adamw_step_options &options) {
  Model given(options, mixed), taken(options, mixed);
  const float lr = 0x1p-10f;
  given.options.lr = double{lr};
  taken.options.lr_tensor = &lr;
  taken.options.lr = 0.5;
  std::vector<float> numbers(mixed.size());
  for (int step = 1; step <= steps; ++step) {
    for (Model *model : {&given, &taken}) {
      model->new_gradients(static_cast<std::uint64_t>(step));
      for (std::size_t i = 0; i < numbers.size(); ++i) {
        const std::int64_t number = step + static_cast<std::int64_t>(i % 3);
        numbers[i] = static_cast<float>(number);
        const bool in_memory = model == &taken && i % 4 != 3;  // rows with and without in one call
        model->rows[i].step = in_memory ? -7 : number;
        model->rows[i].step_tensor = in_memory ? &numbers[i] : nullptr;
      }
      CHECK(adamw_step(&model->options, model->rows.data(), sizeof(adamw_tensor),
                       static_cast<std::int64_t>(model->rows.size())) == ADAMW_OK,
            "%s", adamw_last_error());
    }
  }
  CHECK(taken.contents() == given.contents(), "format %d flags %u: lr_tensor and step_tensor differ from numbers",
        options.state_format, options.flags);
  CHECK(lr == 0x1p-10f && numbers[0] == steps, "they were written");
}

// Law: threads that step different tensors at once do not disturb each other.
void check_concurrent_calls(const adamw_step_options &options) {
  constexpr int callers = 4;
  Model alone(options, mixed);
  alone.run(2);
  std::vector<Model> models;
  for (int i = 0; i < callers; ++i) models.emplace_back(options, mixed);
  std::vector<std::thread> threads;
  bool ok[callers] = {};
  for (int i = 0; i < callers; ++i) {
    threads.emplace_back([&, i] {
      Model &model = models[static_cast<std::size_t>(i)];
      model.options.num_threads = 2;
      ok[i] = true;
      for (int step = 1; step <= 2; ++step) {
        model.new_gradients(static_cast<std::uint64_t>(step));
        ok[i] = ok[i] && model.call(step) == ADAMW_OK;
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  for (int i = 0; i < callers; ++i) {
    CHECK(ok[i] && models[static_cast<std::size_t>(i)].contents() == alone.contents(), "format %d: caller %d",
          options.state_format, i);
  }
}

}  // namespace

int main() {
  for_each_kind([](const adamw_step_options &options) {
    check_threads(options);
    check_batching(options);
    check_tiny(options);
    check_tensors_of_one(options);
    const bool per_tensor = options.state_format == ADAMW_STATE_TENSOR8 || options.max_unorm > 0.0;
    if (!per_tensor) check_shards(options);  // a norm or scale of the whole tensor is not a shard's
    check_flush_to_zero(options);
    if (!per_tensor) check_concurrent_calls(options);
  });
  return finish();
}
