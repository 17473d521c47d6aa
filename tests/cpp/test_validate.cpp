// Owns the law that bad input is refused, with the right status and a sentence that names row and field, before one
// byte of any buffer has changed.
#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "model.h"

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
constexpr int row_count = 300;

// Refused with `status` and a message that holds each of `words` (separated by '|'), everything as it was.
void check_refused(Model &model, adamw_status got, adamw_status status, const std::vector<std::uint8_t> &before,
                   const std::string &words) {
  const std::string message = adamw_last_error();
  CHECK(got == status, "%s: got %s (%s)", words.c_str(), adamw_status_string(got), message.c_str());
  for (std::size_t at = 0; at <= words.size();) {
    const std::size_t end = std::min(words.find('|', at), words.size());
    CHECK(message.find(words.substr(at, end - at)) != std::string::npos, "\"%s\" lacks \"%s\"", message.c_str(),
          words.substr(at, end - at).c_str());
    at = end + 1;
  }
  CHECK(model.contents() == before, "%s: a buffer has changed", words.c_str());
}

// Every buffer in use: 8-bit, amsgrad, clipping.
adamw_step_options everything() {
  adamw_step_options o = step_options(ADAMW_STATE_BLOCK8, ADAMW_STEP_AMSGRAD);
  o.percentile_clipping = 50;
  return o;
}

std::vector<TensorShape> many() { return std::vector<TensorShape>(row_count, {2, 20, 0}); }

using Change = std::function<void(adamw_step_options &)>;

