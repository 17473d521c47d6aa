// Owns a lane's parameters: as they are, or as the master weights that they make with their remainders
// (master_weights.h), from memory and back. Knows nothing of gradients and moments.
#pragma once

#include "elements.h"
// The operations on lanes come first.
#include "../../numerics/master_weights.h"

namespace adamw {
namespace gpu {
namespace {

// bfloat16 parameters with so many bits more.
template <int bits>
struct Weights {
  static_assert(bits == 8 || bits == 16, "a byte or two");
  using Stored = std::uint16_t;
  static constexpr int size = 2, remainder_bits = bits;
};

// Whether any is no number; it may say so of infinities and those beyond 2^63.
ADAMW_DEVICE bool has_nan(const float (&x)[each]) {
  float sum = x[0] * x[1];
  for (int j = 2; j < each; j += 2) sum = fma(x[j], x[j + 1], sum);
  return sum != sum;
}

// A lane's eight parameters as they lie in memory.
template <class P>
struct RawParams {
  static constexpr int rest_size = P::remainder_bits / 8;
  std::uint32_t param[2 * P::size], remainder[rest_size == 0 ? 1 : 2 * rest_size];

  // As they are; of weights, sums that are no numbers, too: joined_weight() makes others of them.
  ADAMW_DEVICE void floats(float (&x)[each]) const {
    if constexpr (rest_size == 0) {
      unpack<P>(x, param);
    } else {
      for (int j = 0; j < each; ++j) {
        const std::uint32_t word = param[j / 2];
        x[j] = from_bits((j % 2 == 0 ? word << 16 : word & 0xFFFF0000u) + rest(j));
      }
    }
  }

 private:
  // What is added to the bits of the j-th.
  ADAMW_DEVICE std::uint32_t rest(int j) const {
    if constexpr (rest_size == 2) {
      const std::uint32_t word = remainder[j / 2];
      return static_cast<std::uint32_t>(static_cast<std::int32_t>(j % 2 == 0 ? word << 16 : word) >> 16);
    } else {
      const std::uint32_t byte = static_cast<std::uint32_t>(j % 4);
      return chosen_bytes(remainder[j / 4], 0u, byte << 4 | (byte | 8u) * 0x1100u | 4u);
    }
  }
};

// The address of the remainder of the first element that is a lane's own.
template <class P, class Share>
ADAMW_DEVICE unsigned char *first_remainder(const AllBuffers &of, std::int64_t begin, unsigned lane) {
  return at<unsigned char>(of.param_remainder, (begin + Share::index(lane, 0)) * (P::remainder_bits / 8));
}

// Of a whole block.
template <class P, class Share>
ADAMW_DEVICE void load_params(float (&x)[each], const AllBuffers &from, std::int64_t begin, unsigned lane) {
  RawParams<P> raw;
  load_of_all<Share, P::size>(raw.param, at<typename P::Stored>(from.param, begin + Share::index(lane, 0)));
  if constexpr (P::remainder_bits != 0)
    load_of_all<Share, P::remainder_bits / 8>(raw.remainder, first_remainder<P, Share>(from, begin, lane));
  raw.floats(x);
}

// Splits weights that are numbers, or infinite. `words`: of their random bits; not looked at with 16 bits of remainder.
template <int remainder_bits, class Share>
ADAMW_DEVICE void store_weights(const float *x, const std::uint32_t *words, void *param, void *rest) {
  std::uint32_t split[each], rounded[each], params[each / 2], rests[remainder_bits / 4];
  for (int j = 0; j < each; ++j) {
    // noise_of_24_bits(), in one instruction
    split[j] = bits(x[j]) + (remainder_bits == 8 ? chosen_bytes(words[j], 0u, 0x4441u) : 0u);
    rounded[j] = split[j] + 0x8000u;
  }
  for (int j = 0; j < each; j += 2) params[j / 2] = upper_halves(rounded[j], rounded[j + 1]);
  if constexpr (remainder_bits == 16) {
    for (int j = 0; j < each; j += 2) rests[j / 2] = lower_halves(split[j], split[j + 1]);
  } else {
    // Rounding changes the highest bit of these.
    for (int j = 0; j < each; j += 4) {
      rests[j / 4] = lower_halves(chosen_bytes(rounded[j], rounded[j + 1], 0x0051u),
                                  chosen_bytes(rounded[j + 2], rounded[j + 3], 0x0051u)) ^
                     0x80808080u;
    }
  }
  store_halves<Share>(params, param, block_size, 0);
  constexpr int size = remainder_bits / 8;
  for (int j = 0; j < each; j += Share::run)
    store_words<Share::run * size / 4>(at<unsigned char>(rest, std::int64_t{Share::index(0, j)} * size),
                                       rests + j * size / 4);
}

// The stepped parameters, rounded to their dtype.
template <class Dtype, class Share>
ADAMW_DEVICE void store_params(const float *x, void *first, int n, unsigned lane, bool stochastic, std::uint32_t key,
                               std::uint64_t start) {
  if constexpr (Dtype::size == 4) {
    store_float32<Share>(x, first, n, lane);
  } else {
    std::uint32_t words[each / 2];
    if (stochastic) {
      std::uint32_t random[each];
      Words{key, group_key(key, 0)}.template fill<Share>(random, start, lane);
      for (int j = 0; j < each; j += 2)
        words[j / 2] = Dtype::template pair<false>(x[j], x[j + 1], random[j], random[j + 1]);
    } else {
      for (int j = 0; j < each; j += 2) words[j / 2] = Dtype::pair(x[j], x[j + 1]);
    }
    store_halves<Share>(words, first, n, lane);
  }
}

// ---- known at run time, for the rare paths ----

template <int remainder_bits>
struct RemainderOf;
template <>
struct RemainderOf<8> {
  using Type = std::int8_t;
};
template <>
struct RemainderOf<16> {
  using Type = std::int16_t;
};

template <int remainder_bits>
ADAMW_DEVICE float load_weight(const void *param, const void *rest, std::int64_t i) {
  const std::int32_t remainder = *at<typename RemainderOf<remainder_bits>::Type>(rest, i);
  return joined_weight<remainder_bits, float, std::uint32_t>(*at<std::uint16_t>(param, i),
                                                             static_cast<std::uint32_t>(remainder));
}
template <int remainder_bits>
ADAMW_DEVICE void store_weight(float x, std::uint32_t noise, void *param, void *rest, std::int64_t i) {
  using Type = typename RemainderOf<remainder_bits>::Type;
  const std::uint32_t split = split_weight<remainder_bits>(x, noise);
  *at<std::uint16_t>(param, i) = static_cast<std::uint16_t>(param_of(split));
  *at<Type>(rest, i) = static_cast<Type>(remainder_of<remainder_bits>(split));
}

// Parameters that are all there is, and those with remainders: the rare path of the first needs no registers for what
// the second must know. `start`: global index of the block's first element.
struct AnyDtype {
  static constexpr int remainder_bits = 0;

