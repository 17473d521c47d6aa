// Owns the law that what a call is told depends on its arguments alone, not on the calls before it: libadamw remembers
// which tables were free of overlaps, and must notice every way in which the next one is another.
#include <algorithm>
#include <functional>
#include <string>
#include <thread>

#include "model.h"

namespace {

using Change = std::function<void(Model &)>;
constexpr std::size_t row_count = 40, at = 25, other = 7;

// Every buffer in use: 8-bit, amsgrad, clipping.
adamw_step_options everything() {
  adamw_step_options o = step_options(ADAMW_STATE_BLOCK8, ADAMW_STEP_AMSGRAD);
  o.percentile_clipping = 50;
  return o;
}

template <class T>
T *moved(T *pointer, std::int64_t bytes) {
  return reinterpret_cast<T *>(reinterpret_cast<std::uintptr_t>(pointer) + static_cast<std::uintptr_t>(bytes));
}

// Law: a table that has been stepped is refused once a change in place makes it wrong, each time, and nothing is
// written; changed back, it is stepped.
void refused(Model &model, const std::string &words, const Change &change) {
  CHECK(model.call(2) == ADAMW_OK && model.call(3) == ADAMW_OK, "%s: before: %s", words.c_str(), adamw_last_error());
  const std::vector<adamw_tensor> rows = model.rows;
  const adamw_step_options options = model.options;
  const auto before = model.contents();
  change(model);
  for (int time = 0; time < 2; ++time) {
    const adamw_status got = model.call(4);
    const std::string message = adamw_last_error();
    CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s", words.c_str(), adamw_status_string(got));
    CHECK(message.find(words) != std::string::npos, "\"%s\" lacks \"%s\"", message.c_str(), words.c_str());
    CHECK(model.contents() == before, "%s: a buffer has changed", words.c_str());
  }
  model.rows = rows;
  model.options = options;
  CHECK(model.call(4) == ADAMW_OK, "%s: after: %s", words.c_str(), adamw_last_error());
}

void check_gradients(Model &model) {
  const auto gradient = [&](const std::string &words, const void *pointer) {
    refused(model, words, [=](Model &m) { m.rows[at].grad = pointer; });
  };
  const adamw_tensor &t = model.rows[other];
  gradient("grad is NULL", nullptr);
  gradient("misaligned", moved(model.rows[at].grad, 2));
  gradient("end of memory", reinterpret_cast<void *>(~std::uintptr_t{3}));
  for (std::int64_t shift : {-156, 0, 36}) {  // the gradient's last element, all of it, its first
    gradient("tensor 25: grad", moved(t.param, shift));
    gradient("tensor 25: grad", moved(t.exp_avg, shift));
    gradient("tensor 25: grad", moved(t.exp_avg_sq, shift));
    gradient("tensor 25: grad", moved(t.max_exp_avg_sq, shift));
    gradient("tensor 25: grad", moved(t.gnorm_history, shift));
    gradient("tensor 25: grad", moved(model.rows[at].param, shift));
  }
  for (std::int64_t shift : {-156, 0}) {
    gradient("tensor 25: grad", moved(t.exp_avg_absmax, shift));
    gradient("tensor 25: grad", moved(t.exp_avg_sq_floor, shift));
    gradient("tensor 25: grad", moved(t.max_exp_avg_sq_floor, shift));
  }
}

void check_state(Model &model) {
  for (std::int64_t shift : {-36, 0, 36}) {
    refused(model, "overlaps", [=](Model &m) { m.rows[at].exp_avg = moved(m.rows[other].exp_avg_sq, shift); });
    refused(model, "overlaps", [=](Model &m) { m.rows[at].exp_avg = moved(m.rows[at].max_exp_avg_sq, shift); });
  }
  for (std::int64_t shift : {0, 36, 120}) {
    refused(model, "tensor 7: grad",
            [=](Model &m) { m.rows[at].exp_avg_sq = moved(const_cast<void *>(m.rows[other].grad), shift); });
  }
  refused(model, "overlaps", [](Model &m) { m.rows[at].param = m.rows[other].param; });
  refused(model, "overlaps", [](Model &m) { m.rows[at].exp_avg_absmax = m.rows[at].exp_avg_sq_absmax; });
  refused(model, "overlaps", [](Model &m) { m.rows[at].gnorm_history = moved(m.rows[other].gnorm_history, -396); });
  refused(model, "max_exp_avg_sq_absmax is NULL", [](Model &m) { m.rows[at].max_exp_avg_sq_absmax = nullptr; });
  refused(model, "overlaps", [](Model &m) { m.rows[at].max_exp_avg_sq_floor = m.rows[at].exp_avg_sq_floor; });
  refused(model, "exp_avg_sq_floor is NULL", [](Model &m) { m.rows[at].exp_avg_sq_floor = nullptr; });
  refused(model, "overlaps", [](Model &m) { m.rows[at] = m.rows[other]; });
  refused(model, "overlaps", [](Model &m) { m.rows.push_back(m.rows[other]); });
  refused(model, "step", [](Model &m) {
    m.rows.back() = {};  // no elements, nothing to be wrong but this
    m.rows.back().global_offset = 1;
    m.rows.back().step_tensor = m.rows[other].gnorm_history;  // of zeros
  });
  refused(model, "options.skipped",
          [](Model &m) { m.options.skipped = static_cast<std::int64_t *>(m.rows[at].param); });
  model.memory[at][Model::param].floats()[1] = 1.0f;  // a valid scale
  refused(model, "options.grad_scale",
          [](Model &m) { m.options.grad_scale = static_cast<float *>(m.rows[at].param) + 1; });
  refused(model, "options.found_inf", [](Model &m) { m.options.found_inf = static_cast<float *>(m.rows[at].param); });
}

// The same rows, of which other options need more. Buffers lie one behind the other, each as long as it must be first.
void check_options() {
  const auto tight = [](const char *words, const adamw_step_options &options, const Change &change) {
    Model model(options, std::vector<TensorShape>(row_count, {1, 40, 0}));
    std::vector<float> arena(row_count * 600);
    const std::int64_t param = 40 * static_cast<std::int64_t>(size_of(static_cast<adamw_dtype>(options.param_dtype))),
                       grad = 40 * static_cast<std::int64_t>(size_of(static_cast<adamw_dtype>(options.grad_dtype))),
                       moment = options.state_format == ADAMW_STATE_FLOAT32 ? 160 : 40,
                       remainder = 40 * options.remainder_bits / 8;
    char *next = reinterpret_cast<char *>(arena.data());
    const auto take = [&](std::int64_t bytes) { return next += bytes, next - bytes; };
    for (adamw_tensor &t : model.rows) {
      t.param = take(param);
      t.grad = take(grad);
      t.exp_avg = take(moment);
      t.exp_avg_sq = take(moment);
      t.max_exp_avg_sq = t.exp_avg_sq;  // where it is not used
      t.param_remainder = remainder != 0 ? take(remainder) : t.param;
      t.gnorm_history = static_cast<float *>(t.param);
      for (float **scales : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.exp_avg_sq_floor})
        *scales = reinterpret_cast<float *>(moment == 40 ? take(4) : static_cast<char *>(t.param));
      t.max_exp_avg_sq_absmax = t.max_exp_avg_sq_floor = t.exp_avg_absmax;
    }
    refused(model, words, change);
  };
  const adamw_step_options halves = step_options(ADAMW_STATE_BLOCK8, 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16);
  tight("param", halves, [](Model &m) { m.options.param_dtype = ADAMW_FLOAT32; });
  tight("grad", halves, [](Model &m) { m.options.grad_dtype = ADAMW_FLOAT32; });
  tight("exp_avg", halves, [](Model &m) { m.options.state_format = ADAMW_STATE_FLOAT32; });
  tight("exp_avg", halves, [](Model &m) { m.options.state_format = ADAMW_STATE_BFLOAT16; });
  tight("param_remainder", halves, [](Model &m) { m.options.remainder_bits = 8; });
  tight("param_remainder", step_options(ADAMW_STATE_BLOCK8, 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16, 8),
        [](Model &m) { m.options.remainder_bits = 16; });
  tight("exp_avg_absmax", step_options(), [](Model &m) { m.options.state_format = ADAMW_STATE_BLOCK8; });
  tight("max_exp_avg_sq", step_options(), [](Model &m) { m.options.flags = ADAMW_STEP_AMSGRAD; });
  tight("gnorm_history", step_options(), [](Model &m) { m.options.percentile_clipping = 5; });
  tight("tensor 25", step_options(), [](Model &m) { m.rows[at].numel = m.rows[at].row_length = 41; });
  tight("tensor 25", step_options(), [](Model &m) {  // each buffer ends where it did, and begins earlier
    adamw_tensor &t = m.rows[at];
    t.numel = t.row_length = 41;
    t.grad = m.memory[other][Model::history].at();  // elsewhere
    for (void **p : {&t.param, &t.exp_avg, &t.exp_avg_sq}) *p = moved(*p, -4);
  });
}

