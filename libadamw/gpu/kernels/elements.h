// Owns how a warp's 32 lanes share the 256 elements of a block, eight each, and how these come from memory and go back.
// Knows nothing of what is computed.
#pragma once

#include "scalar_ops.h"
// The operations on lanes come first.
#include "../../numerics/math.h"
#include "../table.h"

namespace adamw {
namespace gpu {
namespace {

constexpr int each = 8;  // elements a lane

// Which eight elements a lane has. Whole blocks whose memory is aligned are read in vectors: eight neighbours where all
// of a row is 16 bits wide, else twice four, so that the accesses of a warp join without gaps. Everything else, element
// by element.
struct Eights {
  static constexpr int run = 8;
  static ADAMW_DEVICE int index(unsigned lane, int j) { return static_cast<int>(lane) * 8 + j; }
};
struct Fours {
  static constexpr int run = 4;
  static ADAMW_DEVICE int index(unsigned lane, int j) { return (j / 4) * 128 + static_cast<int>(lane) * 4 + j % 4; }
};
struct Singles {
  static constexpr int run = 1;
  static ADAMW_DEVICE int index(unsigned lane, int j) { return j * 32 + static_cast<int>(lane); }
};

template <bool Halves>
struct Widest {
  using Share = Fours;
};
template <>
struct Widest<true> {
  using Share = Eights;
};

// ---- dtypes ----

// Two numbers, rounded, in one word: one instruction from sm_80 on.
ADAMW_DEVICE std::uint32_t bfloat16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return float_to_bfloat16(low) | float_to_bfloat16(high) << 16;
#endif
}
ADAMW_DEVICE std::uint32_t float16_pair(float low, float high) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  std::uint32_t word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  return float_to_float16(low) | float_to_float16(high) << 16;
#endif
}

// The upper halves of two words, and the lower ones, in one.
ADAMW_DEVICE std::uint32_t upper_halves(std::uint32_t low, std::uint32_t high) {
  return chosen_bytes(low, high, 0x7632u);
}
ADAMW_DEVICE std::uint32_t lower_halves(std::uint32_t low, std::uint32_t high) {
  return chosen_bytes(low, high, 0x5410u);
}

struct Float32 {
  using Stored = float;
  static constexpr int size = 4, remainder_bits = 0;
};
struct RuntimeDtype {};        // known at run time only: every block goes the way of the rare ones
struct RuntimeDtypeInRuns {};  // the same of rows in runs
struct Bfloat16 {
  using Stored = std::uint16_t;
  static constexpr int size = 2, remainder_bits = 0;
  static ADAMW_DEVICE float low(std::uint32_t word) { return from_bits(word << 16); }
  static ADAMW_DEVICE float high(std::uint32_t word) { return from_bits(word & 0xFFFF0000u); }
  static ADAMW_DEVICE std::uint32_t pair(float low, float high) { return bfloat16_pair(low, high); }
  // Stochastically. Numbers: neither is a NaN; infinities then need no care.
  template <bool Numbers>
  static ADAMW_DEVICE std::uint32_t pair(float low, float high, std::uint32_t low_word, std::uint32_t high_word) {
    if (Numbers) return upper_halves(bits(low) + (low_word >> 16), bits(high) + (high_word >> 16));
    return (float_to_bfloat16_stochastic(low, low_word) & 0xFFFFu) | float_to_bfloat16_stochastic(high, high_word)
                                                                         << 16;
  }
};
struct Float16 {
  using Stored = std::uint16_t;
  static constexpr int size = 2, remainder_bits = 0;
  static ADAMW_DEVICE float low(std::uint32_t word) { return float16_to_float(word & 0xFFFFu); }
  static ADAMW_DEVICE float high(std::uint32_t word) { return float16_to_float(word >> 16); }
  static ADAMW_DEVICE std::uint32_t pair(float low, float high) { return float16_pair(low, high); }
  template <bool Numbers>
  static ADAMW_DEVICE std::uint32_t pair(float low, float high, std::uint32_t low_word, std::uint32_t high_word) {
    return (float_to_float16_stochastic(low, low_word) & 0xFFFFu) | float_to_float16_stochastic(high, high_word) << 16;
  }
};

template <class T>
ADAMW_DEVICE const T *at(const void *base, std::int64_t index) {
  return static_cast<const T *>(base) + index;
}
template <class T>
ADAMW_DEVICE T *at(void *base, std::int64_t index) {
  return static_cast<T *>(base) + index;
}

// ---- floats ----

// Eight elements of a dtype from their words.
template <class Dtype>
ADAMW_DEVICE void unpack(float *x, const std::uint32_t *words) {
  for (int j = 0; j < each; ++j) {
    if constexpr (Dtype::size == 4) {
      x[j] = from_bits(words[j]);
    } else {
      x[j] = j % 2 == 0 ? Dtype::low(words[j / 2]) : Dtype::high(words[j / 2]);
    }
  }
}

// A lane's elements of a whole block, `size` bytes each. `first`: the address of its first.
template <class Share, int size>
ADAMW_DEVICE void load_of_all(std::uint32_t *words, const void *first) {
  for (int j = 0; j < each; j += Share::run)
    load_words<Share::run * size / 4>(at<unsigned char>(first, std::int64_t{Share::index(0, j)} * size),
                                      words + j * size / 4);
}

// Elements begin ... begin + n of an array of a dtype, as floats; 0 beyond n.
template <class Dtype, class Share>
ADAMW_DEVICE void load_floats(float *x, const void *base, std::int64_t begin, int n, unsigned lane) {
  if constexpr (Share::run == 1) {
    for (int j = 0; j < each; ++j) {
      const int i = Share::index(lane, j);
      if constexpr (Dtype::size == 4) {
        x[j] = i < n ? *at<float>(base, begin + i) : 0.0f;
      } else {
        x[j] = i < n ? Dtype::low(*at<std::uint16_t>(base, begin + i)) : 0.0f;
      }
    }
  } else {
    std::uint32_t words[each * Dtype::size / 4];
    load_of_all<Share, Dtype::size>(words, at<typename Dtype::Stored>(base, begin + Share::index(lane, 0)));
    unpack<Dtype>(x, words);
  }
}

// Where a lane stores to: `first` is the address of the first element that is its own. Only Singles ask for n, the
// number of elements of the block, and the lane.
template <class T, class Share>
ADAMW_DEVICE T *first_of(void *base, std::int64_t begin, unsigned lane) {
  return at<T>(base, begin + Share::index(lane, 0));
}

template <class Share>
ADAMW_DEVICE void store_float32(const float *x, void *first, int n = block_size, unsigned lane = 0) {
  for (int j = 0; j < each; j += Share::run) {
    float *to = at<float>(first, Share::index(0, j));
    if (Share::run == 1) {
      if (Share::index(lane, j) < n) *to = x[j];
    } else {
      std::uint32_t words[4];
      for (int k = 0; k < 4; ++k) words[k] = bits(x[(j + k) % each]);
      store_words<4>(to, words);
    }
  }
}

// Rounded halves, two a word.
template <class Share>
ADAMW_DEVICE void store_halves(const std::uint32_t *words, void *first, int n, unsigned lane) {
  for (int j = 0; j < each; j += Share::run) {
    std::uint16_t *to = at<std::uint16_t>(first, Share::index(0, j));
    if constexpr (Share::run == 1) {
      if (Share::index(lane, j) < n) *to = static_cast<std::uint16_t>(words[j / 2] >> 16 * (j % 2));
    } else {
      store_words<Share::run / 2>(to, words + j / 2);
    }
  }
}

// ---- random words ----

// One hash serves the eight elements of a group (math.h). The upper half of a group's number is 0 in all but giants.
struct Words {
  std::uint32_t key, group;  // group_key(key, 0)

