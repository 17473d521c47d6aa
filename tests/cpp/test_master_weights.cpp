// Owns the laws of splitting and joining master weights: every pattern by its definition, on every kernel; and that
// stochastic rounding to 24 bits is right on average, with bytes that depend on nothing else. (Steps on master weights:
// test_master_steps.cpp.)
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "check.h"
#include "cpu/kernels.h"
#include "weights.h"
#include "words.h"

namespace {

constexpr std::int64_t chunk = 1 << 16;

adamw_split_options split_options(int bits, std::int64_t numel = chunk) {
  adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
  o.remainder_bits = bits;
  o.numel = numel;
  o.num_threads = 1;
  return o;
}

// Weights and what they are split into; a remainder of 8 bits has the first half of `remainder`.
struct Parts {
  std::vector<std::uint32_t> weights = std::vector<std::uint32_t>(chunk), joined = weights;
  std::vector<std::uint16_t> param = std::vector<std::uint16_t>(chunk);
  std::vector<std::int16_t> remainder = std::vector<std::int16_t>(chunk);

  float *floats() { return reinterpret_cast<float *>(weights.data()); }
  const std::int8_t *bytes() const { return reinterpret_cast<const std::int8_t *>(remainder.data()); }
  int rest(int bits, std::size_t i) const { return bits == 8 ? bytes()[i] : remainder[i]; }
  void set_rest(int bits, std::size_t i, int rest) {
    if (bits == 16) remainder[i] = static_cast<std::int16_t>(rest);
    if (bits == 8) reinterpret_cast<std::int8_t *>(remainder.data())[i] = static_cast<std::int8_t>(rest);
  }
  void split(const adamw_split_options &o) {
    CHECK(adamw_split_weights(&o, floats(), param.data(), remainder.data()) == ADAMW_OK, "%s", adamw_last_error());
  }
  void join(const adamw_split_options &o) {
    CHECK(adamw_join_weights(&o, param.data(), remainder.data(), reinterpret_cast<float *>(joined.data())) == ADAMW_OK,
          "%s", adamw_last_error());
  }
};

void check_pieces(int bits, const Parts &parts, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t w = parts.weights[i];
    CHECK(parts.param[i] == param_by_definition(bits, w) && parts.rest(bits, i) == remainder_by_definition(bits, w) &&
              parts.joined[i] == kept_of(bits, w),
          "%d bits: %08x became %04x and %d, together %08x", bits, w, parts.param[i], parts.rest(bits, i),
          parts.joined[i]);
  }
}

// What weights with the same lower half have in common, by the definition of one of them.
template <int bits>
struct Lower {
  static constexpr std::uint32_t some = 0x3F800000;
  std::vector<std::uint16_t> param = std::vector<std::uint16_t>(65536);
  std::vector<std::uint32_t> kept = std::vector<std::uint32_t>(65536);
  std::vector<std::conditional_t<bits == 8, std::int8_t, std::int16_t>> rest{decltype(rest)(65536)};

  Lower() {
    for (std::uint32_t i = 0; i < 65536; ++i) {
      param[i] = static_cast<std::uint16_t>(param_by_definition(bits, some + i) - (some >> 16));
      rest[i] = static_cast<typename decltype(rest)::value_type>(remainder_by_definition(bits, some + i));
      kept[i] = kept_of(bits, some + i) - some;
    }
  }
};

// Law: of all 2^32 weights, each becomes the parameter and the remainder of its definition, and these together are the
// weight again (16 bits: all of it; 8 bits: what was kept). A NaN becomes one NaN. So all kept patterns come back.
template <int bits>
void check_every_weight() {
  constexpr std::uint32_t piece = 1 << 13;  // what a core's own caches hold
  static const Lower<bits> lower;
  Parts parts;
  const auto *rests = reinterpret_cast<const std::conditional_t<bits == 8, std::int8_t, std::int16_t> *>(parts.bytes());
  const adamw_split_options o = split_options(bits, piece);
  // Under a sanitizer or an emulator: some of every exponent, and its ends.
  const std::uint32_t step = abridged ? 37 : 1;
  for (std::uint32_t first = 0; first < 65536; first += piece)
    for (std::uint32_t upper = 0; upper < 65536; upper += (upper + 2) % 128 < 4 ? 1 : step) {
      const std::uint32_t base = upper << 16;
      for (std::uint32_t i = 0; i < piece; ++i) parts.weights[i] = base | (first + i);
      parts.split(o);
      parts.join(o);
      const bool special = (upper & 0x7F80u) == 0x7F80u;  // infinities and NaN: one by one
      std::uint32_t joined = 0;
      std::uint16_t param = 0;
      int rest = 0;
      for (std::uint32_t i = 0; i < piece; ++i) joined |= parts.joined[i] ^ (base + lower.kept[first + i]);
      for (std::uint32_t i = 0; i < piece; ++i)
        param |= parts.param[i] ^ static_cast<std::uint16_t>(upper + lower.param[first + i]);
      for (std::uint32_t i = 0; i < piece; ++i) rest |= rests[i] ^ lower.rest[first + i];
      if (special || (joined | param) != 0 || rest != 0) check_pieces(bits, parts, piece);
    }
}

