// Owns the law of test_validate.cpp for master weights: their buffers in a step, and adamw_split_weights() and
// adamw_join_weights().
#include <functional>
#include <string>

#include "model.h"

namespace {

constexpr std::int64_t n = 600;

template <class T>
T *moved(T *pointer, std::int64_t bytes) {
  return reinterpret_cast<T *>(reinterpret_cast<std::uintptr_t>(pointer) + static_cast<std::uintptr_t>(bytes));
}

// ---- a step ----

// Law: a remainder that the step uses is a buffer like any other; others are not looked at.
void check_rows(int bits) {
  adamw_step_options o = step_options(ADAMW_STATE_BLOCK8, ADAMW_STEP_AMSGRAD, ADAMW_BFLOAT16, ADAMW_FLOAT32, bits);
  o.percentile_clipping = 50;
  Model model(o, std::vector<TensorShape>(300, {2, 20, 0}));
  model.run(1);
  const auto before = model.contents();
  const std::vector<adamw_tensor> good = model.rows;
  constexpr std::size_t at = 150;
  const auto refused = [&](const std::string &words, const std::function<void(adamw_tensor &)> &change) {
    change(model.rows[at]);
    const adamw_status got = model.call(2);
    const std::string message = adamw_last_error();
    CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT && message.find("tensor 150") != std::string::npos &&
              message.find(words) != std::string::npos,
          "%d bits: \"%s\" lacks \"%s\"", bits, message.c_str(), words.c_str());
    CHECK(model.contents() == before, "%s: a buffer has changed", words.c_str());
    model.rows = good;
  };
  refused("param_remainder is NULL", [](adamw_tensor &t) { t.param_remainder = nullptr; });
  if (bits == 16) refused("param_remainder", [](adamw_tensor &t) { t.param_remainder = moved(t.param_remainder, 1); });
  refused("end of memory", [](adamw_tensor &t) { t.param_remainder = reinterpret_cast<void *>(~std::uintptr_t{3}); });
  const adamw_tensor &own = good[at], &other = good[7];
  const std::int64_t bytes = 40 * bits / 8;
  const struct {
    void *address;
    std::int64_t bytes;
  } places[] = {{own.param, 80},
                {other.param, 80},
                {own.exp_avg, 40},
                {other.max_exp_avg_sq, 40},
                {other.gnorm_history, 400},
                {own.exp_avg_sq_floor, 4},
                {other.param_remainder, bytes},
                {const_cast<void *>(own.grad), 160},
                {const_cast<void *>(other.grad), 160}};
  for (const auto &place : places)
    for (std::int64_t shift : {2 - bytes, std::int64_t{0}, place.bytes - 2})
      refused("overlaps", [&](adamw_tensor &t) { t.param_remainder = moved(place.address, shift); });

  Model plain(step_options(ADAMW_STATE_FLOAT32, 0, ADAMW_BFLOAT16), {{2, 20, 0}});
  for (void *unused : {static_cast<void *>(nullptr), plain.rows[0].param, moved(plain.rows[0].param, 1)}) {
    plain.rows[0].param_remainder = unused;
    CHECK(plain.call(1) == ADAMW_OK, "a remainder that is not used: %s", adamw_last_error());
  }
  adamw_tensor empty{};
  empty.step = 1;
  CHECK(adamw_step(&o, &empty, sizeof empty, 1) == ADAMW_OK, "no elements: %s", adamw_last_error());
}

// ---- splitting and joining ----

struct Buffers {
  std::vector<float> weights = std::vector<float>(n, 0.7f);
  std::vector<std::uint16_t> param = std::vector<std::uint16_t>(n, 0x3F00);
  std::vector<std::int16_t> remainder = std::vector<std::int16_t>(n, 77);
  bool operator==(const Buffers &o) const {
    return weights == o.weights && param == o.param && remainder == o.remainder;
  }
};

adamw_split_options good(int bits = 16) {
  adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
  o.remainder_bits = bits;
  o.numel = n;
  return o;
}

adamw_status call(bool back, const adamw_split_options *o, float *weights, std::uint16_t *param, void *remainder) {
  return back ? adamw_join_weights(o, param, remainder, weights) : adamw_split_weights(o, weights, param, remainder);
}

// Both directions refuse it, name the function and `words`, and leave every buffer as it was.
void refused(const adamw_split_options *o, const char *words, adamw_status status = ADAMW_ERROR_INVALID_ARGUMENT) {
  Buffers b;
  for (bool back : {false, true}) {
    const adamw_status got = call(back, o, b.weights.data(), b.param.data(), b.remainder.data());
    const std::string message = adamw_last_error();
    CHECK(got == status, "%s: got %s", words, adamw_status_string(got));
    CHECK(message.find(words) != std::string::npos, "\"%s\" lacks \"%s\"", message.c_str(), words);
    CHECK(message.find(back ? "adamw_join_weights: " : "adamw_split_weights: ") == 0, "%s", message.c_str());
    CHECK(b == Buffers(), "%s: a buffer has changed", words);
  }
}

