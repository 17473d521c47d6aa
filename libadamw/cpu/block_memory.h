// Owns how a block's elements come into reach of the vector loops and go back: whole vectors in place, rests through a
// padded copy, 16-bit dtypes through floats; and the block's random words. Knows nothing of what is computed.
#pragma once

#include <cstring>

#include "../backend.h"
#include "../formats.h"
#include "vector.h"

namespace adamw {
namespace {

// Asks for the cache line that holds element i of the block after the next, if that follows this one in memory. A hint:
// any address may be asked for. The processor's own prefetching stops at pages, and it begins anew with each buffer.
// Asked for in between the arithmetic of a block, a line a few operations: all at once, they only stand in a queue.
ADAMW_INLINE void prefetch_ahead(const void *block, int i, int size) {
  ADAMW_PREFETCH(reinterpret_cast<const void *>(reinterpret_cast<std::uintptr_t>(block) +
                                                static_cast<std::uintptr_t>((2 * ADAMW_BLOCK_SIZE + i) * size)));
}

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

// ---- elements of any dtype: a conversion each, both ways, with random words or to nearest ----

ADAMW_INLINE const std::uint16_t *half_words(const void *p) { return static_cast<const std::uint16_t *>(p); }

ADAMW_INLINE V load_as(Dtype<ADAMW_FLOAT32>, const void *p, int i) { return load(static_cast<const float *>(p) + i); }
ADAMW_INLINE V load_as(Dtype<ADAMW_BFLOAT16>, const void *p, int i) {
  return bfloat16_to_float<V>(load(half_words(p) + i));
}
ADAMW_ONCE V load_as(Dtype<ADAMW_FLOAT16>, const void *p, int i) { return float16_to_float(load(half_words(p) + i)); }

ADAMW_INLINE void store_as(Dtype<ADAMW_FLOAT32>, void *p, int i, V x) { store(static_cast<float *>(p) + i, x); }
ADAMW_INLINE void store_as(Dtype<ADAMW_BFLOAT16>, void *p, int i, V x) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_bfloat16(x));
}
ADAMW_ONCE void store_as(Dtype<ADAMW_FLOAT16>, void *p, int i, V x) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_float16(x));
}

ADAMW_INLINE void store_rounded(Dtype<ADAMW_FLOAT32>, void *, int, V, I) {}  // they are never rounded
ADAMW_INLINE void store_rounded(Dtype<ADAMW_BFLOAT16>, void *p, int i, V x, I word) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_bfloat16_stochastic(x, word));
}
ADAMW_ONCE void store_rounded(Dtype<ADAMW_FLOAT16>, void *p, int i, V x, I word) {
  store(static_cast<std::uint16_t *>(p) + i, float_to_float16_stochastic(x, word));
}

// In place of a dtype, whichever it is, by a call for each vector. Each dtype that a loop is compiled for is a copy of
// the loop.
struct AnyDtype {};

ADAMW_RARE V load_any(adamw_dtype dtype, const void *p, int i) {
  V x;
  dispatch_dtype(dtype, [&](auto type) { x = load_as(type, p, i); });
  return x;
}

// A block's elements, of a size known at run time: the memory itself, or a padded copy of a rest.
template <int max_size>
struct StagedBytes {
  alignas(64) unsigned char copy[ADAMW_BLOCK_SIZE * max_size];
  unsigned char *at, *home;
  std::size_t bytes;

  ADAMW_INLINE void load(const void *base, int size, std::int64_t begin, int n, int padded) {
    home = static_cast<unsigned char *>(const_cast<void *>(base)) + begin * size;
    at = home;
    if (n == padded) return;
    at = copy;
    bytes = static_cast<std::size_t>(n * size);
    std::memcpy(copy, home, bytes);
    std::memset(copy + bytes, 0, static_cast<std::size_t>((padded - n) * size));
  }
  ADAMW_INLINE void commit() const {
    if (at != home) std::memcpy(home, copy, bytes);
  }
};

// A block's parameters or gradients, in the dtype that they have. Converted where they are used, because a pass of
// their own would cost a quarter of a step.
struct Elements : StagedBytes<sizeof(float)> {
  adamw_dtype dtype;

  ADAMW_INLINE void load(const void *base, adamw_dtype type, std::int64_t begin, int n, int padded) {
    dtype = type;
    StagedBytes::load(base, traits(type).bytes, begin, n, padded);
  }
  // body(Dtype<dtype>{}), with which body calls those below: a loop is compiled for what most people train with, and
  // once more for AnyDtype.
  template <class Body>
  ADAMW_INLINE void dispatch(const Body &body) const {
    if constexpr (compact) {
      body(AnyDtype{});
    } else if (dtype == ADAMW_FLOAT32) {
      body(Dtype<ADAMW_FLOAT32>{});
    } else if (dtype == ADAMW_BFLOAT16) {
      body(Dtype<ADAMW_BFLOAT16>{});
    } else {
      body(AnyDtype{});
    }
  }
  template <class Type>
  ADAMW_INLINE V floats(Type type, int i) const {
    return load_as(type, at, i);
  }
  ADAMW_INLINE V floats(AnyDtype, int i) const { return load_any(dtype, at, i); }
  template <class Type>
  ADAMW_INLINE void store(Type type, int i, V x) {
    store_as(type, at, i, x);
  }
  template <class Type>
  ADAMW_INLINE void prefetch(Type, int i) const {
    constexpr int size = traits(Type::value).bytes, line = 64;
    for (int k = 0; k < lanes; k += line / size) prefetch_ahead(at, i + k, size);
  }
  ADAMW_INLINE void prefetch(AnyDtype, int) const {}
};

// The random words of a block, one an element. A hash serves a group of eight: where groups begin with the block, a
// product is all that is left to do for an element.
struct Words {
  alignas(64) std::uint32_t hashes[ADAMW_BLOCK_SIZE / 8], all[ADAMW_BLOCK_SIZE], multipliers[lanes];
  bool grouped;

  Words() {
    for (int i = 0; i < lanes; ++i) multipliers[i] = word_multipliers[i & 7];
  }
  // Those of elements start .. start + n (n a multiple of the vector).
  ADAMW_INLINE void fill(std::uint32_t key, std::int64_t first, int n) {
    const auto start = static_cast<std::uint64_t>(first), group = start >> 3;
    const auto low = static_cast<std::uint32_t>(group);
    grouped = (start & 7) == 0 && low <= 0xFFFFFFFFu - ADAMW_BLOCK_SIZE / 8;
    if (!grouped) {
      for (int i = 0; i < n; ++i) all[i] = random_word(key, start + static_cast<std::uint64_t>(i));
      return;
    }
    alignas(64) std::uint32_t numbers[lanes];
    for (int i = 0; i < lanes; ++i) numbers[i] = static_cast<std::uint32_t>(i);
    const I upper(group_key(key, static_cast<std::uint32_t>(group >> 32)));
    for (int i = 0; i < ADAMW_BLOCK_SIZE / 8; i += lanes) {
      store(hashes + i, mix32((load(numbers) + I(low + static_cast<std::uint32_t>(i))) ^ upper));
    }
  }
  // Of elements i, i + 1, ...
  ADAMW_INLINE I of_groups(int i) const { return spread(hashes + i / 8) * load(multipliers); }
  ADAMW_INLINE I of_any(int i) const { return grouped ? of_groups(i) : load(all + i); }
};

}  // namespace
}  // namespace adamw