void check_options() {
  Model model(everything(), many());
  model.run(1);
  const auto before = model.contents();
  const adamw_step_options good = model.options;
  float scalar = 1.0f;
  std::int64_t counter = 0;
  const auto misaligned = [](auto *p, int by) {
    return reinterpret_cast<decltype(p)>(reinterpret_cast<char *>(p) + by);
  };
  const auto refused = [&](const char *words, adamw_status status, const Change &change) {
    change(model.options);
    const adamw_status got = model.call(2);
    check_refused(model, got, status, before, words);
    model.options = good;
  };
  const auto invalid = [&](const char *words, const Change &change) {
    refused(words, ADAMW_ERROR_INVALID_ARGUMENT, change);
  };
  for (std::size_t size : {std::size_t{120}, sizeof good + 4, std::size_t{0}, ~std::size_t{0}}) {
    refused("options.size", ADAMW_ERROR_VERSION, [=](adamw_step_options &o) { o.size = size; });
  }
  for (double bad : {nan, infinity, -infinity, -1e-300, -1.0}) {
    invalid("options.lr", [=](adamw_step_options &o) { o.lr = bad; });
    invalid("options.eps", [=](adamw_step_options &o) { o.eps = bad; });
    invalid("options.weight_decay", [=](adamw_step_options &o) { o.weight_decay = bad; });
    invalid("options.max_unorm", [=](adamw_step_options &o) { o.max_unorm = bad; });
  }
  for (double bad : {nan, infinity, -0.1, 1.0, 1.5}) {
    invalid("options.beta1", [=](adamw_step_options &o) { o.beta1 = bad; });
    invalid("options.beta2", [=](adamw_step_options &o) { o.beta2 = bad; });
  }
  for (std::int32_t bad : {-1, 3, INT32_MIN, INT32_MAX}) {
    invalid("options.param_dtype", [=](adamw_step_options &o) { o.param_dtype = bad; });
    invalid("options.grad_dtype", [=](adamw_step_options &o) { o.grad_dtype = bad; });
  }
  for (std::int32_t bad : {-1, 4, INT32_MIN, INT32_MAX})
    invalid("options.state_format", [=](adamw_step_options &o) { o.state_format = bad; });
  for (std::uint32_t bad : {16u, 0x80000000u, ~0u})
    invalid("options.flags", [=](adamw_step_options &o) { o.flags = bad; });
  for (std::int32_t bad : {0, -5, 101})
    invalid("options.percentile_clipping", [=](adamw_step_options &o) { o.percentile_clipping = bad; });
  refused("options.device|CPU build", ADAMW_ERROR_UNSUPPORTED, [](adamw_step_options &o) { o.device = 0; });
  refused("options.device", ADAMW_ERROR_UNSUPPORTED, [](adamw_step_options &o) { o.device = 7; });
  invalid("options.device", [](adamw_step_options &o) { o.device = -2; });
  invalid("options.num_threads", [](adamw_step_options &o) { o.num_threads = -1; });
  for (std::int32_t bad : {-1, 1, 4, 7, 24, 32, INT32_MIN, INT32_MAX})
    invalid("options.remainder_bits|8 or 16", [=](adamw_step_options &o) { o.remainder_bits = bad; });
  for (std::int32_t bits : {8, 16})  // of float32 parameters
    invalid("options.remainder_bits|ADAMW_BFLOAT16", [=](adamw_step_options &o) { o.remainder_bits = bits; });
  invalid("options.grad_scale|misaligned", [&](adamw_step_options &o) { o.grad_scale = misaligned(&scalar, 2); });
  invalid("options.found_inf|misaligned", [&](adamw_step_options &o) { o.found_inf = misaligned(&scalar, 1); });
  invalid("options.skipped|misaligned", [&](adamw_step_options &o) { o.skipped = misaligned(&counter, 4); });
  invalid("options.lr_tensor|misaligned", [&](adamw_step_options &o) { o.lr_tensor = misaligned(&scalar, 2); });
  for (float bad : {0.0f, -1.0f, NAN, INFINITY}) {
    scalar = bad;
    invalid("grad_scale", [&](adamw_step_options &o) { o.grad_scale = &scalar; });
  }
  for (float bad : {-1e-30f, -1.0f, NAN, INFINITY, -INFINITY}) {
    scalar = bad;
    invalid("options.lr_tensor[0]|finite", [&](adamw_step_options &o) { o.lr_tensor = &scalar; });
  }
  invalid("options.skipped|overlaps",
          [&](adamw_step_options &o) { o.skipped = static_cast<std::int64_t *>(model.rows[3].param); });
  model.memory[4][Model::history].floats()[1] = 1.0f;  // a valid scale, but one that the step writes
  const auto with_scale = model.contents();
  model.options.grad_scale = model.rows[4].gnorm_history + 1;
  check_refused(model, model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, with_scale,
                "options.grad_scale|overlaps|gnorm_history|tensor 4");
  model.options = good;
  model.options.lr_tensor = model.rows[4].gnorm_history + 1;
  check_refused(model, model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, with_scale,
                "options.lr_tensor|overlaps|gnorm_history|tensor 4");
  model.options = good;
  model.options.found_inf = model.rows[4].exp_avg_absmax;
  check_refused(model, model.call(2), ADAMW_ERROR_INVALID_ARGUMENT, with_scale,
                "options.found_inf|overlaps|exp_avg_absmax|tensor 4");
  CHECK(counter == 0, "the counter has changed");
}