// Remainders of master weights are state like any other.
void check_remainders() {
  for (int bits : {8, 16}) {
    Model model(step_options(ADAMW_STATE_BLOCK8, 0, ADAMW_BFLOAT16, ADAMW_BFLOAT16, bits),
                std::vector<TensorShape>(row_count, {2, 20, 0}));
    const auto remainder = [&](const std::string &words, void *pointer) {
      refused(model, words, [=](Model &m) { m.rows[at].param_remainder = pointer; });
    };
    remainder("param_remainder is NULL", nullptr);
    if (bits == 16) remainder("misaligned", moved(model.rows[at].param_remainder, 1));
    for (std::int64_t shift : {-38, 0, 38}) {
      remainder("param_remainder", moved(model.rows[at].param, shift));
      remainder("param_remainder", moved(model.rows[other].param_remainder, shift));
      refused(model, "tensor 25: grad", [=](Model &m) { m.rows[at].grad = moved(m.rows[at].param_remainder, shift); });
    }
  }
}

// More tables than are remembered, in turn: each is judged by itself.
void check_many_tables() {
  std::vector<Model> models;
  for (std::uint64_t i = 0; i < 50; ++i)
    models.emplace_back(step_options(), std::vector<TensorShape>(8 + i % 3, {1, 4, 0}), i);
  for (int turn = 0; turn < 3; ++turn) {
    for (Model &m : models) CHECK(m.call(turn + 1) == ADAMW_OK, "%s", adamw_last_error());
    for (Model &m : models) {
      const void *grad = m.rows[3].grad;
      m.rows[3].grad = m.rows[5].exp_avg;
      CHECK(m.call(turn + 1) == ADAMW_ERROR_INVALID_ARGUMENT, "a gradient in the state was not refused");
      m.rows[3].grad = grad;
    }
  }
}

// Each of two threads has a table of its own that is right and wrong in turn, at the other's pace; then both have the
// other's.
void check_threads() {
  Model one(everything(), std::vector<TensorShape>(row_count, {2, 20, 0})),
      two(step_options(), std::vector<TensorShape>(row_count, {2, 20, 0}));
  const auto in_turn = [](Model &m) {
    const void *good = m.rows[at].grad;
    for (int turn = 0; turn < 200; ++turn) {
      m.rows[at].grad = turn % 3 == 2 ? m.rows[other].exp_avg : good;
      const adamw_status got = m.call(turn + 1);
      CHECK((got == ADAMW_OK) == (turn % 3 != 2), "turn %d: %s", turn, adamw_last_error());
    }
    m.rows[at].grad = good;
  };
  for (int swapped = 0; swapped < 2; ++swapped) {
    std::thread thread(in_turn, std::ref(swapped == 0 ? one : two));
    in_turn(swapped == 0 ? two : one);
    thread.join();
  }
}

}  // namespace

int main() {
  Model model(everything(), std::vector<TensorShape>(row_count, {2, 20, 0}));
  check_gradients(model);
  check_state(model);
  check_options();
  check_remainders();
  check_many_tables();
  check_threads();
  return finish();
}
