// Owns the laws of the 8-bit quantizer and of the random words: every kernel of this processor against the tables of
// codebook.h and definitions in double precision. (dtype conversions and fma: test_arithmetic.cpp.)
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/registers_scalar.h"
// The parts come first: vector.h is written against them.
#include "cpu/block_memory.h"
#include "cpu/dynamic_codes.h"
#include "cpu/kernels.h"
#include "cpu/vector.h"
#include "inputs.h"

using namespace adamw;

namespace {

struct Map {
  adamw_map id;
  const char *name;
  const float *values, *midpoints;
  int zero, midpoint_count, first;  // zero: its code; first: the magnitude that begins at midpoints[0]
  const float *negative_midpoints;
} const maps[] = {{ADAMW_MAP_SIGNED, "signed", signed_values, signed_midpoints, 127, 128, 1, signed_negative_midpoints},
                  {ADAMW_MAP_UNSIGNED, "unsigned", unsigned_values, unsigned_midpoints, 0, 254, 2, nullptr}};

int code_of_magnitude(const Map &map, int k, bool negative) { return std::max(map.zero + (negative ? -k : k), 0); }

// The code nearest to x by a search of the midpoints.
int nearest_code(const Map &map, float x) {
  const float a = std::fabs(x);
  const bool negative = x < 0.0f;
  if (a == 0.0f || (negative && map.zero == 0)) return map.zero;
  const float *midpoints = negative ? map.negative_midpoints : map.midpoints;
  const auto k = std::upper_bound(midpoints, midpoints + map.midpoint_count - negative, a) - midpoints;
  return code_of_magnitude(map, static_cast<int>(k) + map.first - 1, negative);
}

QuantizePlan plan_of(const Map &map, std::int64_t numel, bool stochastic = false, std::uint32_t key = 0,
                     std::int64_t offset = 0) {
  QuantizePlan plan{};
  plan.map = map.id;
  plan.format = ADAMW_STATE_TENSOR8;
  plan.stochastic = stochastic;
  plan.blocks = block_layout(numel, numel);
  plan.key = key;
  plan.global_offset = offset;
  return plan;
}

// Codes at scale 1.
std::vector<std::uint8_t> encode(const Kernels &kernels, const QuantizePlan &plan, const std::vector<float> &x) {
  std::vector<std::uint8_t> codes(x.size());
  float absmax;
  const Scale one = block_scale(1.0f);
  kernels.quantize(plan, x.data(), codes.data(), &absmax, &one, 0, plan.blocks.count);
  return codes;
}

// Law: rounding to nearest is the search of the midpoints: beside every midpoint and value, and on 2^22 floats of [0,
// 1] (abridged: 2^19).
void check_nearest(const Kernels &kernels, const Map &map) {
  std::vector<float> x;
  const auto around = [&x](float centre) {
    const std::uint32_t b = bits_of(centre);
    for (std::uint32_t d = 0; d <= 6; ++d) {
      if (b + d < 3) continue;
      const float a = float_from_bits(b + d - 3);
      if (a > 1.0f) continue;
      x.push_back(a);
      x.push_back(-a);
    }
  };
  for (int i = 0; i < map.midpoint_count; ++i) around(map.midpoints[i]);
  for (int i = map.zero; i < 256; ++i) around(map.values[i]);
  for (std::uint32_t b = 0; b <= 0x3F800000u; b += abridged ? 2042 : 254)
    x.push_back(float_from_bits((b & 256) != 0 ? b | 0x80000000u : b));
  for (std::uint32_t b = 0; b < 4; ++b) x.push_back(float_from_bits(b));
  const auto codes = encode(kernels, plan_of(map, static_cast<std::int64_t>(x.size())), x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(codes[i] == nearest_code(map, x[i]), "%s %s: %a became %d, nearest is %d", kernels.name, map.name,
          double{x[i]}, codes[i], nearest_code(map, x[i]));
  }
}

// Law: the midpoints lie halfway between values: to a ten-thousandth of the distance (positions are counted in 2^-15 of
// a code), except that the signed map's first one, which ends the line through zero, is only between 0 and the first
// value.
void check_midpoints(const Map &map) {
  for (int i = 0; i < map.midpoint_count; ++i) {
    const int k = i + map.first;
    if (map.zero + k > 255) continue;
    const double lo = map.values[map.zero + k - 1], hi = map.values[map.zero + k], middle = (lo + hi) / 2;
    const double tolerance = k == 1 ? (hi - lo) / 2 : (hi - lo) * 1e-4;
    CHECK(std::fabs(map.midpoints[i] - middle) <= tolerance, "%s: midpoint %d is %a, not %a", map.name, k,
          double{map.midpoints[i]}, middle);
  }
}

// Law: every byte decodes to its value in the table times absmax, rounded once.
void check_decode(const Kernels &kernels, const Map &map) {
  std::vector<std::uint8_t> codes(256);
  std::vector<float> target(256);
  for (int i = 0; i < 256; ++i) codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i);
  for (float absmax : {1.0f, 0.37f, 3e38f, 1.17549435e-38f, 0.0f}) {
    kernels.dequantize(plan_of(map, 256), codes.data(), &absmax, target.data(), 0, 1);
    for (int i = 0; i < 256; ++i) {
      const float expected = map.values[i] * absmax;
      CHECK(bits_of(target[static_cast<std::size_t>(i)]) == bits_of(expected), "%s %s: code %d decodes to %a, not %a",
            kernels.name, map.name, i, double{target[static_cast<std::size_t>(i)]}, double{expected});
    }
  }
}

