// Owns the law of test_validate.cpp for the other functions: layout, quantize, dequantize, threads.
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "inputs.h"

namespace {

constexpr std::int64_t n = 600;

struct Buffers {
  std::vector<float> values = std::vector<float>(n, 0.5f), absmax = std::vector<float>(3, 7.0f),
                     floor = std::vector<float>(3, 0.25f);
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(n, 9);
  bool operator==(const Buffers &o) const {
    return values == o.values && absmax == o.absmax && floor == o.floor && codes == o.codes;
  }
};

adamw_quantize_options good() {
  adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
  o.moment = ADAMW_MOMENT_EXP_AVG_SQ;
  o.numel = n;
  o.row_length = n;
  return o;
}

// Both directions refuse it, name the function and `words`, and leave every buffer as it was.
void refused(const adamw_quantize_options *o, const char *words, adamw_status status = ADAMW_ERROR_INVALID_ARGUMENT) {
  Buffers b;
  const Buffers before = b;
  for (int back = 0; back < 2; ++back) {
    const adamw_status got =
        back == 0 ? adamw_quantize(o, b.values.data(), b.codes.data(), b.absmax.data(), b.floor.data())
                  : adamw_dequantize(o, b.codes.data(), b.absmax.data(), b.floor.data(), b.values.data());
    const std::string message = adamw_last_error();
    CHECK(got == status, "%s: got %s", words, adamw_status_string(got));
    CHECK(message.find(words) != std::string::npos, "\"%s\" lacks \"%s\"", message.c_str(), words);
    CHECK(message.find(back == 0 ? "adamw_quantize: " : "adamw_dequantize: ") == 0, "%s", message.c_str());
    CHECK(b == before, "%s: a buffer has changed", words);
  }
}

template <class Field, class... Values>
void each(Field adamw_quantize_options::*field, const char *words, Values... values) {
  for (Field value : {static_cast<Field>(values)...}) {
    adamw_quantize_options o = good();
    o.*field = value;
    refused(&o, words);
  }
}

void check_options() {
  refused(nullptr, "options is NULL");
  for (std::size_t size : {sizeof(adamw_quantize_options) - 16, sizeof(adamw_quantize_options) + 4, std::size_t{0}}) {
    adamw_quantize_options o = good();
    o.size = size;
    refused(&o, "options.size", ADAMW_ERROR_VERSION);
  }
  using O = adamw_quantize_options;
  each(&O::moment, "options.moment", -1, 2);
  each(&O::state_format, "options.state_format", ADAMW_STATE_FLOAT32, ADAMW_STATE_BFLOAT16, -1, 4);
  each(&O::rounding, "options.rounding", -1, 2);
  each(&O::device, "options.device", -2);
  each(&O::num_threads, "options.num_threads", -1, INT32_MIN);
  each(&O::reserved, "options.reserved", 1, -1);
  each(&O::numel, "numel", -1, INT64_MIN, INT64_MAX);
  each(&O::row_length, "row_length", 0, -1, 7, n + 1, 2 * n);
  each(&O::step, "options.step", -1, INT64_MIN);
  each(&O::global_offset, "options.global_offset", -1, INT64_MIN, INT64_MAX);
  adamw_quantize_options o = good();
  o.device = 0;
  refused(&o, "CPU build", ADAMW_ERROR_UNSUPPORTED);
}

void check_buffers() {
  Buffers b;
  const Buffers before = b;
  const adamw_quantize_options o = good();
  const auto shifted = [](auto *p, int by) { return reinterpret_cast<decltype(p)>(reinterpret_cast<char *>(p) + by); };
  float *const values = b.values.data(), *const absmax = b.absmax.data(), *const floor = b.floor.data();
  std::uint8_t *const codes = b.codes.data();
  const auto inside = reinterpret_cast<std::uint8_t *>(values);
  const struct {
    float *values;
    std::uint8_t *codes;
    float *absmax, *floor;
    const char *words, *also;
  } cases[] = {{nullptr, codes, absmax, floor, "e", "NULL"},
               {values, nullptr, absmax, floor, "codes", "NULL"},
               {values, codes, nullptr, floor, "absmax", "NULL"},
               {values, codes, absmax, nullptr, "floor", "NULL"},
               {shifted(values, 2), codes, absmax, floor, "misaligned", "multiple of 4"},
               {values, codes, shifted(absmax, 1), floor, "absmax", "misaligned"},
               {values, codes, absmax, shifted(floor, 2), "floor", "misaligned"},
               {values, inside + 4 * n - 1, absmax, floor, "codes", "overlaps"},
               {values, inside - (n - 1), absmax, floor, "codes", "overlaps"},
               {values, codes, values + n - 1, floor, "absmax", "overlaps"},
               {values, codes, values - 2, floor, "absmax", "overlaps"},
               {values, codes, absmax, values + n - 1, "floor", "overlaps"},
               {values, codes, absmax, values - 2, "floor", "overlaps"}};
  for (const auto &c : cases) {
    for (int back = 0; back < 2; ++back) {
      const adamw_status got = back == 0 ? adamw_quantize(&o, c.values, c.codes, c.absmax, c.floor)
                                         : adamw_dequantize(&o, c.codes, c.absmax, c.floor, c.values);
      const std::string message = adamw_last_error();
      CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT && message.find(c.words) != std::string::npos &&
                message.find(c.also) != std::string::npos,
            "%s %s: %s", c.words, c.also, message.c_str());
      CHECK(b == before, "%s %s: a buffer has changed", c.words, c.also);
    }
  }
  // quantize writes codes, absmax and floor: they must not overlap either.
  auto *const on_absmax = reinterpret_cast<std::uint8_t *>(absmax);
  CHECK(adamw_quantize(&o, values, on_absmax, absmax, floor) == ADAMW_ERROR_INVALID_ARGUMENT && b == before,
        "codes on absmax");
  CHECK(adamw_quantize(&o, values, codes, absmax, absmax + 2) == ADAMW_ERROR_INVALID_ARGUMENT && b == before,
        "floor on absmax");
  // For exp_avg, floor is not used: NULL will do, and so will any pointer.
  adamw_quantize_options without = good();
  without.moment = ADAMW_MOMENT_EXP_AVG;
  for (float *unused : {static_cast<float *>(nullptr), shifted(floor, 1), values, absmax}) {
    Buffers c = before;
    CHECK(adamw_quantize(&without, c.values.data(), c.codes.data(), c.absmax.data(), unused) == ADAMW_OK, "%s",
          adamw_last_error());
    CHECK(adamw_dequantize(&without, c.codes.data(), c.absmax.data(), unused, c.values.data()) == ADAMW_OK, "%s",
          adamw_last_error());
    CHECK(b == before && c.floor == before.floor, "a floor that is not used has changed");
  }
  adamw_quantize_options empty = good();
  empty.numel = 0;
  CHECK(adamw_quantize(&empty, nullptr, nullptr, nullptr, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(adamw_dequantize(&empty, nullptr, nullptr, nullptr, nullptr) == ADAMW_OK, "%s", adamw_last_error());
}

void check_others() {
  const adamw_state_layout untouched = {-7, -7, -7, -7, -7, -7};
  adamw_state_layout layout = untouched;
  const auto refused_layout = [&](int format, std::int64_t numel, std::int64_t row_length, const char *words,
                                  std::int32_t bits = 0) {
    const adamw_status got =
        adamw_get_state_layout(static_cast<adamw_state_format>(format), numel, row_length, 0, bits, &layout);
    CHECK(got == ADAMW_ERROR_INVALID_ARGUMENT && std::strstr(adamw_last_error(), words) != nullptr, "%s: %s", words,
          adamw_last_error());
    CHECK(std::memcmp(&layout, &untouched, sizeof layout) == 0, "%s: the layout has changed", words);
  };
  for (int bad : {-1, 4}) refused_layout(bad, n, n, "format");
  for (std::int32_t bad : {-1, 1, 4, 24, 32, INT32_MIN, INT32_MAX}) refused_layout(1, n, n, "remainder_bits", bad);
  refused_layout(1, -1, 1, "numel");
  refused_layout(1, INT64_MAX, 1, "numel");
  for (std::int64_t bad : {std::int64_t{0}, std::int64_t{-5}, std::int64_t{7}, n + 1})
    refused_layout(1, n, bad, "row_length");
  CHECK(adamw_get_state_layout(ADAMW_STATE_BLOCK8, n, n, 0, 0, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT, "layout NULL");

  // The layouts that adamw.h describes: {format, numel, row_length} -> {moment bytes, scales and floors, blocks per
  // row}.
  const std::int64_t known[][6] = {
      {0, 1000, 1000, 4000, 0, 0}, {1, 1000, 1000, 1000, 4, 0}, {1, 1000, 100, 1000, 10, 1}, {1, 900, 300, 900, 6, 2},
      {1, 630, 63, 630, 3, 0},     {1, 1024, 512, 1024, 4, 0},  {1, 640, 64, 640, 10, 1},    {2, 1000, 100, 1000, 1, 0},
      {3, 1000, 100, 2000, 0, 0},  {1, 0, 0, 0, 0, 0},          {2, 0, 0, 0, 0, 0},          {3, 0, 0, 0, 0, 0}};
  for (const auto &k : known) {
    CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(k[0]), k[1], k[2], 0, 0, &layout) == ADAMW_OK, "%s",
          adamw_last_error());
    CHECK(layout.moment_bytes == k[3] && layout.absmax_count == k[4] && layout.blocks_per_row == k[5] &&
              layout.floor_count == k[4] && layout.total_bytes == 2 * (k[3] + 4 * k[4]) + 4 * k[4],
          "format %d, %d in rows of %d", static_cast<int>(k[0]), static_cast<int>(k[1]), static_cast<int>(k[2]));
    const adamw_state_layout two = layout;
    CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(k[0]), k[1], k[2], 1, 0, &layout) == ADAMW_OK &&
              layout.total_bytes == two.total_bytes + k[3] + 8 * k[4] && layout.floor_count == k[4],
          "format %d with amsgrad", static_cast<int>(k[0]));
    for (int bits : {8, 16}) {
      adamw_state_layout with = untouched;
      CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(k[0]), k[1], k[2], 0, bits, &with) == ADAMW_OK &&
                with.remainder_bytes == k[1] * bits / 8 && with.total_bytes == two.total_bytes + with.remainder_bytes,
            "format %d, %d bits more", static_cast<int>(k[0]), bits);
      with.total_bytes -= with.remainder_bytes, with.remainder_bytes = 0;
      CHECK(std::memcmp(&with, &two, sizeof two) == 0, "%d bits change the layout of moments", bits);
    }
  }

  const std::int32_t threads = adamw_get_num_threads();
  CHECK(threads >= 1 && adamw_set_num_threads(-1) == ADAMW_ERROR_INVALID_ARGUMENT && adamw_get_num_threads() == threads,
        "threads");
  CHECK(adamw_set_num_threads(5) == ADAMW_OK && adamw_get_num_threads() == 5 && adamw_set_num_threads(0) == ADAMW_OK,
        "threads");
  CHECK(adamw_cpu_kernel(nullptr) == ADAMW_ERROR_INVALID_ARGUMENT, "a kernel's name to NULL");
}

}  // namespace

int main() {
  check_options();
  check_buffers();
  check_others();
  return finish();
}
