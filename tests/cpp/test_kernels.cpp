// Owns the laws of the 8-bit quantizer and of the random words: every kernel of this processor against codes.h and
// definitions in double precision. (The codes by themselves: test_codes.cpp. dtypes and fma: test_arithmetic.cpp.)
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/registers_scalar.h"
// The parts come first: vector.h is written against them.
#include "codes.h"
#include "cpu/block_memory.h"
#include "cpu/kernels.h"
#include "cpu/vector.h"
#include "words.h"

using namespace adamw;

namespace {

// What is quantized: a moment, in units of absmax down to a smallest number. exp_avg has one, of no meaning.
struct Kind {
  adamw_moment moment;
  float absmax, smallest;

  bool is_signed() const { return moment == ADAMW_MOMENT_EXP_AVG; }
  Scale scale() const { return RootCodes::scale_one(is_signed(), {absmax, smallest * absmax}); }
  std::string name() const {
    return (is_signed() ? "exp_avg" : "exp_avg_sq from " + std::to_string(smallest)) + " of " + std::to_string(absmax);
  }
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  for (float absmax : {1.0f, 0x1.9p-77f, 0x1.fffffep127f, 0x1p-126f}) {
    all.push_back({ADAMW_MOMENT_EXP_AVG, absmax, 0.0f});
    for (float smallest : {0.0f, 0x1p-60f, 1e-6f, 0x1p-8f, 0.3f, 1.0f - 0x1p-10f, 1.0f - 0x1p-20f, 1.0f})
      all.push_back({ADAMW_MOMENT_EXP_AVG_SQ, absmax, smallest});
  }
  return all;
}

QuantizePlan plan_of(adamw_moment moment, std::int64_t numel, bool stochastic = false, std::uint32_t key = 0,
                     std::int64_t offset = 0) {
  QuantizePlan plan{};
  plan.moment = moment;
  plan.format = ADAMW_STATE_TENSOR8;
  plan.stochastic = stochastic;
  plan.blocks = block_layout(numel, numel);
  plan.key = key;
  plan.global_offset = offset;
  return plan;
}

std::vector<std::uint8_t> encode(const Kernels &kernels, const Kind &kind, const QuantizePlan &plan,
                                 const std::vector<float> &x) {
  std::vector<std::uint8_t> codes(x.size());
  float absmax, floor;
  const Scale scale = kind.scale();
  kernels.quantize(plan, x.data(), codes.data(), {{&absmax, &floor}}, &scale, 0, plan.blocks.count);
  return codes;
}

// Where x is among the codes: exp_avg's from -127 to 127.
double position_of(const Kind &kind, const Scale &scale, float x) {
  const float scaled = std::fabs(x) * scale.inverse;
  if (kind.is_signed()) return std::copysign(exp_avg_position(scaled), x);
  const double position = std::clamp(exp_avg_sq_position(scaled, scale.floor), 0.0, 255.0);
  return scale.floor == floor_of_zeros ? std::max(position, 1.0) : position;
}

// The code that a word gives; 0: that of nearest rounding. -1: too close to call.
int expected_code(const Kind &kind, const Scale &scale, float x, std::uint32_t word) {
  if (x == 0.0f) return kind.is_signed() ? 128 : 0;
  // exp_avg is rounded stochastically below a sixteenth only.
  if (kind.is_signed() && std::fabs(x * scale.inverse) >= 0.0625f) word = 0;
  const int code = code_at(position_of(kind, scale, x), word);
  return code == -1 ? -1 : kind.is_signed() ? code + 128 : code;
}

// Numbers of a kind: its extremes and their neighbours, and others in between. With signs if it has them.
std::vector<float> numbers_of(const Kind &kind, std::size_t count) {
  const std::uint32_t least = bits_of(kind.is_signed() ? 0.0f : kind.smallest * kind.absmax),
                      most = bits_of(kind.absmax);
  std::vector<float> x;
  for (std::uint32_t d = 0; d < 20 && d <= most - least; ++d) {
    x.push_back(float_from_bits(least + d));
    x.push_back(float_from_bits(most - d));
  }
  Random random(3);
  while (x.size() < count) {  // evenly in their logarithms, and from the upper half
    const double all = static_cast<double>(most - least) * random.unit();
    const float one = float_from_bits(least + static_cast<std::uint32_t>(all));
    x.push_back(x.size() % 2 == 0 ? one : std::max(one, kind.absmax * static_cast<float>(random.unit())));
  }
  x.resize(count);
  if (kind.is_signed())
    for (float &e : x) e = (random.bits() & 1) != 0 ? -e : e;
  return x;
}

// Law: rounding to nearest takes the code that is nearest to the position.
void check_nearest(const Kernels &kernels, const Kind &kind) {
  const std::vector<float> x = numbers_of(kind, abridged ? 1 << 12 : 1 << 15);
  const auto codes = encode(kernels, kind, plan_of(kind.moment, static_cast<std::int64_t>(x.size())), x);
  const Scale scale = kind.scale();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const int expected = expected_code(kind, scale, x[i], 0);
    CHECK(expected == -1 || codes[i] == expected, "%s %s: %a became %d, nearest is %d", kernels.name,
          kind.name().c_str(), double{x[i]}, codes[i], expected);
  }
}

