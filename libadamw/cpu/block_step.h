// Owns the step of a run of blocks, written once against a vector type. Knows nothing of threads, of what lies beyond
// its row, or of how arguments were checked.
#pragma once

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

template <bool Amsgrad, bool Masked>
ADAMW_INLINE Stepped<V> step_operands8(const Operands &o, int i, const Coefficients &c, bool skip_zeros) {
  const V m = decode_signed<V>(load(o.exp_avg.at + i)) * V(o.scales.exp_avg);
  const V r = decode_unsigned<V>(load(o.root.at + i)) * V(o.scales.root);
  const V x = Amsgrad ? decode_unsigned<V>(load(o.max_root.at + i)) * V(o.scales.max_root) : r;
  return step_element8<Amsgrad, Masked>(load(o.param.at + i), load(o.grad.at + i), m, r, x, c, skip_zeros);
}

// The block's new values before they are rounded, and the bits of their largest magnitudes (which order as floats do,
// with infinities and NaN on top).
struct Fresh {
  alignas(64) float param[ADAMW_BLOCK_SIZE], exp_avg[ADAMW_BLOCK_SIZE], root[ADAMW_BLOCK_SIZE],
      max_root[ADAMW_BLOCK_SIZE];
  std::uint32_t largest_exp_avg, largest_root, largest_max_root;
};

template <bool Amsgrad, bool Masked>
ADAMW_INLINE void compute8(Fresh &f, const Operands &o, const Coefficients &c, bool skip_zeros) {
  Largest largest_m, largest_r, largest_x;
  for (int i = 0; i < o.padded; i += lanes) {
    const Stepped<V> s = step_operands8<Amsgrad, Masked>(o, i, c, skip_zeros);
    store(f.param + i, s.param);
    store(f.exp_avg + i, s.exp_avg);
    store(f.root + i, s.root);
    largest_m.see(bits(s.exp_avg) & 0x7FFFFFFFu);
    largest_r.see(bits(s.root));
    if (Amsgrad) {
      store(f.max_root + i, s.max_root);
      largest_x.see(bits(s.max_root));
    }
  }
  f.largest_exp_avg = largest_m.value();
  f.largest_root = largest_r.value();
  f.largest_max_root = largest_x.value();
}

// Elements whose second moment overflows or is NaN.
template <bool Amsgrad>
int count_skipped(const Operands &o, const Coefficients &c) {
  int skipped = o.padded;
  for (int i = 0; i < o.padded; i += lanes) {
    skipped -= count(less_equal(step_operands8<Amsgrad, false>(o, i, c, false).root, V(largest_float)));
  }
  return skipped;
}

// compute8, and again with masks where the block needs them. Returns the skipped elements.
template <bool Amsgrad>
ADAMW_INLINE int fresh_block8(Fresh &f, const Operands &o, const Coefficients &c, bool skip_zeros) {
  if (!skip_zeros) {
    compute8<Amsgrad, false>(f, o, c, false);
    if (f.largest_root <= 0x7F7FFFFFu) return 0;
  }
  const int skipped = count_skipped<Amsgrad>(o, c);
  compute8<Amsgrad, true>(f, o, c, skip_zeros);
  return skipped;
}

ADAMW_INLINE float as_float(std::uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}

// ---- the step ----

template <bool Amsgrad>
ADAMW_INLINE void encode_block8(const Operands &o, const Fresh &f, const TensorScales &scales,
                                const std::uint32_t *words) {
  for (int i = 0; i < o.padded; i += lanes) {
    const V rounding = rounding_number<V>(load(words + i));
    store_saturated(o.exp_avg.at + i,
                    encode_signed(load(f.exp_avg + i), V(scales.exp_avg.inverse), rounding, signed_map));
    store_saturated(o.root.at + i, encode_unsigned(load(f.root + i), V(scales.root.inverse), rounding, unsigned_map));
    if (Amsgrad) {
      store_saturated(o.max_root.at + i,
                      encode_unsigned(load(f.max_root + i), V(scales.max_root.inverse), V(1.5f), unsigned_map));
    }
  }
}

template <bool Amsgrad>
std::int64_t step8(const StepKind &kind, const Row &row, const TensorScales *given, std::int64_t first,
                   std::int64_t last) {
  const Coefficients &c = row.coefficients;
  const adamw_tensor &t = row.tensor;
  alignas(64) std::uint32_t words[ADAMW_BLOCK_SIZE];
  Operands o;
  Fresh f;
  std::int64_t skipped = 0;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_param_and_grad(o, kind, row);
    load_state8<Amsgrad>(o, kind, row, block);
    skipped += fresh_block8<Amsgrad>(f, o, c, kind.skip_zeros);
    store_params(f.param, t.param, kind, c, t.global_offset + o.begin, o.begin, o.n, o.padded, words);

    TensorScales scales;
    if (given != nullptr) {
      scales = *given;
    } else {
      scales = {block_scale(as_float(f.largest_exp_avg)), block_scale(as_float(f.largest_root)),
                block_scale(as_float(f.largest_max_root))};
      t.exp_avg_absmax[block] = scales.exp_avg.absmax;
      t.exp_avg_sq_absmax[block] = scales.root.absmax;
      if (Amsgrad) t.max_exp_avg_sq_absmax[block] = scales.max_root.absmax;
    }
    fill_words(words, c.state_key, static_cast<std::uint64_t>(t.global_offset + o.begin), o.padded);
    encode_block8<Amsgrad>(o, f, scales, words);
    o.exp_avg.commit();
    o.root.commit();
    if (Amsgrad) o.max_root.commit();
  }
  return skipped;
}

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
      store(exp_avg_sq.at + i, s.root);
      if (Amsgrad) store(max_exp_avg_sq.at + i, s.max_root);
    }
    store_params(o.param.at, t.param, kind, c, t.global_offset + o.begin, o.begin, o.n, o.padded, words);
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