  ADAMW_DEVICE std::uint32_t hash(std::uint64_t element) const {
    const std::uint64_t number = element >> 3;
    const std::uint32_t high = static_cast<std::uint32_t>(number >> 32);
    return mix32(static_cast<std::uint32_t>(number) ^ (high == 0 ? group : group_key(key, high)));
  }

  // The words of a lane's elements from its groups: hash(g) is that of the g-th group of the block. Not for Singles.
  template <class Share, class Hash>
  static ADAMW_DEVICE void spread(std::uint32_t *words, unsigned lane, const Hash &hash) {
    if (Share::run == 8) {
      const std::uint32_t h = hash(lane);
      for (int j = 0; j < each; ++j) words[j] = h * word_multipliers[j];
    } else {
      const std::uint32_t second = 0u - (lane & 1);  // half of a group: all bits, or none
      for (int j = 0; j < each; j += 4) {
        const std::uint32_t h = hash(static_cast<unsigned>(Share::index(lane, j)) / 8);
        for (int i = 0; i < 4; ++i)
          // Not by a choice of places in the table: that would be read from memory, in every block.
          words[(j + i) % each] =
              h * (word_multipliers[i] ^ (second & (word_multipliers[i] ^ word_multipliers[4 + i])));
      }
    }
  }

  // `start`: global index of the block's first element, a multiple of 8 unless Share is Singles.
  template <class Share>
  ADAMW_DEVICE void fill(std::uint32_t *words, std::uint64_t start, unsigned lane) const {
    if constexpr (Share::run == 1) {
      for (int j = 0; j < each; ++j)
        words[j] = random_word(key, start + static_cast<std::uint64_t>(Share::index(lane, j)));
    } else {
      spread<Share>(words, lane, [&](unsigned g) { return hash(start + 8 * g); });
    }
  }
};

// Numbers of a dtype from floats, rounded to nearest.
template <class Dtype, class Share>
ADAMW_DEVICE void store_rounded(const float *x, void *first, int n = block_size, unsigned lane = 0) {
  if constexpr (Dtype::size == 4) {
    store_float32<Share>(x, first, n, lane);
  } else {
    std::uint32_t words[each / 2];
    for (int j = 0; j < each; j += 2) words[j / 2] = Dtype::pair(x[j], x[j + 1]);
    store_halves<Share>(words, first, n, lane);
  }
}
// Stochastically, by a random word each. Numbers: there is no NaN among them.
template <class Dtype, class Share, bool Numbers>
ADAMW_DEVICE void store_stochastically(const float *x, const std::uint32_t *random, void *first, int n = block_size,
                                       unsigned lane = 0) {
  static_assert(Dtype::size == 2, "others need not round");
  std::uint32_t words[each / 2];
  for (int j = 0; j < each; j += 2)
    words[j / 2] = Dtype::template pair<Numbers>(x[j], x[j + 1], random[j], random[j + 1]);
  store_halves<Share>(words, first, n, lane);
}

// ---- dtypes known at run time, for the rare paths ----

ADAMW_DEVICE void load_any(float *x, const void *base, int dtype, std::int64_t begin, int n, unsigned lane) {
#define ADAMW_CASE(value, Dtype) \
  if (dtype == value) return load_floats<Dtype, Singles>(x, base, begin, n, lane);
  ADAMW_KERNEL_DTYPES(ADAMW_CASE)
#undef ADAMW_CASE
  __builtin_unreachable();
}

// ---- codes: eight bytes in two words ----

// As Singles; whoever reads whole blocks does it by words.
ADAMW_DEVICE void load_codes(std::uint32_t *codes, const void *base, std::int64_t begin, int n, unsigned lane,
                             std::uint32_t padding) {
  codes[0] = codes[1] = 0;
  for (int j = 0; j < each; ++j) {
    const int i = Singles::index(lane, j);
    const std::uint32_t code = i < n ? *at<std::uint8_t>(base, begin + i) : padding;
    codes[j / 4] |= code << 8 * (j % 4);
  }
}

ADAMW_DEVICE std::uint32_t code_at(const std::uint32_t *codes, int j) { return codes[j / 4] >> 8 * (j % 4) & 0xFFu; }

// `codes`: eight numbers with their codes where pack_codes() finds them.
template <class Share>
ADAMW_DEVICE void store_codes(const std::uint32_t *codes, void *first, int n = block_size, unsigned lane = 0) {
  std::uint32_t words[2];
  for (int j = 0; j < 2; ++j) {
    words[j] = pack_codes(codes[4 * j], codes[4 * j + 1], codes[4 * j + 2], codes[4 * j + 3]);
  }
  for (int j = 0; j < each; j += Share::run) {
    std::uint8_t *to = at<std::uint8_t>(first, Share::index(0, j));
    if (Share::run == 1) {
      if (Share::index(lane, j) < n) *to = static_cast<std::uint8_t>(code_at(words, j));
    } else {
      store_words<(Share::run + 3) / 4>(to, words + j / 4);
    }
  }
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
