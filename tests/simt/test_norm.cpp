// Owns the law that the norm of all gradients, and the factor that clips them, have the CPU's bits on a device.
#include <cmath>
#include <limits>

#include "both_sides.h"

using namespace simt;

namespace {

std::size_t launches() {
  std::size_t found = 0;
  for (const Call &call : fake().calls) found += call.function == "cuLaunchKernel";
  return found;
}

// Gradients of these lengths, of all dtypes in turn or of one.
struct Gradients {
  std::vector<Guarded> memory;
  std::vector<adamw_gradient> table;

  Gradients(const std::vector<std::int64_t> &lengths, int dtype, std::size_t shift, std::uint64_t seed) {
    Random random(seed);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      const auto own = static_cast<adamw_dtype>(dtype >= 0 ? dtype : static_cast<int>(i % 3));
      memory.emplace_back(lengths[i], size_of(own), shift);
      // Of all magnitudes; or of one, where the order of the additions shows.
      if (seed % 2 == 0) {
        fill(memory.back().at(), own, lengths[i], random);
      } else {
        fill_alike(memory.back().at(), own, lengths[i], some_zeros, -2, random);
      }
      table.push_back({lengths[i] != 0 ? memory.back().at() : nullptr, lengths[i], own, 0});
    }
  }
};

// Returns the sum of squares.
double check(Gradients &gradients, const char *what) {
  Guarded sums(4, 8, 0);
  auto *const squares = reinterpret_cast<double *>(sums.at());
  squares[0] = squares[1] = -1.0;
  for (std::int32_t device : {-1, 0}) {
    adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
    o.device = device;
    on(device, what, [&] {
      return adamw_norm(&o, gradients.table.data(), sizeof gradients.table[0],
                        static_cast<std::int64_t>(gradients.table.size()), squares + (device + 1));
    });
  }
  CHECK(std::memcmp(squares, squares + 1, 8) == 0 || (std::isnan(squares[0]) && std::isnan(squares[1])),
        "%s: %.17g on the CPU, %.17g on the device", what, squares[0], squares[1]);
  CHECK(sums.intact(), "%s: something beside the sum was written", what);
  for (Guarded &one : gradients.memory) CHECK(one.intact(), "%s: something beside a gradient was written", what);
  check_clean(what);
  return squares[0];
}

void check_norms() {
  const std::vector<std::int64_t> lengths[] = {
      {},    {0},    {0, 0, 0},           {1},         {255}, {256}, {257}, {16 * 256}, {33 * 256 + 1},
      {100}, {7, 0}, {0, 5000, 0, 0, 31}, {40000, 300}};
  std::uint64_t seed = 1;
  for (const auto &one : lengths) {
    for (int dtype = -1; dtype <= ADAMW_FLOAT16; ++dtype) {  // -1: all in turn
      for (std::size_t shift : {0, 1}) {
        Gradients gradients(one, dtype, shift, ++seed);
        char what[100];
        std::snprintf(what, sizeof what, "%zu gradients, dtype %d, shift %zu", one.size(), dtype, shift);
        check(gradients, what);
      }
    }
  }
}

// More than one launch carries, and what the fake driver counts: one launch for each table full of gradients.
void check_many() {
  std::vector<std::int64_t> lengths(3000, 40);
  lengths[7] = 0;
  lengths[2999] = 3000;
  Gradients many(lengths, -1, 0, 5);
  check(many, "3000 gradients");
  std::vector<std::int64_t> model(304, 300);
  Gradients few(model, ADAMW_FLOAT32, 0, 6);
  check(few, "304 gradients");
  const std::size_t before = launches();
  check(few, "304 gradients again");
  CHECK(launches() == before + 1, "304 gradients took %zu launches", launches() - before);
}

void check_no_numbers() {
  for (float odd : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    Gradients gradients({300, 5000}, ADAMW_FLOAT32, 0, 9);
    gradients.memory[1].floats()[4321] = odd;
    const double squares = check(gradients, "an odd number");
    CHECK(std::isnan(odd) ? std::isnan(squares) : std::isinf(squares), "%g became %g", static_cast<double>(odd),
          squares);
  }
}

void check_factors() {
  const double infinity = std::numeric_limits<double>::infinity();
  for (double sum : {0.0, 1e-300, 0.81, 4.0, 1e30, 1e90, infinity, std::nan("")}) {
    for (double max_norm : {0.0, 0.5, 1.0, 2.0, infinity}) {
      for (int count : {1, 2, 4096}) {
        for (float scale : {0.0f, 65536.0f}) {  // 0: none
          Guarded in(count, 8, 0), out(4, 4, 0), scales(1, 4, 0);
          auto *const squares = reinterpret_cast<double *>(in.at());
          for (int i = 0; i < count; ++i) squares[i] = i == count / 2 ? sum : 1e-3 * i;
          scales.floats()[0] = scale;
          for (std::int32_t device : {-1, 0}) {
            adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
            o.device = device, o.max_norm = max_norm;
            if (scale != 0.0f) o.grad_scale = scales.floats();
            float *const to = out.floats() + 2 * (device + 1);
            to[0] = to[1] = -1.0f;
            on(device, "a factor", [&] { return adamw_clip_factor(&o, squares, count, to, to + 1); });
          }
          const float *const to = out.floats();
          for (int k = 0; k < 2; ++k) {
            CHECK(bits_of(to[k]) == bits_of(to[k + 2]) || (std::isnan(to[k]) && std::isnan(to[k + 2])),
                  "sum %g, max_norm %g: %g on the CPU, %g on the device", sum, max_norm, static_cast<double>(to[k]),
                  static_cast<double>(to[k + 2]));
          }
          CHECK(out.intact() && in.intact(), "something beside the factor was written");
        }
      }
    }
  }
}

}  // namespace

int main() {
  gpu::replace_driver(fake_driver());
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  check_norms();
  check_many();
  check_no_numbers();
  check_factors();
  return finish();
}