  static ADAMW_DEVICE void load(float *x, const LaunchHead &head, const AllBuffers &from, std::int64_t begin, int n,
                                unsigned lane) {
    load_any(x, from.param, head.param_dtype, begin, n, lane);
  }
  static ADAMW_DEVICE void store(const float *x, const LaunchHead &head, const AllBuffers &to, std::int64_t begin,
                                 int n, unsigned lane, const Coefficients &c, std::uint64_t start) {
#define ADAMW_CASE(value, Dtype)                                                                             \
  if (head.param_dtype == value)                                                                             \
    return store_params<Dtype, Singles>(x, first_of<Dtype::Stored, Singles>(to.param, begin, lane), n, lane, \
                                        head.stochastic_rounding, c.param_key, start);
    ADAMW_KERNEL_DTYPES(ADAMW_CASE)
#undef ADAMW_CASE
    __builtin_unreachable();
  }
};
struct AnyWeights {
  static constexpr int remainder_bits = 0;

  // A loop for each width: one with both in it has less code, but needs more registers than there are.
  static ADAMW_DEVICE void load(float *x, const LaunchHead &head, const AllBuffers &from, std::int64_t begin, int n,
                                unsigned lane) {
#define ADAMW_CASE(bits)                                                                    \
  if (head.remainder_bits == bits) {                                                        \
    for (int j = 0; j < each; ++j) {                                                        \
      const int i = Singles::index(lane, j);                                                \
      x[j] = i < n ? load_weight<bits>(from.param, from.param_remainder, begin + i) : 0.0f; \
    }                                                                                       \
    return;                                                                                 \
  }
    ADAMW_KERNEL_REMAINDERS(ADAMW_CASE)
#undef ADAMW_CASE
    __builtin_unreachable();
  }
  static ADAMW_DEVICE void store(const float *x, const LaunchHead &head, const AllBuffers &to, std::int64_t begin,
                                 int n, unsigned lane, const Coefficients &c, std::uint64_t start) {
#define ADAMW_CASE(bits)                                                                                      \
  if (head.remainder_bits == bits) {                                                                          \
    for (int j = 0; j < each; ++j) {                                                                          \
      const int i = Singles::index(lane, j);                                                                  \
      const std::uint32_t word = bits == 8 ? random_word(c.state_key, start + static_cast<unsigned>(i)) : 0u; \
      if (i < n) store_weight<bits>(x[j], noise_of_24_bits(word), to.param, to.param_remainder, begin + i);   \
    }                                                                                                         \
    return;                                                                                                   \
  }
    ADAMW_KERNEL_REMAINDERS(ADAMW_CASE)
#undef ADAMW_CASE
    __builtin_unreachable();
  }
};
template <bool weights>
struct AnyOf {
  using Type = AnyDtype;
};
template <>
struct AnyOf<true> {
  using Type = AnyWeights;
};
template <class P>
using AnyLike = typename AnyOf<P::remainder_bits != 0>::Type;

}  // namespace
}  // namespace gpu
}  // namespace adamw
