// Owns how right calls of adamw_step() are made from an input, see step_input.h.
#include "step_input.h"

#include <algorithm>
#include <cmath>

#include "../cpp/codes.h"

namespace {

struct Making {
  Choices &choices;
  Memory &memory;
  const StateMemory &state;
  Random random;
  adamw_step_options *o;
  bool ordinary;    // numbers of everyday sizes, whose results can be compared with double precision
  bool not_finite;  // NaN and infinities among the gradients

  void *take(std::size_t bytes) { return memory.take(bytes, choices.below(4) != 1).at; }
  void *take_state(std::size_t bytes) {
    void *const paged = state ? state(bytes) : nullptr;
    return paged != nullptr ? memory.adopt(paged, bytes).at : take(bytes);
  }
  float *scalar(float x) {
    auto *at = static_cast<float *>(take(sizeof x));
    *at = x;
    return at;
  }

  void fill_numbers(void *at, std::int32_t dtype, std::int64_t n, bool with_not_finite) {
    const auto d = static_cast<adamw_dtype>(dtype);
    if (!ordinary || with_not_finite) return fill(at, d, n, random, with_not_finite);
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t word = random.next();
      const bool zero = word % 16 == 0;
      put(static_cast<char *>(at) + static_cast<std::size_t>(i) * size_of(d), d, word >> 4 & 1,
          zero ? -1000 : -1 - static_cast<int>(word >> 5 & 7), zero ? 0 : static_cast<std::uint32_t>(word >> 32));
    }
  }
  // Not negative, from 2^lowest up.
  void fill_positive(void *at, adamw_dtype dtype, std::int64_t n, int lowest) {
    for (std::int64_t i = 0; i < n; ++i)
      put(static_cast<char *>(at) + static_cast<std::size_t>(i) * size_of(dtype), dtype, 0,
          lowest + random.below(-lowest), random.bits());
  }
  bool eight() const { return o->state_format == ADAMW_STATE_BLOCK8 || o->state_format == ADAMW_STATE_TENSOR8; }
  // Of blocks with zeros, of others, and, unless ordinary, any number.
  void fill_floors(float *at, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
      const int kind = random.below(8);
      at[i] = kind == 0 ? floor_of_zeros : kind == 1 ? 1.0f : 0.01f + 0.98f * static_cast<float>(random.unit());
      if (!ordinary && kind > 5) at[i] = random.any_float();
    }
  }
  void fill_moment(void *at, std::int64_t n, bool is_signed) {
    const adamw_dtype dtype = o->state_format == ADAMW_STATE_BFLOAT16 ? ADAMW_BFLOAT16 : ADAMW_FLOAT32;
    if (eight()) {
      auto *codes = static_cast<std::uint8_t *>(at);
      for (std::int64_t i = 0; i < n; ++i) codes[i] = static_cast<std::uint8_t>(random.bits() >> 8);
      if (ordinary) return;
      std::fill_n(codes, n / 2, is_signed ? std::uint8_t{128} : std::uint8_t{0});
    } else if (is_signed) {
      fill_numbers(at, dtype, n, false);
    } else {
      fill_positive(at, dtype, n, -20);
    }
  }

  void shape(adamw_tensor &t) {
    static constexpr std::int64_t lengths[] = {1, 2, 3, 63, 64, 65, 100, 255, 256, 257, 300, 511, 512, 513, 700, 1024};
    t.row_length = lengths[choices.below(16)];
    std::int64_t rows = 1 + choices.below(4);
    if (choices.one_in(64)) rows *= 40;
    if (choices.one_in(16)) rows = 0;
    t.numel = rows * t.row_length;
    if (choices.below(3) == 2) t.row_length = t.numel;
    if (rows == 0 && choices.below(2) == 1) t.row_length = 1 + choices.below(300);
    t.step = 1 + choices.below(8) * choices.below(200);
    if (choices.one_in(32)) t.step = choices.of<std::int64_t>({1000000, INT64_MAX, 1 << 30, 100, 99, 101});
    if (choices.below(4) == 1) t.global_offset = static_cast<std::int64_t>(choices.bits(5));
    if (choices.one_in(32)) t.global_offset = (std::int64_t{1} << 62) - t.numel;
    if (t.numel > 0 && choices.below(4) == 3) runs(t);
  }
  void runs(adamw_tensor &t) {
    const bool follow = t.row_length >= 64 && t.row_length % ADAMW_BLOCK_SIZE != 0 && t.row_length < t.numel;
    const std::int64_t unit = follow ? t.row_length : ADAMW_BLOCK_SIZE;
    t.run_length = t.numel;
    for (std::int64_t n = 1 + choices.below(3); n > 0; --n)
      if (t.numel % (n * unit) == 0) t.run_length = n * unit;
    t.run_stride = t.run_length + static_cast<std::int64_t>(choices.bits(2));
    if (t.global_offset > std::int64_t{1} << 61) t.global_offset = 0;
  }

  void row(adamw_tensor &t) {
    shape(t);
    const std::int64_t n = t.numel;
    const bool amsgrad = (o->flags & ADAMW_STEP_AMSGRAD) != 0;
    if (choices.one_in(16)) t.step_tensor = scalar(static_cast<float>(1 + choices.below(2000)) * 0.5f + 0.5f);
    if (n == 0 && choices.below(2) == 0) return;
    adamw_state_layout l{};
    adamw_get_state_layout(static_cast<adamw_state_format>(o->state_format), n, t.row_length, 0, 0, &l);
    t.param = take(static_cast<std::size_t>(n) * size_of(static_cast<adamw_dtype>(o->param_dtype)));
    fill_numbers(t.param, o->param_dtype, n, false);
    void *const grad = take(static_cast<std::size_t>(n) * size_of(static_cast<adamw_dtype>(o->grad_dtype)));
    fill_numbers(grad, o->grad_dtype, n, not_finite);
    t.grad = grad;
    void **const moments[] = {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq};
    float **const scales[] = {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax};
    float **const floors[] = {nullptr, &t.exp_avg_sq_floor, &t.max_exp_avg_sq_floor};
    const bool fresh = choices.below(3) == 0;
    if (o->remainder_bits != 0) {
      const auto bytes = static_cast<std::size_t>(n) * static_cast<std::size_t>(o->remainder_bits / 8);
      auto *const rest = static_cast<std::uint8_t *>(t.param_remainder = take_state(bytes));
      for (std::size_t i = 0; i < bytes; ++i) rest[i] = fresh ? 0 : static_cast<std::uint8_t>(random.bits());
    }
    for (int k = 0; k < (amsgrad ? 3 : 2); ++k) {
      *moments[k] = take_state(static_cast<std::size_t>(l.moment_bytes));
      if (fresh) std::memset(*moments[k], 0, static_cast<std::size_t>(l.moment_bytes));
      if (!fresh) fill_moment(*moments[k], n, k == 0);
      if (!eight()) continue;
      *scales[k] = static_cast<float *>(take_state(static_cast<std::size_t>(l.absmax_count) * 4));
      if (fresh) std::fill_n(*scales[k], l.absmax_count, 0.0f);
      if (!fresh) fill_positive(*scales[k], ADAMW_FLOAT32, l.absmax_count, ordinary ? -12 : -140);
      if (k == 0) continue;
      *floors[k] = static_cast<float *>(take_state(static_cast<std::size_t>(l.floor_count) * 4));
      if (fresh) std::fill_n(*floors[k], l.floor_count, 0.0f);
      if (!fresh) fill_floors(*floors[k], l.floor_count);
    }
    if (o->percentile_clipping == 100) return;
    t.gnorm_history = static_cast<float *>(take(ADAMW_GNORM_HISTORY * sizeof(float)));
    std::fill_n(t.gnorm_history, ADAMW_GNORM_HISTORY, 0.0f);
    if (choices.below(3) != 0) fill_positive(t.gnorm_history, ADAMW_FLOAT32, ADAMW_GNORM_HISTORY, -12);
  }

  // True if they are everyday ones.
  bool hyperparameters() {
    if (choices.below(2) == 0) return true;
    o->lr = choices.of({1e-3, 0.0, 1e-4, 0.03, 1.0, 1e-8});
    o->beta1 = choices.of({0.9, 0.0, 0.5, 0.99, 0.9999});
    o->beta2 = choices.of({0.999, 0.0, 0.5, 0.95, 0.99999});
    o->eps = choices.of({1e-8, 0.0, 1e-6, 1e-15, 1e-2});
    o->weight_decay = choices.of({1e-2, 0.0, 0.1, 3.0});
    bool everyday = o->eps > 0;
    if (choices.one_in(8)) o->lr = std::fabs(choices.hostile_real()), everyday = false;
    if (choices.one_in(16)) o->eps = std::fabs(choices.hostile_real()), everyday = false;
    for (double *x : {&o->lr, &o->eps})
      if (!std::isfinite(*x)) *x = 0.5;
    return everyday;
  }
};

}  // namespace

