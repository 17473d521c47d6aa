// Owns what is done with blocks beside the step: the sums and maxima that a step may need first, and quantization
// alone.
#pragma once

#include "block_step.h"

namespace adamw {
namespace {

// ---- passes before the step ----

ADAMW_INLINE double sum_of_lanes(V x) {
  static_assert(lanes == sum_lanes, "the order of sums is fixed");
  alignas(64) float lane[lanes];
  store(lane, x);
  double wide[lanes];
  for (int i = 0; i < lanes; ++i) wide[i] = lane[i];
  return halves(wide);
}

// What is summed: a block's directions and parameters, lane by lane.
struct Squares {
  V directions{0.0f}, params{0.0f};

  // 0 / 0 where eps is 0 and an element never had a gradient, as the padding has none: it does not count.
  ADAMW_INLINE void add(V direction, V param) {
    const V d = select(not_equal(direction, direction), V(0.0f), direction);
    directions = fma(d, d, directions);
    params = fma(param, param, params);
  }
  ADAMW_INLINE void add_to(Measures &all) const {
    all.direction_squares += sum_of_lanes(directions);
    all.param_squares += sum_of_lanes(params);
  }
};

template <bool Amsgrad>
Measures measure8(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  const Factors8 f = direction_factors8(row.coefficients);
  Measures all{};
  Operands o;
  Fresh fresh;
  const auto see = [](float &largest, std::uint32_t found) {
    if (as_float(found) > largest) largest = as_float(found);
  };
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_param_and_grad(o, kind, row);
    load_state8<Amsgrad>(o, kind, row, block);
    masked_moments8<Amsgrad>(fresh, o, f, kind.skip_zeros);
    see(all.exp_avg, fresh.largest_exp_avg);
    see(all.root, fresh.largest_root);
    see(all.max_root, fresh.largest_max_root);
    Squares squares;
    for (int i = 0; i < o.padded; i += lanes) {
      const V direction = change8(load(fresh.exp_avg + i), load((Amsgrad ? fresh.max_root : fresh.root) + i), f);
      const M steps = not_equal(load(fresh.steps + i), V(0.0f));
      squares.add(select(steps, direction, V(0.0f)), load(o.param.at + i));
    }
    squares.add_to(all);
  }
  if (!Amsgrad) all.max_root = all.root;
  return all;
}

template <bool Amsgrad>
Measures measure32(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  const Coefficients &c = row.coefficients;
  const adamw_tensor &t = row.tensor;
  Measures all{};
  Operands o;
  Staged<float> m, v, x;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_param_and_grad(o, kind, row);
    m.load(static_cast<float *>(t.exp_avg) + o.begin, o.n, o.padded, 0.0f);
    v.load(static_cast<float *>(t.exp_avg_sq) + o.begin, o.n, o.padded, 0.0f);
    if (Amsgrad) x.load(static_cast<float *>(t.max_exp_avg_sq) + o.begin, o.n, o.padded, 0.0f);
    Squares squares;
    for (int i = 0; i < o.padded; i += lanes) {
      const V p = load(o.param.at + i), largest = Amsgrad ? load(x.at + i) : V(0.0f);
      squares.add(
          step_element32<Amsgrad>(p, load(o.grad.at + i), load(m.at + i), load(v.at + i), largest, c, kind.skip_zeros)
              .direction,
          p);
    }
    squares.add_to(all);
  }
  return all;
}

Measures measure(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  if (kind.state_format == ADAMW_STATE_FLOAT32) {
    return kind.amsgrad ? measure32<true>(kind, row, first, last) : measure32<false>(kind, row, first, last);
  }
  return kind.amsgrad ? measure8<true>(kind, row, first, last) : measure8<false>(kind, row, first, last);
}

double gradient_squares(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  Operands o;
  double sum = 0.0;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    load_floats(o.grad, row.tensor.grad, kind.grad_dtype, o.begin, o.n, o.padded);
    V squares(0.0f);
    for (int i = 0; i < o.padded; i += lanes) {
      const V g = load(o.grad.at + i) * V(row.coefficients.gradient_scale);
      squares = fma(g, g, squares);
    }
    sum += sum_of_lanes(squares);
  }
  return sum;
}

// ---- quantization alone ----

// NaN and infinities, and for the unsigned map what is negative, count as zero.
ADAMW_INLINE V sanitized(V x, adamw_map map) {
  const V zero(0.0f), finite = select(is_finite(x), x, zero);
  return map == ADAMW_MAP_SIGNED ? finite : max(finite, zero);
}

ADAMW_INLINE float largest_of_block(const float *x, int padded, adamw_map map) {
  Largest largest;
  for (int i = 0; i < padded; i += lanes) largest.see(bits(magnitude(sanitized(load(x + i), map))));
  return as_float(largest.value());
}

float largest(const QuantizePlan &plan, const float *source, std::int64_t first, std::int64_t last) {
  float result = 0.0f;
  Staged<float> x;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    x.load(const_cast<float *>(source) + begin, n, padded, 0.0f);
    const float candidate = largest_of_block(x.at, padded, plan.map);
    result = candidate > result ? candidate : result;
  }
  return result;
}

void quantize(const QuantizePlan &plan, const float *source, std::uint8_t *codes, float *absmax, const Scale *given,
              std::int64_t first, std::int64_t last) {
  alignas(64) std::uint32_t words[ADAMW_BLOCK_SIZE];
  Staged<float> x;
  Staged<std::uint8_t> out;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    x.load(const_cast<float *>(source) + begin, n, padded, 0.0f);
    out.place(codes + begin, n, padded);
    const Scale scale = given != nullptr ? *given : block_scale(largest_of_block(x.at, padded, plan.map));
    if (given == nullptr) absmax[block] = scale.absmax;
    if (plan.stochastic) fill_words(words, plan.key, static_cast<std::uint64_t>(plan.global_offset + begin), padded);
    for (int i = 0; i < padded; i += lanes) {
      // A scale of zero stands for a block whose numbers are too small to keep: they must not become code 1.
      const V value = scale.absmax > 0.0f ? sanitized(load(x.at + i), plan.map) : V(0.0f);
      const I noise = plan.stochastic ? noise_of(load(words + i)) : I(0u);
      store_codes(out.at + i, plan.map == ADAMW_MAP_SIGNED
                                  ? encode_signed(value, V(scale.inverse), noise, signed_map)
                                  : encode_unsigned(value, V(scale.inverse), noise, unsigned_map));
    }
    out.commit();
  }
}

void dequantize(const QuantizePlan &plan, const std::uint8_t *codes, const float *absmax, float *target,
                std::int64_t first, std::int64_t last) {
  Staged<std::uint8_t> in;
  Staged<float> out;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    in.load(const_cast<std::uint8_t *>(codes) + begin, n, padded, 0);
    out.place(target + begin, n, padded);
    const V scale(absmax[plan.blockwise ? block : 0]);
    for (int i = 0; i < padded; i += lanes) {
      const I code = load(in.at + i);
      const V value = plan.map == ADAMW_MAP_SIGNED ? decode_signed<V>(code) : decode_unsigned<V>(code);
      store(out.at + i, value * scale);
    }
    out.commit();
  }
}

}  // namespace
}  // namespace adamw