// ---- stochastic rounding ----

// adamw.h promises a word per (key, index); this is its definition, written apart from math.h.
std::uint32_t word_by_definition(std::uint32_t key, std::uint64_t index) {
  const auto mix = [](std::uint32_t x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
  };
  static const std::uint32_t odd[] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu,
                                      0x165667B1u, 0xD3A2646Du, 0xFD7046C5u, 0xB55A4F09u};
  const std::uint64_t group = index / 8;
  const std::uint32_t upper = mix(key ^ static_cast<std::uint32_t>(group >> 32) * 0x85EBCA6Bu);
  return mix(static_cast<std::uint32_t>(group) ^ upper) * odd[index % 8];
}

// The neighbours of a magnitude and how far it is from the lower to the upper one.
struct Between {
  int lower;
  double fraction;
};
Between neighbours(const Map &map, float a) {
  const float *begin = map.values + map.zero, *above = std::upper_bound(begin, map.values + 256, a);
  const int lower = static_cast<int>(above - begin) - 1;
  if (above == map.values + 256) return {lower, 0.0};
  return {lower, (a - double{above[-1]}) / (double{above[0]} - above[-1])};
}

// How far the float arithmetic of a position may be off, in codes: slope and offset (each rounded to 2^-24 of up to
// 512), the fma, its third, and the sum (2^-16 each), and the noise's own 2^-15: below 2^-13 together.
constexpr double position_error = 0x1p-13;

// The word's upper 15 bits are the noise, from -1/2 to 1/2 of a code, and it moves the number up: magnitudes of
// negative numbers down. Then the mean over all words is the value. -1: too close to call.
int stochastic_code(const Map &map, float x, std::uint32_t word) {
  const float a = std::fabs(x);
  const Between b = neighbours(map, a);
  // exp_avg is rounded stochastically below a tenth only; a number above zero never gets the unsigned code 0.
  if (map.zero != 0 && a >= 0.1f) return nearest_code(map, x);
  if (map.zero == 0 && b.lower == 0) return a > 0.0f ? 1 : 0;
  const double u = (static_cast<double>(word >> 17 ^ 1u << 14) + 0.5) / 32768.0;
  const double excess = x < 0.0f ? b.fraction - u : u - (1.0 - b.fraction);
  if (std::fabs(excess) < position_error) return -1;
  return code_of_magnitude(map, b.lower + (excess > 0), x < 0.0f);
}

