// Factorizes a matrix from C++17 with 8-bit optimizer state in std::vector, clips by the norm of all gradients, and
// goes on from a checkpoint of weights and state with the same bits. Errors of the library arrive as exceptions.
//
// Build: c++ -std=c++17 -O2 train.cpp $(pkg-config --cflags --libs libadamw) -o train; or CMakeLists.txt beside it.
// Run: ./train
#include <adamw.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

void check(adamw_status status) {
  if (status != ADAMW_OK)
    throw std::runtime_error(std::string(adamw_status_string(status)) + ": " + adamw_last_error());
}

// A matrix with its gradient and its optimizer state. Zeros are a fresh state.
class Matrix {
 public:
  Matrix(std::size_t rows, std::size_t columns) : value(rows * columns), gradient(value.size()), columns_(columns) {
    adamw_state_layout layout;
    check(adamw_get_state_layout(ADAMW_STATE_BLOCK8, numel(), row_length(), 0, 0, &layout));
    for (auto *codes : {&exp_avg_, &exp_avg_sq_}) codes->resize(static_cast<std::size_t>(layout.moment_bytes));
    for (auto *scales : {&absmax_, &absmax_sq_}) scales->resize(static_cast<std::size_t>(layout.absmax_count));
    floor_.resize(static_cast<std::size_t>(layout.floor_count));
    state_bytes = layout.total_bytes;
  }

  // A row of the table for adamw_step(). Taken anew for each step, so that a Matrix may be moved.
  adamw_tensor row(std::int64_t step) {
    adamw_tensor row{};
    row.param = value.data();
    row.grad = gradient.data();
    row.exp_avg = exp_avg_.data();
    row.exp_avg_sq = exp_avg_sq_.data();
    row.exp_avg_absmax = absmax_.data();
    row.exp_avg_sq_absmax = absmax_sq_.data();
    row.exp_avg_sq_floor = floor_.data();
    row.numel = numel();
    row.row_length = row_length();
    row.step = step;
    return row;
  }

  // Calls visit(vector) for all that a checkpoint must have.
  template <class Visit>
  void each_part(Visit visit) {
    visit(value), visit(exp_avg_), visit(exp_avg_sq_), visit(absmax_), visit(absmax_sq_), visit(floor_);
  }

  std::int64_t numel() const { return static_cast<std::int64_t>(value.size()); }
  std::int64_t row_length() const { return static_cast<std::int64_t>(columns_); }

  std::vector<float> value, gradient;
  std::int64_t state_bytes = 0;

 private:
  std::size_t columns_;
  std::vector<std::uint8_t> exp_avg_, exp_avg_sq_;
  std::vector<float> absmax_, absmax_sq_, floor_;
};

class AdamW {
 public:
  AdamW(std::vector<Matrix> given, double lr, double max_norm) : matrices(std::move(given)) {
    options_.state_format = ADAMW_STATE_BLOCK8;
    options_.lr = lr;
    options_.grad_factor = &factor_;
    clip_.max_norm = max_norm;
  }
  AdamW(const AdamW &) = delete;  // the options point into the object

  void step() {
    ++step_;
    std::vector<adamw_tensor> rows;
    std::vector<adamw_gradient> gradients;
    for (Matrix &matrix : matrices) {
      rows.push_back(matrix.row(step_));
      gradients.push_back({matrix.gradient.data(), matrix.numel(), ADAMW_FLOAT32, 0});
    }
    const auto count = static_cast<std::int64_t>(rows.size());
    double squares = 0.0;
    check(adamw_norm(&norm_, gradients.data(), sizeof(adamw_gradient), count, &squares));
    check(adamw_clip_factor(&clip_, &squares, 1, &grad_norm, &factor_));
    check(adamw_step(&options_, rows.data(), sizeof(adamw_tensor), count));
  }

  void save(const std::string &path) {
    std::ofstream file(path, std::ios::binary);
    file.exceptions(std::ios::failbit | std::ios::badbit);
    file.write(reinterpret_cast<const char *>(&step_), sizeof step_);
    each_part([&](auto &part) { file.write(reinterpret_cast<const char *>(part.data()), bytes(part)); });
    file.close();
  }

