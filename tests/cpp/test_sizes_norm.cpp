// Owns the laws of struct sizes, see test_sizes.cpp, for the norm of all gradients.
#include "sizes.h"

namespace {

// Law: the same for the norm of all gradients and its factor.
void check_norm_options() {
  std::vector<float> grad(600, 0.5f);
  const adamw_gradient gradient{grad.data(), 600, ADAMW_FLOAT32, 0};
  const adamw_norm_options norm = ADAMW_NORM_OPTIONS_INIT;
  double sum = 0.0;
  check_options(
      "adamw_norm_options", norm, sizeof norm,
      [&](const adamw_norm_options *options) {
        sum = -1.0;
        return adamw_norm(options, &gradient, sizeof gradient, 1, &sum);
      },
      [&] { return sum == 150.0; }, [&] { return sum == -1.0; });
  const adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
  const double squares = 16.0;
  float out[2] = {};
  check_options(
      "adamw_clip_options", clip, sizeof clip,
      [&](const adamw_clip_options *options) {
        out[0] = out[1] = -1.0f;
        return adamw_clip_factor(options, &squares, 1, out, out + 1);
      },
      [&] { return out[0] == 4.0f && out[1] == static_cast<float>(1.0 / (4.0 + 1e-6)); },
      [&] { return out[0] == -1.0f && out[1] == -1.0f; });
}

// Law: a table of gradients in any size has the same sum, whose bits are those of the first time; one byte that is
// unknown in any of them, and nothing is written.
void check_gradients() {
  constexpr std::size_t known = sizeof(adamw_gradient), count = 3;
  std::vector<float> grad(600, 0.1f);
  const adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
  double first = -1.0, sum = -1.0;
  for (std::size_t size = known; size <= largest; size += size < known + 16 ? 8 : 1000) {
    std::vector<std::uint64_t> words(count * size / 8);
    const auto at = [&](std::size_t i) { return reinterpret_cast<unsigned char *>(words.data()) + i * size; };
    const auto norm = [&] {
      return adamw_norm(&o, reinterpret_cast<const adamw_gradient *>(words.data()), size, count, &sum);
    };
    for (std::size_t i = 0; i < count; ++i) {
      const adamw_gradient g{grad.data() + 7 * i, static_cast<std::int64_t>(100 * i + 1), ADAMW_FLOAT32, 0};
      std::memcpy(at(i), &g, known);
    }
    CHECK(norm() == ADAMW_OK, "gradients of %zu bytes: %s", size, adamw_last_error());
    if (size == known) first = sum;
    CHECK(std::memcmp(&sum, &first, sizeof sum) == 0, "gradients of %zu bytes: %.17g", size, sum);
    sum = -1.0;
    for (std::size_t i : {std::size_t{0}, count - 1}) {
      for (std::size_t byte : {known, size - 1}) {
        if (byte >= size || byte < known) continue;
        at(i)[byte] = 9;
        check_refused(norm(),
                      "tensor " + std::to_string(i) + ": gradient_size = " + std::to_string(size) + ", and byte " +
                          std::to_string(byte) + " is 9",
                      "a gradient");
        CHECK(sum == -1.0, "gradient %zu, byte %zu: something was written", i, byte);
        at(i)[byte] = 0;
      }
    }
  }
  const std::vector<adamw_gradient> table(count, {grad.data(), 600, ADAMW_FLOAT32, 0});
  for (std::size_t size : wrong_sizes(known, known)) {
    const std::string words = "gradient_size = " + std::to_string(size);
    for (std::int64_t n : {0, 3}) check_refused(adamw_norm(&o, table.data(), size, n, &sum), words, "gradients");
  }
  const adamw_status status = adamw_norm(&o, table.data(), largest, std::int64_t{1} << 54, &sum);
  CHECK(status == ADAMW_ERROR_INVALID_ARGUMENT && std::strstr(adamw_last_error(), "pass the end of memory") != nullptr,
        "2^54 gradients of 4096 bytes: status %d: %s", status, adamw_last_error());
  CHECK(sum == -1.0, "something was written");
}

}  // namespace

int main() {
  check_norm_options();
  check_gradients();
  const adamw_norm_options norm = ADAMW_NORM_OPTIONS_INIT;
  const adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
  check_init("adamw_norm_options_init", adamw_norm_options_init, norm, 24);
  check_init("adamw_clip_options_init", adamw_clip_options_init, clip, 40);
  return finish();
}