// Law: every byte decodes to its power, of a float that is rounded once, times absmax, rounded once.
void check_decode(const Kernels &kernels) {
  std::vector<std::uint8_t> codes(256);
  std::vector<float> target(256);
  for (int i = 0; i < 256; ++i) codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(i);
  for (float absmax : {1.0f, 0.37f, 3e38f, 1.17549435e-38f, 0.0f}) {
    kernels.dequantize(plan_of(ADAMW_MOMENT_EXP_AVG, 256), codes.data(), {{&absmax, nullptr}}, target.data(), 0, 1);
    for (int i = 0; i < 256; ++i) {
      const float t = static_cast<float>(i - 128) * (1.0f / 127.0f);
      const float value = std::copysign(static_cast<float>(power_of(std::fabs(double{t}), 2)), t) * absmax;
      CHECK(target[static_cast<std::size_t>(i)] == value, "%s exp_avg: code %d decodes to %a, not %a", kernels.name, i,
            double{target[static_cast<std::size_t>(i)]}, double{value});
    }
    for (float floor : {0.0f, floor_of_zeros, 1e-3f, 0.3f, 0.77f, 1.0f - 0x1p-20f, 1.0f - 0x1p-24f, 1.0f}) {
      kernels.dequantize(plan_of(ADAMW_MOMENT_EXP_AVG_SQ, 256), codes.data(), {{&absmax, &floor}}, target.data(), 0, 1);
      for (int i = 0; i < 256; ++i) {
        const float t = std::fma(static_cast<float>(i), (1.0f - floor) * (1.0f / 255.0f), floor);
        const float value = static_cast<float>(power_of(double{t}, 3)) * absmax;
        CHECK(target[static_cast<std::size_t>(i)] == value, "%s floor %a: code %d decodes to %a, not %a", kernels.name,
              double{floor}, i, double{target[static_cast<std::size_t>(i)]}, double{value});
      }
    }
  }
}

// ---- stochastic rounding ----

// Law: the code of element i is that of its own word, wherever the tensor starts (aligned, misaligned, across 2^35); so
// it is one of the two neighbours, and its mean over words is the position.
void check_stochastic(const Kernels &kernels, const Kind &kind) {
  constexpr std::int64_t n = 2000;
  const std::uint64_t offsets[] = {
      0, 8, 5, 1001, (1ull << 35) - 1024, (1ull << 35) - 1003, 1ull << 35, (3ull << 35) - 512, (1ull << 60) + 3};
  Random random(3);
  const std::vector<float> x = numbers_of(kind, n);
  const Scale scale = kind.scale();
  for (std::uint64_t offset : offsets) {
    const std::uint32_t key = random.bits();
    const auto codes = encode(kernels, kind, plan_of(kind.moment, n, true, key, static_cast<std::int64_t>(offset)), x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const int expected = expected_code(kind, scale, x[i], word_by_definition(key, offset + i));
      CHECK(expected == -1 || codes[i] == expected, "%s %s: %a at %llu became %d, its word says %d", kernels.name,
            kind.name().c_str(), double{x[i]}, static_cast<unsigned long long>(offset + i), codes[i], expected);
    }
  }
}

// Law: over all noise, a number gets the two codes beside its position only, the upper one as often as it lies above
// the lower: to the error of the position and of the count.
void check_every_noise(const Kind &kind) {
  const Scale scale = kind.scale();
  const int zero = kind.is_signed() ? 128 : 0;
  for (float x : numbers_of(kind, abridged ? 60 : 400)) {
    if (kind.is_signed() && std::fabs(x * scale.inverse) >= 0.0625f) continue;
    const double position = x == 0.0f ? 0.0 : position_of(kind, scale, x);
    double sum = 0.0;
    for (int at = 0; at < 1 << 15; at += lanes) {
      std::uint32_t words[lanes];
      std::uint8_t codes[lanes];
      for (int i = 0; i < lanes; ++i) words[i] = static_cast<std::uint32_t>(at + i) << 17;
      store_codes(codes, RootCodes::encode_one(kind.is_signed(), V(x), scale, noise_of(load(words))));
      for (int i = 0; i < lanes; ++i) {
        const double off = codes[i] - zero - position;
        sum += codes[i] - zero;
        CHECK(std::fabs(off) <= 1.0 + position_error && codes[i] >= (kind.is_signed() ? 1 : 0), "%s: %a became %d",
              kind.name().c_str(), double{x}, codes[i]);
      }
    }
    CHECK(std::fabs(sum / (1 << 15) - position) <= position_error, "%s: the mean of %a is code %g, not %g",
          kind.name().c_str(), double{x}, sum / (1 << 15), position);
  }
}

