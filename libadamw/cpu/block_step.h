// Owns the step of a run of blocks, written once against a vector type. Knows nothing of threads, of what lies beyond
// its row, or of how arguments were checked.
#pragma once

#include <algorithm>

#include "block_memory.h"
#include "kernels.h"
#include "vector.h"

namespace adamw {
namespace {

// ---- a row's operands, one block at a time ----

struct Scales {
  float exp_avg, root, max_root;
};

struct Operands {
  Staged<float> param, grad;
  Staged<std::uint8_t> exp_avg, root, max_root;
  Scales scales;
  std::int64_t begin;
  int n, padded;

  ADAMW_INLINE void place(const Row &row, std::int64_t block) {
    const BlockLayout::Place place = row.blocks.place(block);
    begin = place.begin;
    n = place.length;
    padded = (n + lanes - 1) & ~(lanes - 1);
  }
};

ADAMW_INLINE void load_param_and_grad(Operands &o, const StepKind &kind, const Row &row) {
  load_floats(o.param, row.tensor.param, kind.param_dtype, o.begin, o.n, o.padded);
  load_floats(o.grad, row.tensor.grad, kind.grad_dtype, o.begin, o.n, o.padded);
}

template <bool Amsgrad>
ADAMW_INLINE void load_state8(Operands &o, const StepKind &kind, const Row &row, std::int64_t block) {
  const adamw_tensor &t = row.tensor;
  const std::int64_t s = kind.state_format == ADAMW_STATE_BLOCK8 ? block : 0;
  const auto codes = [&](void *p) { return static_cast<std::uint8_t *>(p) + o.begin; };
  o.exp_avg.load(codes(t.exp_avg), o.n, o.padded, 127);  // padding must decode to zero
  o.root.load(codes(t.exp_avg_sq), o.n, o.padded, 0);
  o.scales = {t.exp_avg_absmax[s], t.exp_avg_sq_absmax[s], 0.0f};
  if (Amsgrad) {
    o.max_root.load(codes(t.max_exp_avg_sq), o.n, o.padded, 0);
    o.scales.max_root = t.max_exp_avg_sq_absmax[s];
  }
}

ADAMW_INLINE float as_float(std::uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

// ---- 8-bit state: all of a block's moments, then, knowing their scales, its parameters and codes ----

// The block's new moments before they are rounded, which elements are stepped (Masked only: 1 or 0), and the bits of
// the largest magnitudes (which order as floats do, with infinities and NaN on top).
struct Fresh {
  alignas(64) float exp_avg[ADAMW_BLOCK_SIZE], root[ADAMW_BLOCK_SIZE], max_root[ADAMW_BLOCK_SIZE],
      steps[ADAMW_BLOCK_SIZE];
  std::uint32_t largest_exp_avg, largest_root, largest_max_root;
  int skipped;
};

// Masked = false: the arithmetic alone. Masked = true leaves the moments of elements that are not stepped as they are.
template <bool Amsgrad, bool Masked>
ADAMW_INLINE void moments8(Fresh &fresh, const Operands &o, const Factors8 &f, bool skip_zeros) {
  const OldFactors old = old_factors(f, o.scales.exp_avg, o.scales.root);
  Largest largest_m, largest_r, largest_x;
  fresh.skipped = Masked ? o.padded : 0;
  for (int i = 0; i < o.padded; i += lanes) {
    const V value = decode_signed<V>(load(o.exp_avg.at + i)), root_value = decode_unsigned<V>(load(o.root.at + i));
    const V old_x = Amsgrad ? decode_unsigned<V>(load(o.max_root.at + i)) * V(o.scales.max_root) : V(0.0f);
    const V raw = load(o.grad.at + i);
    const Moments<V> next = update_moments8(value, root_value * root_value, raw, f, old);
    V m = next.exp_avg, r = sqrt(next.exp_avg_sq), x = Amsgrad ? maximum(old_x, r) : r;
    if (Masked) {
      fresh.skipped -= count(less_equal(next.exp_avg_sq, V(largest_float)));
      const M steps = steps8(next.exp_avg_sq, raw, skip_zeros);
      m = select(steps, m, value * V(o.scales.exp_avg));
      r = select(steps, r, root_value * V(o.scales.root));
      x = select(steps, x, Amsgrad ? old_x : r);
      store(fresh.steps + i, select(steps, V(1.0f), V(0.0f)));
    }
    store(fresh.exp_avg + i, m);
    store(fresh.root + i, r);
    largest_m.see(bits(m) & 0x7FFFFFFFu);
    largest_r.see(bits(r));
    if (Amsgrad) {
      store(fresh.max_root + i, x);
      largest_x.see(bits(x));
    }
  }
  // Zeros that pad a block are skipped where all of it is, by a factor that is infinite.
  if (Masked) fresh.skipped = std::min(fresh.skipped, o.n);
  fresh.largest_exp_avg = largest_m.value();
  fresh.largest_root = largest_r.value();
  fresh.largest_max_root = largest_x.value();
}

// Few blocks need masks.
template <bool Amsgrad>
ADAMW_ONCE void masked_moments8(Fresh &fresh, const Operands &o, const Factors8 &f, bool skip_zeros) {
  moments8<Amsgrad, true>(fresh, o, f, skip_zeros);
}

// moments8() with masks where the block needs them. Returns whether it did.
template <bool Amsgrad>
ADAMW_INLINE bool new_moments8(Fresh &fresh, const Operands &o, const Factors8 &f, bool skip_zeros) {
  if (!skip_zeros) {
    moments8<Amsgrad, false>(fresh, o, f, false);
    if (fresh.largest_root <= 0x7F7FFFFFu) return false;
  }
  masked_moments8<Amsgrad>(fresh, o, f, skip_zeros);
  return true;
}

template <bool Amsgrad, bool Masked>
ADAMW_INLINE void finish8(const Operands &o, const Fresh &fresh, const Factors8 &f, const TensorScales &scales,
                          const std::uint32_t *words) {
  for (int i = 0; i < o.padded; i += lanes) {
    const V m = load(fresh.exp_avg + i), r = load(fresh.root + i), x = Amsgrad ? load(fresh.max_root + i) : r;
    const V p = load(o.param.at + i), next = update_param8(p, m, x, f);
    store(o.param.at + i, Masked ? select(not_equal(load(fresh.steps + i), V(0.0f)), next, p) : next);
    const I noise = noise_of(load(words + i));
    store_codes(o.exp_avg.at + i, encode_signed(m, V(scales.exp_avg.inverse), noise, signed_map));
    store_codes(o.root.at + i, encode_unsigned(r, V(scales.root.inverse), noise, unsigned_map));
    if (Amsgrad) {
      store_codes(o.max_root.at + i, encode_unsigned(x, V(scales.max_root.inverse), I(0u), unsigned_map));
    }
  }
}

template <bool Amsgrad>
ADAMW_ONCE void masked_finish8(const Operands &o, const Fresh &fresh, const Factors8 &f, const TensorScales &scales,
                               const std::uint32_t *words) {
  finish8<Amsgrad, true>(o, fresh, f, scales, words);
}

template <bool Amsgrad>
std::int64_t step8(const StepKind &kind, const Row &row, const TensorScales *given, std::int64_t first,
                   std::int64_t last) {
  const Coefficients &c = row.coefficients;
  const Factors8 f = factors8(c);
  const adamw_tensor &t = row.tensor;
  alignas(64) std::uint32_t words[ADAMW_BLOCK_SIZE];
  Operands o;
  Fresh fresh;
  std::int64_t skipped = 0;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_param_and_grad(o, kind, row);
    load_state8<Amsgrad>(o, kind, row, block);
    const bool masked = new_moments8<Amsgrad>(fresh, o, f, kind.skip_zeros);
    skipped += fresh.skipped;

    TensorScales scales;
    if (given != nullptr) {
      scales = *given;
    } else {
      scales = {block_scale(as_float(fresh.largest_exp_avg)), block_scale(as_float(fresh.largest_root)),
                block_scale(as_float(fresh.largest_max_root))};
      t.exp_avg_absmax[block] = scales.exp_avg.absmax;
      t.exp_avg_sq_absmax[block] = scales.root.absmax;
      if (Amsgrad) t.max_exp_avg_sq_absmax[block] = scales.max_root.absmax;
    }
    const std::int64_t index = row.index(o.begin);
    fill_words(words, c.state_key, static_cast<std::uint64_t>(index), o.padded);
    if (masked) {
      masked_finish8<Amsgrad>(o, fresh, f, scales, words);
    } else {
      finish8<Amsgrad, false>(o, fresh, f, scales, words);
    }
    store_params(o.param.at, t.param, kind, c, index, o.begin, o.n, o.padded, words);
    o.exp_avg.commit();
    o.root.commit();
    if (Amsgrad) o.max_root.commit();
  }
  return skipped;
}

// ---- 32-bit state ----

template <bool Amsgrad>
std::int64_t step32(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  const Coefficients &c = row.coefficients;
  const adamw_tensor &t = row.tensor;
  alignas(64) std::uint32_t words[ADAMW_BLOCK_SIZE];
  Operands o;
  Staged<float> exp_avg, exp_avg_sq, max_exp_avg_sq;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_param_and_grad(o, kind, row);
    exp_avg.load(static_cast<float *>(t.exp_avg) + o.begin, o.n, o.padded, 0.0f);
    exp_avg_sq.load(static_cast<float *>(t.exp_avg_sq) + o.begin, o.n, o.padded, 0.0f);
    if (Amsgrad) max_exp_avg_sq.load(static_cast<float *>(t.max_exp_avg_sq) + o.begin, o.n, o.padded, 0.0f);
    for (int i = 0; i < o.padded; i += lanes) {
      const V x = Amsgrad ? load(max_exp_avg_sq.at + i) : V(0.0f);
      const Stepped<V> s = step_element32<Amsgrad>(load(o.param.at + i), load(o.grad.at + i), load(exp_avg.at + i),
                                                   load(exp_avg_sq.at + i), x, c, kind.skip_zeros);
      store(o.param.at + i, s.param);
      store(exp_avg.at + i, s.exp_avg);
      store(exp_avg_sq.at + i, s.exp_avg_sq);
      if (Amsgrad) store(max_exp_avg_sq.at + i, s.max_exp_avg_sq);
    }
    store_params(o.param.at, t.param, kind, c, row.index(o.begin), o.begin, o.n, o.padded, words);
    exp_avg.commit();
    exp_avg_sq.commit();
    if (Amsgrad) max_exp_avg_sq.commit();
  }
  return 0;
}

std::int64_t step(const StepKind &kind, const Row &row, const TensorScales *scales, std::int64_t first,
                  std::int64_t last) {
  if (kind.state_format == ADAMW_STATE_FLOAT32) {
    return kind.amsgrad ? step32<true>(kind, row, first, last) : step32<false>(kind, row, first, last);
  }
  return kind.amsgrad ? step8<true>(kind, row, scales, first, last) : step8<false>(kind, row, scales, first, last);
}

}  // namespace
}  // namespace adamw