  void load(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    file.exceptions(std::ios::failbit | std::ios::badbit | std::ios::eofbit);
    file.read(reinterpret_cast<char *>(&step_), sizeof step_);
    each_part([&](auto &part) { file.read(reinterpret_cast<char *>(part.data()), bytes(part)); });
  }

  std::vector<Matrix> matrices;
  float grad_norm = 0.0f;  // before clipping

 private:
  template <class Visit>
  void each_part(Visit visit) {
    for (Matrix &matrix : matrices) matrix.each_part(visit);
  }
  template <class T>
  static std::streamsize bytes(const std::vector<T> &part) {
    return static_cast<std::streamsize>(part.size() * sizeof(T));
  }

  adamw_step_options options_ = ADAMW_STEP_OPTIONS_INIT;
  adamw_norm_options norm_ = ADAMW_NORM_OPTIONS_INIT;
  adamw_clip_options clip_ = ADAMW_CLIP_OPTIONS_INIT;
  float factor_ = 1.0f;
  std::int64_t step_ = 0;
};

// ---- the problem: a matrix of rank 4, as the product of two matrices of rank 8
// ----------------------------------------

constexpr std::size_t rows = 96, columns = 128, rank = 8;

std::vector<float> product(const std::vector<float> &left, const std::vector<float> &right, std::size_t inner) {
  std::vector<float> result(rows * columns);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t k = 0; k < inner; ++k) {
      for (std::size_t j = 0; j < columns; ++j) result[i * columns + j] += left[i * inner + k] * right[k * columns + j];
    }
  }
  return result;
}

void fill(std::vector<float> &values, float size, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, size);
  for (float &value : values) value = normal(engine);
}

AdamW new_run() {
  std::vector<Matrix> matrices;
  matrices.emplace_back(rows, rank);
  matrices.emplace_back(rank, columns);
  fill(matrices[0].value, 0.3f, 1);
  fill(matrices[1].value, 0.3f, 2);
  return AdamW(std::move(matrices), 1e-2, 1.0);
}

// Returns the mean squared error before the last step. The gradients are those of half the sum of squares.
double train(AdamW &optimizer, const std::vector<float> &target, int steps) {
  double loss = 0.0;
  for (int step = 0; step < steps; ++step) {
    Matrix &left = optimizer.matrices[0], &right = optimizer.matrices[1];
    std::vector<float> error = product(left.value, right.value, rank);
    loss = 0.0;
    for (std::size_t i = 0; i < error.size(); ++i) {
      error[i] -= target[i];
      loss += static_cast<double>(error[i]) * error[i] / static_cast<double>(error.size());
    }
    left.gradient.assign(left.gradient.size(), 0.0f);
    right.gradient.assign(right.gradient.size(), 0.0f);
    for (std::size_t i = 0; i < rows; ++i) {
      for (std::size_t k = 0; k < rank; ++k) {
        for (std::size_t j = 0; j < columns; ++j) {
          left.gradient[i * rank + k] += error[i * columns + j] * right.value[k * columns + j];
          right.gradient[k * columns + j] += error[i * columns + j] * left.value[i * rank + k];
        }
      }
    }
    optimizer.step();
  }
  return loss;
}

}  // namespace

int main() try {
  std::printf("%s\n", adamw_build_info());
  std::vector<float> left(rows * 4), right(4 * columns);
  fill(left, 1.0f, 3);
  fill(right, 1.0f, 4);
  const std::vector<float> target = product(left, right, 4);

  AdamW whole = new_run();
  const double early = train(whole, target, 1);
  train(whole, target, 199);
  whole.save("train.checkpoint");
  const double late = train(whole, target, 200);
  std::printf("loss %.4f -> %.4f, norm of the gradients %.2f, %d bytes of state\n", early, late, whole.grad_norm,
              static_cast<int>(whole.matrices[0].state_bytes + whole.matrices[1].state_bytes));

  AdamW resumed = new_run();
  resumed.load("train.checkpoint");
  train(resumed, target, 200);
  const bool same =
      whole.matrices[0].value == resumed.matrices[0].value && whole.matrices[1].value == resumed.matrices[1].value;
  std::printf("the resumed run ends with the same bits: %s\n", same ? "yes" : "no");
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