StepInput make_step(Choices &choices, Memory &memory, const StateMemory &state) {
  StepInput input{};
  input.options = reinterpret_cast<adamw_step_options *>(memory.take(sizeof(adamw_step_options), true).at);
  *input.options = ADAMW_STEP_OPTIONS_INIT;
  adamw_step_options &o = *input.options;
  o.state_format = choices.below(4);
  o.param_dtype = choices.below(3);
  if (o.param_dtype == ADAMW_BFLOAT16) o.remainder_bits = choices.of({0, 8, 16});
  o.grad_dtype = choices.below(3);
  o.flags = choices.below(2) == 0 ? 0 : static_cast<std::uint32_t>(choices.below(16));
  o.seed = choices.bits(2);
  Making making{choices, memory, state, Random(choices.bits(4)), &o, choices.below(4) != 3, choices.one_in(8)};
  input.comparable = making.hyperparameters() && making.ordinary && !making.not_finite;
  if (choices.one_in(6)) o.percentile_clipping = 1 + choices.below(99);
  if (choices.one_in(6)) o.max_unorm = choices.of({0.02, 1.0, 1e-4});
  o.num_threads = choices.of({1, 1, 0, 2, 3, 7});
  if (choices.one_in(64)) o.num_threads = choices.of({64, 1000, 100000, 1 << 27, INT32_MAX});
  if (choices.one_in(8)) o.grad_scale = making.scalar(choices.of({1.0f, 1024.0f, 3.0f, 0x1p-10f}));
  if (choices.one_in(8)) {
    const auto factor = choices.of({0.25f, 1.0f, 0.7f, 0.0f, 0x1p-10f, 3.0f, std::nanf("")});
    o.grad_factor = making.scalar(factor);
    input.comparable = input.comparable && !std::isnan(factor);
  }
  if (choices.one_in(16)) o.found_inf = making.scalar(choices.of({0.0f, 1.0f, -0.0f, std::nanf("")}));
  if (choices.one_in(16)) o.lr_tensor = making.scalar(choices.of({1e-3f, 0.0f, 0.5f}));
  if (choices.below(4) == 3) o.skipped = static_cast<std::int64_t *>(making.take(8));
  if (o.skipped != nullptr) *o.skipped = 1000;
  if (choices.below(4) == 3) o.rows_stepped = static_cast<std::int64_t *>(making.take(8));
  if (o.rows_stepped != nullptr) *o.rows_stepped = -77;
  if (choices.one_in(16)) o.stream = &o;
  input.rows = choices.below(2) == 0 ? 1 : choices.below(7);
  input.count = input.rows;
  input.tensor_size = sizeof(adamw_tensor);
  const std::size_t bytes = static_cast<std::size_t>(input.rows) * sizeof(adamw_tensor);
  input.tensors = reinterpret_cast<adamw_tensor *>(memory.take(bytes, choices.below(2) == 0).at);
  std::memset(static_cast<void *>(input.tensors), 0, bytes);
  for (std::int64_t i = 0; i < input.rows; ++i) making.row(input.tensors[i]);
  return input;
}