// Law: the table that says the same of a few weights in numbers that were written by hand.
void check_known() {
  const struct {
    std::uint32_t weight;
    int bits;
    std::uint16_t param;
    int remainder;
  } known[] = {{0x00000000, 16, 0x0000, 0},      {0x80000000, 16, 0x8000, 0},     {0x00000001, 16, 0x0000, 1},
               {0x80000001, 16, 0x8000, 1},      {0x007FFFFF, 16, 0x0080, -1},    {0x3F800000, 16, 0x3F80, 0},
               {0x3F808000, 16, 0x3F81, -32768}, {0x3F807FFF, 16, 0x3F80, 32767}, {0xBF808000, 16, 0xBF81, -32768},
               {0x3F818000, 16, 0x3F82, -32768}, {0x7F7FFFFF, 16, 0x7F80, -1},    {0xFF7F8000, 16, 0xFF80, -32768},
               {0x7F7F7FFF, 16, 0x7F7F, 32767},  {0x7F800000, 16, 0x7F80, 0},     {0xFF800000, 16, 0xFF80, 0},
               {0x7F800001, 16, 0x7FC0, 0},      {0xFFC12345, 16, 0x7FC0, 0},     {0xFFFFFFFF, 16, 0x7FC0, 0},
               {0x3F80007F, 8, 0x3F80, 0},       {0x3F800080, 8, 0x3F80, 1},      {0x3F807F7F, 8, 0x3F80, 127},
               {0x3F807F80, 8, 0x3F81, -128},    {0x3F80FFFF, 8, 0x3F81, 0},      {0x0000007F, 8, 0x0000, 0},
               {0x80000080, 8, 0x8000, 1},       {0x7F7FFF7F, 8, 0x7F80, -1},     {0x7F7FFF80, 8, 0x7F80, 0},
               {0x7F800000, 8, 0x7F80, 0},       {0xFF800001, 8, 0x7FC0, 0},      {0x7FFFFFFF, 8, 0x7FC0, 0}};
  for (const auto &k : known) {
    Parts parts;
    parts.weights.assign(chunk, k.weight);
    parts.split(split_options(k.bits));
    CHECK(parts.param[0] == k.param && parts.rest(k.bits, 0) == k.remainder, "%d bits: %08x became %04x and %d", k.bits,
          k.weight, parts.param[0], parts.rest(k.bits, 0));
  }
}

// Law: a parameter and a remainder whose sum is no number are the parameter alone: zeros with a negative remainder,
// infinities with a positive one, and a NaN with any. (All other pairs are made of some weight: check_every_weight.)
void check_sums_that_are_no_numbers(int bits) {
  Parts parts;
  const adamw_split_options o = split_options(bits);
  const std::size_t rests = bits == 8 ? 256 : 65536;
  for (std::uint32_t p = 0; p < 65536; ++p) {
    const auto param = static_cast<std::uint16_t>(p);
    if ((p & 0x7FFF) != 0 && (p & 0x7FFF) < 0x7F80) continue;
    if (abridged && is_nan(param) && p % 16 != 1) continue;
    std::fill(parts.param.begin(), parts.param.end(), param);
    for (std::size_t i = 0; i < rests; ++i) parts.set_rest(bits, i, static_cast<int>(i) - static_cast<int>(rests / 2));
    parts.join(o);
    for (std::size_t i = 0; i < rests; ++i) {
      const std::uint32_t is = parts.joined[i], must = joined_by_definition(bits, param, parts.rest(bits, i));
      CHECK(is == must || (is_nan(is) && is_nan(param)), "%d bits: %04x and %d are %08x, must be %08x", bits, p,
            parts.rest(bits, i), is, must);
      CHECK(is_nan(is) == is_nan(param), "%d bits: %04x and %d are %08x", bits, p, parts.rest(bits, i), is);
    }
  }
}

