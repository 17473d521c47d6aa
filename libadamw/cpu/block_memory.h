// Owns how a block's elements come into reach of the vector loops and go back: whole vectors in place, rests through a
// padded copy, 16-bit dtypes through floats; and the block's random words. Knows nothing of what is computed.
#pragma once

#include <cstring>

#include "../backend.h"
#include "../formats.h"
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

// ---- dtypes: those of 16 bits have a conversion each ----

ADAMW_INLINE V half_to_float(Dtype<ADAMW_BFLOAT16>, I half) { return bfloat16_to_float<V>(half); }
ADAMW_INLINE V half_to_float(Dtype<ADAMW_FLOAT16>, I half) { return float16_to_float(half); }
ADAMW_INLINE I float_to_half(Dtype<ADAMW_BFLOAT16>, V x) { return float_to_bfloat16(x); }
ADAMW_INLINE I float_to_half(Dtype<ADAMW_FLOAT16>, V x) { return float_to_float16(x); }
ADAMW_INLINE I float_to_half(Dtype<ADAMW_BFLOAT16>, V x, I word) { return float_to_bfloat16_stochastic(x, word); }
ADAMW_INLINE I float_to_half(Dtype<ADAMW_FLOAT16>, V x, I word) { return float_to_float16_stochastic(x, word); }

// n 16-bit elements as floats, filled up with zeros to whole vectors.
template <class Half>
ADAMW_ONCE void halves_to_floats(Half dtype, float *floats, const std::uint16_t *half, int n) {
  int i = 0;
  for (; i + lanes <= n; i += lanes) store(floats + i, half_to_float(dtype, load(half + i)));
  if (i < n) {
    std::uint16_t rest[lanes] = {};
    std::memcpy(rest, half + i, static_cast<std::size_t>(n - i) * sizeof *rest);
    store(floats + i, half_to_float(dtype, load(rest)));
  }
}

template <class Half>
ADAMW_INLINE void load_elements(Half dtype, Staged<float> &s, const void *base, std::int64_t begin, int n, int) {
  s.at = s.copy;
  halves_to_floats(dtype, s.copy, static_cast<const std::uint16_t *>(base) + begin, n);
}
ADAMW_INLINE void load_elements(Dtype<ADAMW_FLOAT32>, Staged<float> &s, const void *base, std::int64_t begin, int n,
                                int padded) {
  s.load(const_cast<float *>(static_cast<const float *>(base)) + begin, n, padded, 0.0f);
}

// Elements begin .. begin + n of an array of any dtype, as floats.
ADAMW_INLINE void load_floats(Staged<float> &s, const void *base, adamw_dtype dtype, std::int64_t begin, int n,
                              int padded) {
  dispatch_dtype(dtype, [&](auto type) { load_elements(type, s, base, begin, n, padded); });
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

// The other way; with `words`, or null to round to nearest.
template <class Half>
ADAMW_ONCE void floats_to_halves(Half dtype, std::uint16_t *half, const float *values, int n,
                                 const std::uint32_t *words) {
  for (int i = 0; i < n; i += lanes) {
    const V x = load(values + i);
    const I rounded = words != nullptr ? float_to_half(dtype, x, load(words + i)) : float_to_half(dtype, x);
    if (i + lanes <= n) {
      store(half + i, rounded);
    } else {
      std::uint16_t rest[lanes];
      store(rest, rounded);
      std::memcpy(half + i, rest, static_cast<std::size_t>(n - i) * sizeof *rest);
    }
  }
}

// A block of stepped parameters, and where it goes.
struct SteppedParams {
  const float *values;
  void *base;
  std::int64_t index, begin;  // index: of the first element, in the unsharded tensor
  int n, padded;
};

template <class Half>
ADAMW_INLINE void store_elements(Half dtype, const SteppedParams &p, bool stochastic, std::uint32_t key,
                                 std::uint32_t *words) {
  if (stochastic) fill_words(words, key, static_cast<std::uint64_t>(p.index), p.padded);
  floats_to_halves(dtype, static_cast<std::uint16_t *>(p.base) + p.begin, p.values, p.n, stochastic ? words : nullptr);
}
ADAMW_INLINE void store_elements(Dtype<ADAMW_FLOAT32>, const SteppedParams &p, bool, std::uint32_t, std::uint32_t *) {
  float *home = static_cast<float *>(p.base) + p.begin;
  if (p.values != home) std::memcpy(home, p.values, static_cast<std::size_t>(p.n) * sizeof(float));
}

// Writes the stepped parameters of one block back. `words` is scratch.
ADAMW_INLINE void store_params(const SteppedParams &p, const StepKind &kind, const Coefficients &c,
                               std::uint32_t *words) {
  dispatch_dtype(kind.param_dtype,
                 [&](auto type) { store_elements(type, p, kind.stochastic_rounding, c.param_key, words); });
}

}  // namespace
}  // namespace adamw