// Law: the code of element i is that of its own word, wherever the tensor starts (aligned, misaligned, across 2^35); so
// it is one of the two neighbours, and its mean over words is the number itself.
void check_stochastic(const Kernels &kernels, const Map &map) {
  constexpr std::int64_t n = 2000;
  const std::uint64_t offsets[] = {
      0, 8, 5, 1001, (1ull << 35) - 1024, (1ull << 35) - 1003, 1ull << 35, (3ull << 35) - 512, (1ull << 60) + 3};
  Random random(3);
  for (std::uint64_t offset : offsets) {
    for (int trial = 0; trial < 8; ++trial) {
      const std::uint32_t key = random.bits();
      std::vector<float> x(n);
      // Magnitudes from the signed map's third value on: below, its lines lead to zero less exactly (see
      // check_midpoints).
      const float smallest = map.zero != 0 ? map.values[map.zero + 3] : 0.0f;
      for (float &e : x) e = std::max(std::ldexp(static_cast<float>(random.unit()), -random.below(20)), smallest);
      if (map.zero != 0)
        for (float &e : x) e = (random.bits() & 1) != 0 ? -e : e;
      const auto codes = encode(kernels, plan_of(map, n, true, key, static_cast<std::int64_t>(offset)), x);
      for (std::size_t i = 0; i < x.size(); ++i) {
        const int expected = stochastic_code(map, x[i], word_by_definition(key, offset + i));
        const int below = neighbours(map, std::fabs(x[i])).lower, k = std::abs(codes[i] - map.zero);
        CHECK(k == below || k == below + 1, "%s %s: %a became %d, between other values", kernels.name, map.name,
              double{x[i]}, codes[i]);
        CHECK(expected == -1 || codes[i] == expected, "%s %s: %a at %llu became %d, its word says %d", kernels.name,
              map.name, double{x[i]}, static_cast<unsigned long long>(offset + i), codes[i], expected);
      }
    }
  }
}

// The codes of one number for `count` evenly spaced words.
std::vector<int> codes_of_all_words(const Map &map, float x, int count) {
  std::vector<int> result(static_cast<std::size_t>(count));
  std::uint32_t words[lanes];
  std::uint8_t codes[lanes];
  for (int at = 0; at < count; at += lanes) {
    for (int i = 0; i < lanes; ++i)
      words[i] = static_cast<std::uint32_t>(at + i) * static_cast<std::uint32_t>(0x100000000ll / count);
    const I noise = noise_of(load(words));
    store_codes(codes, map.zero != 0 ? encode_signed(V(x), V(encode_unit), noise, signed_map)
                                     : encode_unsigned(V(x), V(encode_unit), noise, unsigned_map));
    for (int i = 0; i < lanes; ++i) result[static_cast<std::size_t>(at + i)] = codes[i];
  }
  return result;
}

// Law: zero stays zero whatever the word; what is not zero never becomes the unsigned map's zero; 1 stays 1, in the
// unsigned map up to the arithmetic.
void check_every_word(const Map &map) {
  constexpr int all = abridged ? 1 << 16 : 1 << 22;  // the noise of a word has 15 bits
  const auto every = [&](float x, int lowest, int highest) {
    for (int code : codes_of_all_words(map, x, all)) {
      CHECK(code >= lowest && code <= highest, "%s: %a became %d", map.name, double{x}, code);
    }
  };
  every(0.0f, map.zero, map.zero);
  every(1.0f, map.zero != 0 ? 255 : 254, 255);
  const auto ones = codes_of_all_words(map, 1.0f, all);
  CHECK(std::count(ones.begin(), ones.end(), 254) <= all * position_error, "%s: 1 became 254", map.name);
  if (map.zero == 0) every(0x1p-149f, 1, 1);
  if (map.zero != 0) every(-0.0f, 127, 127);
  if (map.zero != 0) every(-1.0f, 0, 0);
}