// Law: each kernel's bits are those of the definition with each element's own byte, wherever the tensor starts, however
// short it is, and wherever in memory: nothing beside it is written.
void check_kernels() {
  constexpr std::uint64_t offsets[] = {0, 8, 5, 1001, (1ull << 35) - 1003, (3ull << 35) - 512, (1ull << 60) + 3};
  Random random(4);
  for (const adamw::Kernels *kernels : adamw::usable_kernels())
    for (int bits : {8, 16})
      for (std::uint64_t offset : offsets)
        for (std::int64_t n : {1, 15, 16, 17, 255, 256, 257, 1300}) {
          const bool stochastic = random.below(4) != 0;
          const std::uint32_t key = random.bits();
          adamw::SplitPlan plan{bits, stochastic, n, static_cast<std::int64_t>(offset), key, 1, -1, nullptr};
          const auto size = static_cast<std::size_t>(bits / 8), count = static_cast<std::size_t>(n);
          const auto shift = static_cast<std::size_t>(random.below(5));
          Bytes weights(n, 4, shift), param(n + 9, 2, shift + 1), remainder(n + 9, size, shift + 2);
          for (Bytes *bytes : {&weights, &param, &remainder})
            for (std::uint8_t &byte : bytes->memory) byte = static_cast<std::uint8_t>(random.bits());
          const Bytes param_was = param, remainder_was = remainder;
          auto *p = static_cast<std::uint16_t *>(param.at());
          kernels->split(plan, weights.floats(), p, remainder.at(), 0, n);
          const auto rest = [&](std::size_t i) {
            return bits == 8 ? static_cast<int>(static_cast<std::int8_t *>(remainder.at())[i])
                             : static_cast<int>(static_cast<std::int16_t *>(remainder.at())[i]);
          };
          for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t w = bits_of(weights.floats()[i]),
                                noise = stochastic ? noise_by_definition(word_by_definition(key, offset + i)) : 128;
            CHECK(p[i] == param_by_definition(bits, w, noise) && rest(i) == remainder_by_definition(bits, w, noise),
                  "%s, %d bits, element %zu of %lld from %llu: %08x with noise %u became %04x and %d", kernels->name,
                  bits, i, static_cast<long long>(n), static_cast<unsigned long long>(offset), w, noise, p[i], rest(i));
          }
          const auto untouched = [](const Bytes &is, const Bytes &was, std::size_t bytes) {
            const std::size_t end = is.offset + bytes;
            return std::equal(is.memory.begin(), is.memory.begin() + static_cast<std::ptrdiff_t>(is.offset),
                              was.memory.begin()) &&
                   std::equal(is.memory.begin() + static_cast<std::ptrdiff_t>(end), is.memory.end(),
                              was.memory.begin() + static_cast<std::ptrdiff_t>(end));
          };
          CHECK(untouched(param, param_was, 2 * count) && untouched(remainder, remainder_was, size * count),
                "%s, %d bits: %lld elements: bytes beside them were written", kernels->name, bits,
                static_cast<long long>(n));
          // Any two buffers, not only those that some weight was split into.
          for (Bytes *bytes : {&param, &remainder})
            for (std::uint8_t &byte : bytes->memory) byte = static_cast<std::uint8_t>(random.bits());
          kernels->join(plan, p, remainder.at(), weights.floats(), 0, n);
          for (std::size_t i = 0; i < count; ++i) {
            const std::uint32_t is = bits_of(weights.floats()[i]), must = joined_by_definition(bits, p[i], rest(i));
            CHECK(is == must || (is_nan(is) && is_nan(must)), "%s, %d bits: %04x and %d are %08x, must be %08x",
                  kernels->name, bits, p[i], rest(i), is, must);
          }
        }
}

// ---- stochastic rounding to 24 bits ----

// Law: through the public interface, an element's byte is that of (seed, step, global_offset + i), for any number of
// threads; with 16 bits there is none.
void check_keys() {
  Random random(5);
  Parts parts, nearest;
  for (int round = 0; round < 20; ++round) {
    for (std::uint32_t &w : parts.weights) w = random.bits();
    nearest.weights = parts.weights;
    adamw_split_options o = split_options(8);
    o.rounding = ADAMW_ROUND_STOCHASTIC;
    o.seed = random.next();
    o.step = static_cast<std::int64_t>(random.next() >> (1 + random.below(60)));
    o.global_offset = static_cast<std::int64_t>(random.next() >> (2 + random.below(60))) / 2;
    o.num_threads = 1 + round % 3;
    parts.split(o);
    const std::uint32_t key = state_key_by_definition(o.seed, o.step);
    for (std::size_t i = 0; i < chunk; ++i) {
      const std::uint32_t w = parts.weights[i], noise = noise_by_definition(word_by_definition(
                                                    key, static_cast<std::uint64_t>(o.global_offset) + i));
      CHECK(parts.param[i] == param_by_definition(8, w, noise) &&
                parts.rest(8, i) == remainder_by_definition(8, w, noise),
            "round %d, element %zu: %08x with noise %u became %04x and %d", round, i, w, noise, parts.param[i],
            parts.rest(8, i));
    }
    o.remainder_bits = 16;
    parts.split(o);
    o.rounding = ADAMW_ROUND_NEAREST;
    nearest.split(o);
    CHECK(parts.param == nearest.param && parts.remainder == nearest.remainder, "16 bits are rounded");
  }
}