// The last of 300 rows is bad, and then one in the middle.
void check_rows() {
  Model model(everything(), many());
  model.run(1);
  for (auto &buffers : model.memory) buffers[Model::history].floats()[99] = 3.0f;  // would do as the number of a step
  const auto before = model.contents();
  const std::vector<adamw_tensor> good = model.rows;
  for (int at : {row_count - 1, 150}) {
    const std::string row = "tensor " + std::to_string(at) + ":";
    const auto invalid = [&](const std::string &words, const std::function<void(adamw_tensor &)> &change,
                             std::int64_t step = 2) {
      for (adamw_tensor &t : model.rows) t.step = step;
      change(model.rows[static_cast<std::size_t>(at)]);
      const adamw_status got = adamw_step(&model.options, model.rows.data(), sizeof(adamw_tensor), row_count);
      check_refused(model, got, ADAMW_ERROR_INVALID_ARGUMENT, before, row + "|" + words);
      model.rows = good;
    };
    // Pointers: NULL, misaligned (codes are bytes, and always aligned), running past the end of memory.
    const auto pointer = [&](const char *name, auto adamw_tensor::*field, bool bytes) {
      using Pointer = std::remove_reference_t<decltype(std::declval<adamw_tensor>().*field)>;
      const auto moved = [&](std::uintptr_t by) {
        return reinterpret_cast<Pointer>(reinterpret_cast<std::uintptr_t>(good[static_cast<std::size_t>(at)].*field) +
                                         by);
      };
      invalid(std::string(name) + " is NULL", [&](adamw_tensor &t) { t.*field = nullptr; });
      if (!bytes) invalid(std::string(name) + "|misaligned", [&](adamw_tensor &t) { t.*field = moved(2); });
      if (!bytes) invalid(std::string(name) + "|misaligned", [&](adamw_tensor &t) { t.*field = moved(1); });
      invalid(std::string(name) + "|end of memory",
              [&](adamw_tensor &t) { t.*field = reinterpret_cast<Pointer>(~std::uintptr_t{3}); });
    };
    pointer("param", &adamw_tensor::param, false);
    pointer("grad", &adamw_tensor::grad, false);
    pointer("exp_avg", &adamw_tensor::exp_avg, true);
    pointer("exp_avg_sq", &adamw_tensor::exp_avg_sq, true);
    pointer("max_exp_avg_sq", &adamw_tensor::max_exp_avg_sq, true);
    pointer("exp_avg_absmax", &adamw_tensor::exp_avg_absmax, false);
    pointer("exp_avg_sq_absmax", &adamw_tensor::exp_avg_sq_absmax, false);
    pointer("max_exp_avg_sq_absmax", &adamw_tensor::max_exp_avg_sq_absmax, false);
    pointer("exp_avg_sq_floor", &adamw_tensor::exp_avg_sq_floor, false);
    pointer("max_exp_avg_sq_floor", &adamw_tensor::max_exp_avg_sq_floor, false);
    pointer("gnorm_history", &adamw_tensor::gnorm_history, false);
    for (std::int64_t bad : {std::int64_t{-1}, INT64_MIN, INT64_MAX, (std::int64_t{1} << 58) + 1}) {
      invalid("numel", [=](adamw_tensor &t) { t.numel = bad; });
    }
    for (std::int64_t bad : {-1, 0, 41, 80, 3}) invalid("row_length", [=](adamw_tensor &t) { t.row_length = bad; });
    for (std::int64_t bad : {std::int64_t{0}, std::int64_t{-1}, INT64_MIN})
      invalid("step", [=](adamw_tensor &t) { t.step = bad; });
    for (float bad : {0.0f, 0.99f, -1.0f, 9e18f, INFINITY, NAN}) {
      invalid("step_tensor[0]", [&](adamw_tensor &t) { t.step_tensor = &bad; });
    }
    const float third = 3.0f;
    invalid("step_tensor|misaligned", [&](adamw_tensor &t) {
      t.step_tensor = reinterpret_cast<const float *>(reinterpret_cast<const char *>(&third) + 2);
    });
    invalid("step_tensor|overlaps|gnorm_history", [](adamw_tensor &t) { t.step_tensor = t.gnorm_history + 99; });
    for (std::int64_t bad : {std::int64_t{-1}, INT64_MIN, INT64_MAX})
      invalid("global_offset", [=](adamw_tensor &t) { t.global_offset = bad; });
    // 8 elements within another buffer, from both sides; written against written, and read against written.
    struct Place {
      const char *name;
      void *address;
      std::int64_t bytes;
    };
    const adamw_tensor &other = good[7], &own = good[static_cast<std::size_t>(at)];
    for (const Place &place :
         {Place{"param", other.param, 160}, Place{"exp_avg", other.exp_avg, 40},
          Place{"exp_avg_sq", other.exp_avg_sq, 40}, Place{"max_exp_avg_sq", other.max_exp_avg_sq, 40},
          Place{"gnorm_history", other.gnorm_history, 400}, Place{"grad", const_cast<void *>(other.grad), 160},
          Place{"exp_avg_sq", own.exp_avg_sq, 40}}) {
      const auto overlapping = [&](const char *name, const std::function<void(adamw_tensor &, char *)> &set,
                                   std::int64_t bytes) {
        for (std::int64_t shift : {-(bytes - 4), std::int64_t{0}, place.bytes - 4}) {
          for (adamw_tensor &t : model.rows) t.step = 2;
          set(model.rows[static_cast<std::size_t>(at)], static_cast<char *>(place.address) + shift);
          const adamw_status got = adamw_step(&model.options, model.rows.data(), sizeof(adamw_tensor), row_count);
          check_refused(model, got, ADAMW_ERROR_INVALID_ARGUMENT, before, "tensor " + std::to_string(at) + "|overlaps");
          const std::string message = adamw_last_error();
          CHECK(message.find(name) != std::string::npos, "%s: not %s", message.c_str(), name);
          model.rows = good;
        }
      };
      overlapping("param", [](adamw_tensor &t, char *p) { t.param = p; }, 160);
      if (std::strcmp(place.name, "grad") != 0) overlapping("grad", [](adamw_tensor &t, char *p) { t.grad = p; }, 160);
      overlapping("exp_avg", [](adamw_tensor &t, char *p) { t.exp_avg = p; }, 40);
      overlapping(
          "exp_avg_absmax", [](adamw_tensor &t, char *p) { t.exp_avg_absmax = reinterpret_cast<float *>(p); }, 4);
      overlapping(
          "exp_avg_sq_floor", [](adamw_tensor &t, char *p) { t.exp_avg_sq_floor = reinterpret_cast<float *>(p); }, 4);
    }
  }
}

