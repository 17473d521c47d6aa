// Owns how a block's elements come into reach of the vector loops and go back: whole vectors in place, rests through a
// padded copy, 16-bit dtypes through floats; and the block's random words. Knows nothing of what is computed.
#pragma once

#include <cstring>

#include "../backend.h"
#include "vector.h"

namespace adamw {
namespace {

// `padded` elements at `at`: the memory itself where n is a multiple of the vector, else a copy that commit() takes
// back.
template <class T>
struct Staged {
  alignas(64) T copy[ADAMW_BLOCK_SIZE];
  T *at, *home;
  int n;

  ADAMW_INLINE void place(T *memory, int count, int padded) {
    home = memory;
    n = count;
    at = count == padded ? memory : copy;
  }
  ADAMW_INLINE void load(T *memory, int count, int padded, T padding) {
    place(memory, count, padded);
    if (at == memory) return;
    std::memcpy(copy, memory, static_cast<std::size_t>(count) * sizeof(T));
    for (int i = count; i < padded; ++i) copy[i] = padding;
  }
  ADAMW_INLINE void commit() const {
    if (at != home) std::memcpy(home, copy, static_cast<std::size_t>(n) * sizeof(T));
  }
};

ADAMW_INLINE V halves_to_floats(const std::uint16_t *half, adamw_dtype dtype) {
  const I x = load(half);
  return dtype == ADAMW_BFLOAT16 ? bfloat16_to_float<V>(x) : float16_to_float(x);
}

// n 16-bit elements as floats, filled up with zeros to whole vectors.
ADAMW_ONCE void halves_to_floats(float *floats, const std::uint16_t *half, adamw_dtype dtype, int n) {
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(floats + i, halves_to_floats(half + i, dtype));
  if (i < n) {
    std::uint16_t rest[lanes] = {};
    std::memcpy(rest, half + i, static_cast<std::size_t>(n - i) * sizeof *rest);
    store(floats + i, halves_to_floats(rest, dtype));
  }
}

// Elements begin .. begin + n of an array of any dtype, as floats.
ADAMW_INLINE void load_floats(Staged<float> &s, const void *base, adamw_dtype dtype, std::int64_t begin, int n,
                              int padded) {
  if (dtype == ADAMW_FLOAT32) {
    s.load(const_cast<float *>(static_cast<const float *>(base)) + begin, n, padded, 0.0f);
    return;
  }
  s.at = s.copy;
  halves_to_floats(s.copy, static_cast<const std::uint16_t *>(base) + begin, dtype, n);
}

// The random words of elements start .. start + n (n a multiple of the vector).
ADAMW_ONCE void fill_words(std::uint32_t *words, std::uint32_t key, std::uint64_t start, int n) {
  const std::uint64_t group = start >> 3;
  const std::uint32_t low = static_cast<std::uint32_t>(group);
  if ((start & 7) != 0 || low > 0xFFFFFFFFu - ADAMW_BLOCK_SIZE / 8) {
    for (int i = 0; i < n; ++i) words[i] = random_word(key, start + static_cast<std::uint64_t>(i));
    return;
  }
  alignas(64) std::uint32_t hashes[ADAMW_BLOCK_SIZE / 8], numbers[lanes], multipliers[lanes];
  for (int i = 0; i < lanes; ++i) {
    numbers[i] = static_cast<std::uint32_t>(i);
    multipliers[i] = word_multipliers[i & 7];
  }
  const I upper(group_key(key, static_cast<std::uint32_t>(group >> 32)));
  for (int i = 0; i < ADAMW_BLOCK_SIZE / 8; i += lanes) {
    store(hashes + i, mix32((load(numbers) + I(low + static_cast<std::uint32_t>(i))) ^ upper));
  }
  for (int i = 0; i < n; i += lanes) store(words + i, spread(hashes + i / 8) * load(multipliers));
}

ADAMW_INLINE I floats_to_halves(V x, adamw_dtype dtype) {
  return dtype == ADAMW_BFLOAT16 ? float_to_bfloat16(x) : float_to_float16(x);
}

ADAMW_INLINE I floats_to_halves(V x, adamw_dtype dtype, I word) {
  return dtype == ADAMW_BFLOAT16 ? float_to_bfloat16_stochastic(x, word) : float_to_float16_stochastic(x, word);
}

// The other way; `words` for stochastic rounding.
ADAMW_ONCE void floats_to_halves(std::uint16_t *half, const float *values, const StepKind &kind, int n,
                                 const std::uint32_t *words) {
  for (int i = 0; i < n; i += lanes) {
    const V x = load(values + i);
    const I rounded = kind.stochastic_rounding ? floats_to_halves(x, kind.param_dtype, load(words + i))
                                               : floats_to_halves(x, kind.param_dtype);
    if (i + lanes <= n) {
      store(half + i, rounded);
    } else {
      std::uint16_t rest[lanes];
      store(rest, rounded);
      std::memcpy(half + i, rest, static_cast<std::size_t>(n - i) * sizeof *rest);
    }
  }
}

// Writes the stepped parameters of one block back; `index` is the global index of its first element. `words` is
// scratch.
ADAMW_INLINE void store_params(const float *values, void *base, const StepKind &kind, const Coefficients &c,
                               std::int64_t index, std::int64_t begin, int n, int padded, std::uint32_t *words) {
  if (kind.param_dtype == ADAMW_FLOAT32) {
    float *home = static_cast<float *>(base) + begin;
    if (values != home) std::memcpy(home, values, static_cast<std::size_t>(n) * sizeof(float));
    return;
  }
  if (kind.stochastic_rounding) fill_words(words, c.param_key, static_cast<std::uint64_t>(index), padded);
  floats_to_halves(static_cast<std::uint16_t *>(base) + begin, values, kind, n, words);
}

}  // namespace
}  // namespace adamw
