// Owns a block's parameters: as they are, or as the master weights that they make with their remainders. Knows nothing
// of gradients and moments.
#pragma once

#include "../numerics/master_weights.h"
#include "block_memory.h"

namespace adamw {
namespace {

template <int bits>
ADAMW_INLINE V load_weight(Remainder<bits>, const void *param, const void *remainder, int i) {
  const auto *rest = static_cast<const typename Remainder<bits>::Type *>(remainder);
  return joined_weight<bits, V>(load(half_words(param) + i), load(rest + i));
}
template <int bits>
ADAMW_INLINE void store_weight(Remainder<bits>, void *param, void *remainder, int i, V x, I noise) {
  const I split = split_weight<bits>(x, noise);
  store(static_cast<std::uint16_t *>(param) + i, param_of(split));
  if constexpr (bits == 8) {
    store_second_bytes(static_cast<std::uint8_t *>(remainder) + i, split);
  } else {
    store(static_cast<std::uint16_t *>(remainder) + i, split & I(0xFFFFu));
  }
}

ADAMW_RARE V load_any_weight(int remainder_bits, const void *param, const void *remainder, int i) {
  V x;
  dispatch_remainder(remainder_bits, [&](auto type) { x = load_weight(type, param, remainder, i); });
  return x;
}

// Rounds `padded` stepped parameters to where they belong: stochastically, or without words to nearest.
ADAMW_RARE void store_any(Elements &to, const float *values, int padded, const Words *words) {
  dispatch_dtype(to.dtype, [&](auto type) {
    for (int i = 0; i < padded; i += lanes) {
      const V x = load(values + i);
      if (words != nullptr) {
        store_rounded(type, to.at, i, x, words->of_any(i));
      } else {
        store_as(type, to.at, i, x);
      }
    }
  });
}

// The same of weights; the words: null, or those of the moments.
ADAMW_RARE void store_any_weights(int remainder_bits, void *param, void *remainder, const float *values, int padded,
                                  const Words *words) {
  dispatch_remainder(remainder_bits, [&](auto type) {
    for (int i = 0; i < padded; i += lanes) {
      const I noise = words != nullptr ? noise_of_24_bits(words->of_any(i)) : I(nearest_of_24_bits);
      store_weight(type, param, remainder, i, load(values + i), noise);
    }
  });
}

struct Params {
  Elements kept;
  StagedBytes<2> remainder;
  alignas(64) float stepped[ADAMW_BLOCK_SIZE];  // those that commit() rounds, if they are `staged`
  int remainder_bits, padded;
  bool random, staged;

  ADAMW_INLINE void load(const StepKind &kind, const Row &row, std::int64_t begin, int n, int padded_n) {
    kept.load(row.tensor.param, kind.param_dtype, begin, n, padded_n);
    remainder_bits = kind.remainder_bits;
    if (remainder_bits != 0) {
      remainder.load(row.tensor.param_remainder, static_cast<int>(kind.remainder_bytes()), begin, n, padded_n);
    }
    padded = padded_n;
    random = kind.rounds_params();
    staged = false;
  }

  // body(a type), with which body calls those below: their dtype, Remainder<bits>, or AnyDtype where random words of
  // their own round them. dispatch_dtype(): AnyDtype also where there are remainders.
  template <class Body>
  ADAMW_INLINE void dispatch(const Body &body) const {
    if (compact || remainder_bits == 0) {
      dispatch_dtype(body);
    } else {
      dispatch_remainder(remainder_bits, body);
    }
  }
  template <class Body>
  ADAMW_INLINE void dispatch_dtype(const Body &body) const {
    if (random || remainder_bits != 0) {
      body(AnyDtype{});
    } else {
      kept.dispatch(body);
    }
  }

  template <class Type>
  ADAMW_INLINE V floats(Type type, int i) const {
    return kept.floats(type, i);
  }
  template <int bits>
  ADAMW_INLINE V floats(Remainder<bits> type, int i) const {
    return load_weight(type, kept.at, remainder.at, i);
  }
  ADAMW_INLINE V floats(AnyDtype any, int i) const {
    return remainder_bits == 0 ? kept.floats(any, i) : load_any_weight(remainder_bits, kept.at, remainder.at, i);
  }

  // word(): the random words of the elements, which round their moments.
  template <class Type, class Word>
  ADAMW_INLINE void set(Type type, int i, V x, const Word &) {
    kept.store(type, i, x);
  }
  template <int bits, class Word>
  ADAMW_INLINE void set(Remainder<bits> type, int i, V x, const Word &word) {
    store_weight(type, kept.at, remainder.at, i, x, bits == 8 ? noise_of_24_bits(word()) : I(0u));
  }
  template <class Word>
  ADAMW_INLINE void set(AnyDtype, int i, V x, const Word &) {
    store(stepped + i, x);
    staged = true;
  }

  template <class Type>
  ADAMW_INLINE void prefetch(Type type, int i) const {
    kept.prefetch(type, i);
  }
  template <int bits>
  ADAMW_INLINE void prefetch(Remainder<bits>, int i) const {
    kept.prefetch(Dtype<ADAMW_BFLOAT16>{}, i);
    constexpr int size = bits / 8;
    if (i * size % 64 == 0) prefetch_ahead(remainder.at, i, size);
  }

  // Takes the stepped parameters back. `index`: of the first, in the unsharded tensor; `words` is scratch.
  ADAMW_INLINE void commit(const Coefficients &c, std::int64_t index, Words &words) {
    const bool drops_bits = remainder_bits == 8;
    if (staged) {
      if (random || drops_bits) words.fill(random ? c.param_key : c.state_key, index, padded);
      const Words *drawn = random || drops_bits ? &words : nullptr;
      if (remainder_bits != 0) {
        store_any_weights(remainder_bits, kept.at, remainder.at, stepped, padded, drawn);
      } else {
        store_any(kept, stepped, padded, drawn);
      }
    }
    kept.commit();
    if (remainder_bits != 0) remainder.commit();
  }
};

}  // namespace
}  // namespace adamw
