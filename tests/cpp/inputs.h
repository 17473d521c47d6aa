// Owns the tests' numbers: made from integers alone, so that they are the same on every machine. Knows nothing of what
// is tested.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../../include/adamw.h"

inline float float_from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

// splitmix64
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t x = state_ += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  std::uint32_t bits() { return static_cast<std::uint32_t>(next() >> 32); }
  int below(int n) { return static_cast<int>((next() >> 33) % static_cast<std::uint64_t>(n)); }
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  float uniform() { return static_cast<float>(unit() * 2.0 - 1.0); }     // [-1, 1)
  float any_float() { return float_from_bits(bits()); }                  // every bit pattern
  float finite_float() {
    return float_from_bits((bits() & 0x807FFFFFu) | static_cast<std::uint32_t>(below(255)) << 23);
  }

 private:
  std::uint64_t state_;
};

inline std::size_t size_of(adamw_dtype dtype) { return dtype == ADAMW_FLOAT32 ? 4 : 2; }

// How large numbers are: changes from one stretch of a tensor to the next.
enum Magnitude { ordinary, heavy_tailed, sparse, all_zero, tiny, huge, not_finite, magnitude_count };

// sign * 2^exponent * (1 + fraction / 2^32), or a special value, written in the dtype's own bits.
inline void put(void *at, adamw_dtype dtype, std::uint32_t sign, int exponent, std::uint32_t fraction) {
  const int mantissa = dtype == ADAMW_FLOAT32    ? 23
                       : dtype == ADAMW_BFLOAT16 ? 7
                                                 : 10,
            bias = dtype == ADAMW_FLOAT16 ? 15 : 127;
  const int biased = exponent + bias < 0          ? 0
                     : exponent + bias > 2 * bias ? 2 * bias
                                                  : exponent + bias;  // never infinite
  const std::uint32_t value = static_cast<std::uint32_t>(biased) << mantissa | fraction >> (32 - mantissa);
  if (dtype == ADAMW_FLOAT32) {
    const std::uint32_t word = sign << 31 | value;
    std::memcpy(at, &word, 4);
  } else {
    const std::uint16_t half = static_cast<std::uint16_t>(sign << 15 | value);
    std::memcpy(at, &half, 2);
  }
}

// Fills `count` elements; stretches of 40 elements differ in magnitude, NaN and infinities come only if asked for.
inline void fill(void *memory, adamw_dtype dtype, std::int64_t count, Random &random, bool with_not_finite = false) {
  Magnitude kind = ordinary;
  for (std::int64_t i = 0; i < count; ++i) {
    if (i % 40 == 0) kind = static_cast<Magnitude>(random.below(with_not_finite ? magnitude_count : not_finite));
    void *at = static_cast<char *>(memory) + static_cast<std::size_t>(i) * size_of(dtype);
    const std::uint32_t sign = random.bits() & 1, fraction = random.bits();
    const bool rare = random.below(8) == 0;
    switch (kind) {
      case heavy_tailed:
        put(at, dtype, sign, -30 + random.below(40), fraction);
        break;
      case sparse:
        rare ? put(at, dtype, sign, -6, fraction) : put(at, dtype, sign, -1000, 0);
        break;
      case all_zero:
        put(at, dtype, sign, -1000, 0);
        break;
      case tiny:
        put(at, dtype, sign, rare ? -1000 : -126 + random.below(12), fraction);
        break;
      case huge:
        put(at, dtype, sign, 20 + random.below(80), fraction);
        break;
      default:
        put(at, dtype, sign, -1 - random.below(5), fraction);
        break;
    }
    if (kind == not_finite && rare) {
      const std::uint16_t half = static_cast<std::uint16_t>(dtype == ADAMW_FLOAT16 ? 0x7C00 : 0x7F80) |
                                 static_cast<std::uint16_t>(sign << 15) | static_cast<std::uint16_t>(fraction & 1);
      const std::uint32_t word = static_cast<std::uint32_t>(half) << 16;
      std::memcpy(at, dtype == ADAMW_FLOAT32 ? static_cast<const void *>(&word) : &half, size_of(dtype));
    }
  }
}

// How alike the numbers of a whole tensor are, where that decides what a block has beside its codes.
enum Texture { similar, all_equal, few_ulps, subnormal, some_zeros, not_all_finite, texture_count };

// Fills `count` elements with numbers of one texture, of magnitude 2^exponent.
inline void fill_alike(void *memory, adamw_dtype dtype, std::int64_t count, Texture texture, int exponent,
                       Random &random) {
  const std::uint32_t one = random.bits();
  const std::uint32_t ulp = dtype == ADAMW_FLOAT32 ? 1u << 9 : dtype == ADAMW_BFLOAT16 ? 1u << 25 : 1u << 22;
  for (std::int64_t i = 0; i < count; ++i) {
    void *at = static_cast<char *>(memory) + static_cast<std::size_t>(i) * size_of(dtype);
    const std::uint32_t sign = random.bits() & 1, fraction = random.bits();
    const int kind = random.below(32);
    switch (texture) {
      case all_equal:
        put(at, dtype, sign, exponent, one);
        break;
      case few_ulps:
        put(at, dtype, sign, exponent, (one | 1u << 31) - ulp * static_cast<std::uint32_t>(kind));
        break;
      case subnormal:
        put(at, dtype, sign, -61 - kind % 4, fraction);  // whose squares are about 2^-126
        break;
      case some_zeros:
        kind == 0 ? put(at, dtype, sign, -1000, 0) : put(at, dtype, sign, exponent, fraction);
        break;
      case not_all_finite:
        put(at, dtype, sign, exponent, fraction);
        if (kind == 0 && dtype == ADAMW_FLOAT32) static_cast<float *>(memory)[i] = sign != 0 ? HUGE_VALF : 1e30f;
        break;
      default:
        put(at, dtype, sign, exponent - kind % 3, fraction);
        break;
    }
  }
}

// Bytes whose first `offset` are not used, so that elements need not lie at a multiple of a vector.
struct Bytes {
  std::vector<std::uint8_t> memory;
  std::size_t offset = 0;

  Bytes() = default;
  Bytes(std::int64_t count, std::size_t size, std::size_t skipped)
      : memory((static_cast<std::size_t>(count) + skipped) * size), offset(skipped * size) {}
  void *at() { return memory.data() + offset; }
  float *floats() { return reinterpret_cast<float *>(memory.data() + offset); }
};