// Law: the table itself is checked, and unused pointers are not.
void check_table() {
  Model model(everything(), many());
  model.run(1);
  const auto before = model.contents();
  const auto call = [&](const adamw_step_options *o, const void *rows, std::size_t size, std::int64_t count) {
    return adamw_step(o, static_cast<const adamw_tensor *>(rows), size, count);
  };
  constexpr std::size_t size = sizeof(adamw_tensor);
  const adamw_step_options &o = model.options;
  const void *rows = model.rows.data();
  check_refused(model, call(nullptr, rows, size, 1), ADAMW_ERROR_INVALID_ARGUMENT, before, "options is NULL");
  check_refused(model, call(&o, nullptr, size, 1), ADAMW_ERROR_INVALID_ARGUMENT, before, "tensors is NULL");
  check_refused(model, call(&o, static_cast<const char *>(rows) + 4, size, 1), ADAMW_ERROR_INVALID_ARGUMENT, before,
                "tensors|misaligned");
  for (std::size_t bad : {size - 32, size + 4, std::size_t{0}}) {
    check_refused(model, call(&o, rows, bad, 1), ADAMW_ERROR_VERSION, before, "tensor_size");
  }
  for (std::int64_t bad : {std::int64_t{-1}, INT64_MIN, INT64_MAX}) {
    check_refused(model, call(&o, rows, size, bad), ADAMW_ERROR_INVALID_ARGUMENT, before, "count");
  }
  CHECK(call(&o, nullptr, size, 0) == ADAMW_OK && std::strlen(adamw_last_error()) == 0, "no rows: %s",
        adamw_last_error());
  CHECK(model.contents() == before, "a call without rows wrote");
  adamw_tensor empty{};
  empty.step = 1;
  CHECK(call(&o, &empty, size, 1) == ADAMW_OK, "an empty row: %s", adamw_last_error());
  Model plain(step_options(), {{2, 20, 0}});
  adamw_tensor &t = plain.rows[0];
  t.max_exp_avg_sq = t.param;  // not used, so free to be anything
  t.exp_avg_absmax = t.exp_avg_sq_absmax = t.max_exp_avg_sq_absmax = t.gnorm_history = reinterpret_cast<float *>(1);
  t.exp_avg_sq_floor = t.max_exp_avg_sq_floor = t.gnorm_history;
  t.param_remainder = t.param;
  CHECK(plain.call(1) == ADAMW_OK, "pointers that the options do not use: %s", adamw_last_error());
}

// Law: two rows may share a gradient, and buffers may touch.
void check_allowed_neighbours() {
  Model model(step_options(), {{2, 20, 0}, {2, 20, 0}});
  std::vector<float> arena(120);
  model.rows[0].param = arena.data();
  model.rows[0].exp_avg = arena.data() + 40;
  model.rows[1].param = arena.data() + 80;
  model.rows[1].grad = model.rows[0].grad;
  CHECK(model.call(1) == ADAMW_OK, "%s", adamw_last_error());
}

}  // namespace

int main() {
  check_options();
  check_rows();
  check_table();
  check_allowed_neighbours();
  return finish();
}
