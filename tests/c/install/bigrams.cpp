// Owns the C++ example: a program with its own buffers (std::vector) and its own manner (RAII, exceptions) fits a
// bigram model of the letters of a text, with 32-bit and with 8-bit state. The best such model is known: its loss is
// the entropy of a letter given the one before it. Fails unless both come within 0.01 bits of that: pairs that never
// occur keep them apart, as the best weight of these is minus infinity. It must know no header of the library but
// adamw.h. usage: bigrams TEXT_FILE
#include <adamw.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

class Error : public std::runtime_error {
 public:
  explicit Error(adamw_status status)
      : std::runtime_error(std::string(adamw_status_string(status)) + ": " + adamw_last_error()) {}
};

void check(adamw_status status) {
  if (status != ADAMW_OK) throw Error(status);
}

// A matrix with its gradient and its optimizer state; zeros are a fresh state.
class Parameter {
 public:
  Parameter(std::int64_t rows, std::int64_t columns, adamw_state_format format)
      : value(static_cast<std::size_t>(rows * columns)), gradient(value.size()), row_length_(columns) {
    adamw_state_layout layout;
    check(adamw_get_state_layout(format, rows * columns, columns, 0, 0, &layout));
    exp_avg_.resize(static_cast<std::size_t>(layout.moment_bytes));
    exp_avg_sq_.resize(exp_avg_.size());
    exp_avg_absmax_.resize(static_cast<std::size_t>(layout.absmax_count));
    exp_avg_sq_absmax_.resize(exp_avg_absmax_.size());
    exp_avg_sq_floor_.resize(static_cast<std::size_t>(layout.floor_count));
    state_bytes = layout.total_bytes;
  }

  // The vectors' addresses are taken anew for every step, so that a Parameter may be moved like any other value.
  adamw_tensor tensor(std::int64_t step) {
    adamw_tensor row{};
    row.param = value.data();
    row.grad = gradient.data();
    row.exp_avg = exp_avg_.data();
    row.exp_avg_sq = exp_avg_sq_.data();
    row.exp_avg_absmax = exp_avg_absmax_.data();
    row.exp_avg_sq_absmax = exp_avg_sq_absmax_.data();
    row.exp_avg_sq_floor = exp_avg_sq_floor_.data();
    row.numel = static_cast<std::int64_t>(value.size());
    row.row_length = row_length_;
    row.step = step;
    return row;
  }

  std::vector<float> value, gradient;
  std::int64_t state_bytes;

 private:
  std::int64_t row_length_;
  std::vector<std::byte> exp_avg_, exp_avg_sq_;  // floats or 8-bit codes; what new gives is aligned for both
  std::vector<float> exp_avg_absmax_, exp_avg_sq_absmax_, exp_avg_sq_floor_;
};

class AdamW {
 public:
  AdamW(std::vector<Parameter> parameters, adamw_state_format format) : parameters(std::move(parameters)) {
    options.state_format = format;
    options.weight_decay = 0.0;
  }

  void step() {
    ++step_;
    rows_.clear();
    for (Parameter &parameter : parameters) rows_.push_back(parameter.tensor(step_));
    check(adamw_step(&options, rows_.data(), sizeof(adamw_tensor), static_cast<std::int64_t>(rows_.size())));
  }

  std::vector<Parameter> parameters;
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;

 private:
  std::vector<adamw_tensor> rows_;
  std::int64_t step_ = 0;
};

// How often the letter `next` follows the letter `previous`, as a share of all pairs; 32 letters: a to z, the rest by
// its code.
constexpr std::size_t letters = 32;
using Pairs = std::array<std::array<double, letters>, letters>;

std::size_t letter(char c) { return static_cast<unsigned char>(c) % letters; }

Pairs count_pairs(const std::string &text) {
  Pairs pairs{};
  for (std::size_t i = 1; i < text.size(); ++i) {
    pairs[letter(text[i - 1])][letter(text[i])] += 1.0 / static_cast<double>(text.size() - 1);
  }
  return pairs;
}

double sum(const std::array<double, letters> &row) {
  double total = 0.0;
  for (double x : row) total += x;
  return total;
}

double conditional_entropy(const Pairs &pairs) {
  double bits = 0.0;
  for (const auto &row : pairs) {
    for (double share : row) {
      if (share > 0.0) bits -= share * std::log2(share / sum(row));
    }
  }
  return bits;
}

// The model: log-probabilities up to a constant are weight[previous][next] + bias[next]. Fills in the gradients and
// returns the loss in bits a letter.
double evaluate(const Pairs &pairs, Parameter &weight, Parameter &bias) {
  double bits = 0.0;
  bias.gradient.assign(letters, 0.0f);
  for (std::size_t previous = 0; previous < letters; ++previous) {
    std::array<double, letters> likely;
    for (std::size_t next = 0; next < letters; ++next) {
      likely[next] = std::exp(weight.value[previous * letters + next] + bias.value[next]);
    }
    const double all = sum(likely), row = sum(pairs[previous]);
    for (std::size_t next = 0; next < letters; ++next) {
      const double share = pairs[previous][next];
      bits -= share * std::log2(likely[next] / all);
      const float slope = static_cast<float>(row * likely[next] / all - share);
      weight.gradient[previous * letters + next] = slope;
      bias.gradient[next] += slope;
    }
  }
  return bits;
}

double fit(const Pairs &pairs, adamw_state_format format, std::int64_t &state_bytes) {
  std::vector<Parameter> parameters;
  parameters.emplace_back(letters, letters, format);
  parameters.emplace_back(1, letters, format);
  AdamW optimizer(std::move(parameters), format);
  Parameter &weight = optimizer.parameters[0], &bias = optimizer.parameters[1];
  state_bytes = weight.state_bytes + bias.state_bytes;
  constexpr int steps = 600;
  for (int i = 0; i < steps; ++i) {
    optimizer.options.lr = 0.1 * (1.0 - static_cast<double>(i) / steps);
    evaluate(pairs, weight, bias);
    optimizer.step();
  }
  return evaluate(pairs, weight, bias);
}

// What the library refuses arrives as an exception with its words.
bool refusal_is_an_exception() {
  AdamW optimizer({}, ADAMW_STATE_FLOAT32);
  optimizer.options.lr = -1.0;
  try {
    optimizer.step();
  } catch (const Error &error) {
    return std::string(error.what()).find("lr") != std::string::npos;
  }
  return false;
}

}  // namespace

int main(int count, char **arguments) try {
  if (count != 2) throw std::invalid_argument("usage: bigrams TEXT_FILE");
  std::ifstream file(arguments[1]);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (text.size() < 10000) throw std::invalid_argument(std::string("no text of some length: ") + arguments[1]);
  const Pairs pairs = count_pairs(text);
  const double best = conditional_entropy(pairs);
  std::printf("%s\nthe best loss: %.4f bits a letter\n", adamw_build_info(), best);
  bool good = refusal_is_an_exception();
  for (const auto &[name, format] :
       {std::pair("32-bit", ADAMW_STATE_FLOAT32), std::pair("8-bit", ADAMW_STATE_BLOCK8)}) {
    std::int64_t state_bytes = 0;
    const double bits = fit(pairs, format, state_bytes);
    std::printf("%6s state, %5d bytes: %.4f\n", name, static_cast<int>(state_bytes), bits);
    good = good && bits > best - 1e-6 && bits < best + 0.01;
  }
  if (!good) std::printf("FAILED\n");
  return good ? 0 : 1;
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