// Law: the mean over evenly spaced words is the number. Their spacing adds 1 / count to the arithmetic's own error.
void check_unbiased(const Map &map) {
  constexpr int count = 1 << 14;
  Random random(4);
  for (int k = map.zero != 0 ? 3 : 2; k + map.zero < 255; ++k) {
    if (map.zero != 0 && k >= 63) break;
    const double lo = map.values[map.zero + k], hi = map.values[map.zero + k + 1];
    const float x = static_cast<float>(lo + (hi - lo) * random.unit());
    double mean = 0.0;
    for (int code : codes_of_all_words(map, x, count)) mean += double{map.values[code]} / count;
    CHECK(std::fabs(mean - x) <= (hi - lo) * (position_error + 1.0 / count), "%s: mean of %a is %a", map.name,
          double{x}, mean);
  }
}

// Law: the vector loop of the words gives each element its own word, wherever it starts.
void check_words() {
  for (std::uint64_t start : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{3}, (std::uint64_t{1} << 35) - 64,
                              (std::uint64_t{1} << 35) - 256, (std::uint64_t{1} << 35) - 61, std::uint64_t{1} << 61,
                              ~std::uint64_t{0} - 500}) {
    std::uint32_t words[ADAMW_BLOCK_SIZE];
    fill_words(words, 0xABCDEF01u, start, ADAMW_BLOCK_SIZE);
    for (unsigned i = 0; i < ADAMW_BLOCK_SIZE; ++i) {
      CHECK(words[i] == word_by_definition(0xABCDEF01u, start + i), "word %u from %llu", i,
            static_cast<unsigned long long>(start));
      CHECK(words[i] == random_word(0xABCDEF01u, start + i), "random_word %u from %llu", i,
            static_cast<unsigned long long>(start));
    }
  }
}

// Law: what cannot be a number counts as zero, alone; block maxima are exact; a block too small to keep is zero.
void check_sanitizing(const Kernels &kernels, const Map &map) {
  std::vector<float> x(300, 0.25f);
  x[5] = NAN, x[6] = INFINITY, x[7] = -INFINITY, x[8] = -0.5f, x[299] = 1e-39f;
  for (std::size_t i = 256; i < 299; ++i) x[i] = 0.0f;
  std::vector<std::uint8_t> codes(300);
  float absmax[2];
  QuantizePlan plan = plan_of(map, 300);
  plan.format = ADAMW_STATE_BLOCK8;
  kernels.quantize(plan, x.data(), codes.data(), absmax, nullptr, 0, 2);
  const float largest = map.zero != 0 ? 0.5f : 0.25f;
  CHECK(absmax[0] == largest && absmax[1] == 0.0f, "%s %s: %a %a", kernels.name, map.name, double{absmax[0]},
        double{absmax[1]});
  for (std::size_t i = 0; i < 300; ++i) {
    const bool nothing = (i >= 5 && i <= 7) || i >= 256 || (i == 8 && map.zero == 0);
    const int expected = nothing ? map.zero : nearest_code(map, x[i] / largest);
    CHECK(codes[i] == expected, "%s %s: element %zu became %d, not %d", kernels.name, map.name, i, codes[i], expected);
  }
  CHECK(kernels.largest(plan, x.data(), 0, 2) == largest, "%s %s", kernels.name, map.name);
}

}  // namespace

int main() {
  CHECK(!usable_kernels().empty(), "no kernel at all");
  check_words();
  for (const Map &map : maps) {
    check_midpoints(map);
    check_every_word(map);
    check_unbiased(map);
    for (const Kernels *kernels : usable_kernels()) {
      check_nearest(*kernels, map);
      check_decode(*kernels, map);
      check_stochastic(*kernels, map);
      check_sanitizing(*kernels, map);
    }
  }
  return finish();
}