// Law: a weight is rounded up as often as it lies above the number below: for each of the 256 rests, of numbers of both
// signs and of any size. The counts' chi square, of 255 degrees of freedom (a rest of 0 is never rounded up), and the
// mean of all, are within 5 standard errors: sqrt(2 * 255) and 1.
void check_average() {
  constexpr int keys = abridged ? 8 : 64;
  Parts parts;
  std::vector<double> ups(256);
  double number = 0.0, excess = 0.0, variance = 0.0;
  adamw_split_options o = split_options(8);
  o.rounding = ADAMW_ROUND_STOCHASTIC;
  Random random(6);
  for (o.step = 1; o.step <= keys; ++o.step) {
    // Of neighbours, who share a hash, every rest meets every place.
    for (std::uint32_t i = 0; i < chunk; ++i)
      parts.weights[i] = (random.bits() & 0x80FFFF00u) | 0x3C000000u | ((i + i / 256) & 0xFFu);
    parts.split(o);
    parts.join(o);
    for (std::size_t i = 0; i < chunk; ++i) {
      const std::uint32_t w = parts.weights[i], below = w & ~0xFFu;
      const bool up = parts.joined[i] != below;
      CHECK(!up || (parts.joined[i] == below + 256 && w != below), "%08x became %08x", w, parts.joined[i]);
      ups[w & 0xFFu] += up;
      const double part = (w & 0xFFu) / 256.0;
      excess += up - part;
      variance += part * (1.0 - part);
    }
    number += chunk / 256;
  }
  double chi = 0.0;
  for (int rest = 1; rest < 256; ++rest) {
    const double part = rest / 256.0, off = ups[static_cast<std::size_t>(rest)] - number * part;
    chi += off * off / (number * part * (1.0 - part));
  }
  const double spread = 5.0 * std::sqrt(2.0 * 255.0);
  CHECK(ups[0] == 0.0 && std::fabs(chi - 255.0) <= spread, "chi square %g of 255 +- %g", chi, spread);
  CHECK(std::fabs(excess) <= 5.0 * std::sqrt(variance), "%g too many of %g", excess, number * 256.0);
  std::printf("rounded up: chi square %.1f of 255 +- %.1f; %+.2f standard errors on average\n", chi, spread,
              excess / std::sqrt(variance));
}

// Law: the byte that rounds a weight tells nothing of the word's upper 16 bits, which round the element's moments, nor
// of the byte of the next step, nor of a neighbour's: correlations of 2^20 pairs are within 5 standard errors, 5 *
// 2^-10 (with a neighbour's, with which it shares the hash: within 1%). Each byte comes as often as any other.
void check_bytes() {
  constexpr std::uint64_t n = std::uint64_t{1} << (abridged ? 16 : 20);
  const double spread = 5.0 / std::sqrt(static_cast<double>(n)), unit = 65535.0 / 12.0;  // variance of a byte
  double with_moments = 0.0, with_next = 0.0, with_neighbour[8] = {};
  std::vector<double> counts(256);
  const std::uint32_t key = state_key_by_definition(42, 7), next = state_key_by_definition(42, 8);
  const auto centred = [](std::uint32_t byte) { return static_cast<double>(byte) - 127.5; };
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint32_t word = word_by_definition(key, i), byte = noise_by_definition(word);
    counts[byte] += 1.0;
    with_moments += centred(byte) * (static_cast<double>(word >> 16) - 32767.5) / 256.0;
    with_next += centred(byte) * centred(noise_by_definition(word_by_definition(next, i)));
    with_neighbour[i % 8] += centred(byte) * centred(noise_by_definition(word_by_definition(key, i + 1)));
  }
  const auto total = static_cast<double>(n);
  double chi = 0.0;
  for (double count : counts) chi += (count - total / 256) * (count - total / 256) / (total / 256);
  CHECK(std::fabs(chi - 255.0) <= 5.0 * std::sqrt(2.0 * 255.0), "bytes: chi square %g of 255", chi);
  CHECK(std::fabs(with_moments / total / unit) <= spread, "moments: %g", with_moments / total / unit);
  CHECK(std::fabs(with_next / total / unit) <= spread, "the next step: %g", with_next / total / unit);
  for (double sum : with_neighbour)
    CHECK(std::fabs(sum * 8 / total / unit) <= 0.01 + spread * 3, "a neighbour: %g", sum * 8 / total / unit);
  std::printf(
      "correlation of bytes: with moments %.1e, with the next step %.1e (within %.1e); chi square %.1f of 255\n",
      with_moments / total / unit, with_next / total / unit, spread, chi);
}

}  // namespace

int main() {
  check_known();
  check_kernels();
  for (int bits : {8, 16}) check_sums_that_are_no_numbers(bits);
  check_keys();
  check_average();
  check_bytes();
  check_every_weight<8>();
  check_every_weight<16>();
  return finish();
}