// Law: the vector loop of the words gives each element its own word, wherever it starts, by groups or one by one.
void check_words() {
  static Words words;
  for (std::uint64_t start : {std::uint64_t{0}, std::uint64_t{8}, std::uint64_t{3}, (std::uint64_t{1} << 35) - 64,
                              (std::uint64_t{1} << 35) - 256, (std::uint64_t{1} << 35) - 61, std::uint64_t{1} << 61,
                              (std::uint64_t{1} << 62) - 256}) {
    words.fill(0xABCDEF01u, static_cast<std::int64_t>(start), ADAMW_BLOCK_SIZE);
    for (unsigned at = 0; at < ADAMW_BLOCK_SIZE; at += lanes) {
      std::uint32_t any[lanes], grouped[lanes];
      store(any, words.of_any(static_cast<int>(at)));
      store(grouped, words.grouped ? words.of_groups(static_cast<int>(at)) : words.of_any(static_cast<int>(at)));
      for (unsigned i = 0; i < lanes; ++i) {
        const std::uint32_t must = word_by_definition(0xABCDEF01u, start + at + i);
        CHECK(any[i] == must && grouped[i] == must && random_word(0xABCDEF01u, start + at + i) == must,
              "word %u from %llu", at + i, static_cast<unsigned long long>(start));
      }
    }
  }
}

// Law: what cannot be a number counts as zero, alone; what a block has beside its codes is exact, however short it is;
// a block too small to keep is zero.
void check_sanitizing(const Kernels &kernels, adamw_moment moment) {
  const bool is_signed = moment == ADAMW_MOMENT_EXP_AVG;
  std::vector<float> x(300, 0.25f);
  x[5] = NAN, x[6] = INFINITY, x[7] = -INFINITY, x[8] = -0.5f, x[299] = 1e-39f;
  for (std::size_t i = 256; i < 299; ++i) x[i] = 0.0f;
  std::vector<std::uint8_t> codes(300);
  float absmax[2], floor[2];
  QuantizePlan plan = plan_of(moment, 300);
  plan.format = ADAMW_STATE_BLOCK8;
  kernels.quantize(plan, x.data(), codes.data(), {{absmax, is_signed ? nullptr : floor}}, nullptr, 0, 2);
  const float largest = is_signed ? 0.5f : 0.25f;
  CHECK(absmax[0] == largest && absmax[1] == 0.0f, "%s: %a %a", kernels.name, double{absmax[0]}, double{absmax[1]});
  CHECK(is_signed || (floor[0] == floor_of_zeros && floor[1] == floor_of_zeros), "%s: %a %a", kernels.name,
        double{floor[0]}, double{floor[1]});
  const Kind kind{moment, largest, 0.0f};
  for (std::size_t i = 0; i < 300; ++i) {
    const bool nothing = (i >= 5 && i <= 7) || i >= 256 || (i == 8 && !is_signed);
    const int expected = expected_code(kind, kind.scale(), nothing ? 0.0f : x[i], 0);
    CHECK(codes[i] == expected, "%s moment %d: element %zu became %d, not %d", kernels.name, moment, i, codes[i],
          expected);
  }
  const Extremes found = kernels.extremes(plan, x.data(), 0, 2);
  CHECK(found.largest == largest && found.smallest == 0.0f, "%s moment %d", kernels.name, moment);
  if (is_signed) return;
  for (std::int64_t n : {1, 31, 33, 255}) {
    std::fill(x.begin(), x.end(), 0.25f);
    x[static_cast<std::size_t>(n) / 2] = 0.25f * 0.0625f;
    plan.blocks = block_layout(n, n);
    kernels.quantize(plan, x.data(), codes.data(), {{absmax, floor}}, nullptr, 0, 1);
    const float scale = n == 1 ? 0x1p-6f : 0.25f, root = n == 1 ? largest_floor : floor_of(0.0625f);
    CHECK(absmax[0] == scale && floor[0] == root, "%s: %lld numbers: %a %a", kernels.name, static_cast<long long>(n),
          double{absmax[0]}, double{floor[0]});
  }
}

}  // namespace

int main() {
  CHECK(!usable_kernels().empty(), "no kernel at all");
  check_words();
  for (const Kind &kind : kinds()) {
    check_every_noise(kind);
    for (const Kernels *kernels : usable_kernels()) {
      check_nearest(*kernels, kind);
      check_stochastic(*kernels, kind);
    }
  }
  for (const Kernels *kernels : usable_kernels()) {
    check_decode(*kernels);
    for (adamw_moment moment : {ADAMW_MOMENT_EXP_AVG, ADAMW_MOMENT_EXP_AVG_SQ}) check_sanitizing(*kernels, moment);
  }
  return finish();
}