template <class Field, class... Values>
void each(Field adamw_split_options::*field, const char *words, Values... values) {
  for (Field value : {static_cast<Field>(values)...}) {
    adamw_split_options o = good();
    o.*field = value;
    refused(&o, words);
  }
}

void check_options() {
  refused(nullptr, "options is NULL");
  for (std::size_t size : {sizeof(adamw_split_options) - 16, sizeof(adamw_split_options) + 4, std::size_t{0}}) {
    adamw_split_options o = good();
    o.size = size;
    refused(&o, "options.size", ADAMW_ERROR_VERSION);
  }
  using O = adamw_split_options;
  each(&O::remainder_bits, "options.remainder_bits", 0, -1, 1, 4, 7, 9, 15, 24, 32, INT32_MIN, INT32_MAX);
  each(&O::rounding, "options.rounding", -1, 2);
  each(&O::device, "options.device", -2);
  each(&O::num_threads, "options.num_threads", -1, INT32_MIN);
  each(&O::numel, "numel", -1, INT64_MIN, INT64_MAX, (std::int64_t{1} << 58) + 1);
  each(&O::step, "options.step", -1, INT64_MIN);
  each(&O::global_offset, "options.global_offset", -1, INT64_MIN, INT64_MAX, (std::int64_t{1} << 62) - n + 1);
  adamw_split_options o = good();
  o.device = 0;
  refused(&o, "CPU build", ADAMW_ERROR_UNSUPPORTED);
  o = good();
  o.global_offset = (std::int64_t{1} << 62) - n, o.step = INT64_MAX, o.rounding = ADAMW_ROUND_STOCHASTIC;
  Buffers b;
  for (bool back : {false, true})
    CHECK(call(back, &o, b.weights.data(), b.param.data(), b.remainder.data()) == ADAMW_OK, "%s", adamw_last_error());
}

void check_buffers(int bits) {
  Buffers b;
  const adamw_split_options o = good(bits);
  float *const weights = b.weights.data();
  std::uint16_t *const param = b.param.data();
  void *const remainder = b.remainder.data();
  const std::int64_t bytes = n * bits / 8;
  auto *const halves = reinterpret_cast<std::uint16_t *>(weights);
  struct Case {
    float *weights;
    std::uint16_t *param;
    void *remainder;
    const char *words, *also;
  };
  std::vector<Case> cases = {
      {nullptr, param, remainder, "weights", "NULL"},
      {weights, nullptr, remainder, "param", "NULL"},
      {weights, param, nullptr, "remainder", "NULL"},
      {moved(weights, 2), param, remainder, "weights", "misaligned"},
      {weights, moved(param, 1), remainder, "param", "misaligned"},
      {weights, param, reinterpret_cast<void *>(~std::uintptr_t{7}), "remainder", "end of memory"},
      {weights, halves, remainder, "param", "overlaps"},
      {weights, halves + 2 * n - 1, remainder, "param", "overlaps"},
      {weights, halves - (n - 1), remainder, "param", "overlaps"},
      {weights, param, weights, "remainder", "overlaps"},
      {weights, param, halves + 2 * n - 1, "remainder", "overlaps"},
      {weights, param, moved(static_cast<void *>(weights), 2 - bytes), "remainder", "overlaps"}};
  if (bits == 16) cases.push_back({weights, param, moved(remainder, 1), "remainder", "misaligned"});
  for (const Case &c : cases) {
    for (bool back : {false, true}) {
      const adamw_status got = call(back, &o, c.weights, c.param, c.remainder);
      const std::string message = adamw_last_error();
      CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT && message.find(c.words) != std::string::npos &&
                message.find(c.also) != std::string::npos,
            "%d bits, %s %s: %s", bits, c.words, c.also, message.c_str());
      CHECK(b == Buffers(), "%s %s: a buffer has changed", c.words, c.also);
    }
  }
  // What is written must not overlap either; what is only read may.
  CHECK(adamw_split_weights(&o, weights, param, param) == ADAMW_ERROR_INVALID_ARGUMENT && b == Buffers(),
        "the remainder on the parameter");
  CHECK(adamw_join_weights(&o, param, param, weights) == ADAMW_OK, "%s", adamw_last_error());
  adamw_split_options empty = good(bits);
  empty.numel = 0;
  for (bool back : {false, true})
    CHECK(call(back, &empty, nullptr, nullptr, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  if (bits == 8) {  // bytes may lie anywhere
    Buffers c;
    for (bool back : {false, true})
      CHECK(call(back, &o, c.weights.data(), c.param.data(), moved(c.remainder.data(), 1)) == ADAMW_OK, "%s",
            adamw_last_error());
  }
}

}  // namespace

int main() {
  check_options();
  for (int bits : {8, 16}) {
    check_rows(bits);
    check_buffers(bits);
  }
  return finish();
}
