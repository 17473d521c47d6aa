// Owns what is done with blocks beside the step: the gradient's norm, and quantization and master weights alone.
#pragma once

#include "block_step.h"

namespace adamw {
namespace {

double gradient_squares(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  Operands o;
  double sum = 0.0;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    o.grad.load(row.tensor.grad, kind.grad_dtype, o.begin, o.n, o.padded);
    V squares(0.0f);
    o.grad.dispatch([&](auto type) {
      for (int i = 0; i < o.padded; i += lanes) {
        const V g = o.grad.floats(type, i) * V(row.coefficients.gradient_scale);
        squares = fma(g, g, squares);
      }
    });
    sum += sum_of_lanes(squares);
  }
  return sum;
}

// Of segments of one gradient at the same time, block by block: a processor reads some stretches of memory side by side
// faster than one alone. All of these blocks are whole, unless there is one only.
template <int Streams>
ADAMW_INLINE void add_squares(double (*sums)[position_sums], const void *numbers, adamw_dtype dtype,
                              const BlockLayout::Place (&places)[Streams]) {
  const int n = places[0].length, padded = (n + lanes - 1) & ~(lanes - 1);
  Elements x[Streams];
  for (int k = 0; k < Streams; ++k) x[k].load(numbers, dtype, places[k].begin, n, padded);
  x[0].dispatch([&](auto type) ADAMW_ALWAYS {
    for (int i = 0; i < padded; i += lanes) {
      for (int k = 0; k < Streams; ++k) {
        Sums own;
        own.load(sums[k] + i);
        own.add(x[k].floats(type, i));
        own.store(sums[k] + i);
      }
    }
  });
}

// Sets out[s] to those of segment first + s.
void squares(const void *numbers, adamw_dtype dtype, std::int64_t numel, std::int64_t first, std::int64_t last,
             double *out) {
  constexpr int streams = 4;
  const BlockLayout blocks = block_layout(numel, numel);
  const Segments segments = segments_of(blocks.count);
  // Of a tensor of a few elements most sums are never used.
  int used = lanes;
  while (used < position_sums && used < numel) used *= 2;
  alignas(64) double sums[streams][position_sums];
  for (std::int64_t s = first; s < last;) {
    const int together = last - s >= streams ? streams : 1;
    for (int k = 0; k < together; ++k)
      for (int i = 0; i < used; ++i) sums[k][i] = 0.0;
    std::int64_t common = 0;  // so many blocks of each, all of them whole: the last segment is the shortest
    if (together == streams) {
      common = (numel / block_size < segments.begin(s + streams) ? numel / block_size : segments.begin(s + streams)) -
               segments.begin(s + streams - 1);
    }
    for (std::int64_t b = 0; b < common; ++b) {
      BlockLayout::Place places[streams];
      for (int k = 0; k < streams; ++k) places[k] = blocks.place(segments.begin(s + k) + b);
      add_squares<streams>(sums, numbers, dtype, places);
    }
    for (int k = 0; k < together; ++k) {
      for (std::int64_t b = segments.begin(s + k) + common; b < segments.begin(s + k + 1); ++b) {
        const BlockLayout::Place place[1] = {blocks.place(b)};
        add_squares<1>(sums + k, numbers, dtype, place);
      }
      out[s - first + k] = sum_of_positions(sums[k], used);
    }
    s += together;
  }
}

// ---- quantization alone ----

// NaN and infinities, and of second moments what is negative, count as zero.
ADAMW_INLINE V sanitized(V x, adamw_moment moment) {
  const V zero(0.0f), finite = select(is_finite(x), x, zero);
  return moment == ADAMW_MOMENT_EXP_AVG ? finite : max(finite, zero);
}

// Of a block: what is beyond n, up to padded, is zero.
ADAMW_INLINE Extremes extremes_of_block(const float *x, int n, int padded, adamw_moment moment) {
  alignas(64) float magnitudes[ADAMW_BLOCK_SIZE];
  Largest largest;
  for (int i = 0; i < padded; i += lanes) {
    const V a = magnitude(sanitized(load(x + i), moment));
    store(magnitudes + i, a);
    largest.see(bits(a));
  }
  return {from_bits(largest.value()), from_bits(extreme_of<Smallest>(magnitudes, n))};
}

Extremes extremes(const QuantizePlan &plan, const float *source, std::int64_t first, std::int64_t last) {
  Extremes seen = nothing_found;
  Staged<float> x;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    x.load(const_cast<float *>(source) + begin, n, padded, 0.0f);
    seen = both(seen, extremes_of_block(x.at, n, padded, plan.moment));
  }
  return seen;
}

template <class Codes>
void quantize_as(Codes, const QuantizePlan &plan, const float *source, std::uint8_t *codes, const ScaleArrays &scales,
                 const Scale *given, std::int64_t first, std::int64_t last) {
  const bool is_signed = plan.moment == ADAMW_MOMENT_EXP_AVG;
  Words words;
  Staged<float> x;
  Staged<std::uint8_t> out;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    x.load(const_cast<float *>(source) + begin, n, padded, 0.0f);
    out.place(codes + begin, n, padded);
    const Scale scale =
        given != nullptr ? *given : Codes::scale_one(is_signed, extremes_of_block(x.at, n, padded, plan.moment));
    if (given == nullptr) scales.put(block, scale);
    if (plan.stochastic) words.fill(plan.key, plan.global_offset + begin, padded);
    for (int i = 0; i < padded; i += lanes) {
      // A scale of zero stands for a block whose numbers are too small to keep: they must not become code 1.
      const V value = scale.absmax > 0.0f ? sanitized(load(x.at + i), plan.moment) : V(0.0f);
      const I noise = plan.stochastic ? noise_of(words.of_any(i)) : I(0u);
      store_codes(out.at + i, Codes::encode_one(is_signed, value, scale, noise));
    }
    out.commit();
  }
}

template <class Codes>
void dequantize_as(Codes, const QuantizePlan &plan, const std::uint8_t *codes, const ScaleArrays &scales, float *target,
                   std::int64_t first, std::int64_t last) {
  const FormatTraits format = traits(plan.format);
  Staged<std::uint8_t> in;
  Staged<float> out;
  for (std::int64_t block = first; block < last; ++block) {
    const auto [begin, n] = plan.blocks.place(block);
    const int padded = (n + lanes - 1) & ~(lanes - 1);
    in.load(const_cast<std::uint8_t *>(codes) + begin, n, padded, 0);
    out.place(target + begin, n, padded);
    const StoredScale scale = scales.at(format.scale_of(block));
    for (int i = 0; i < padded; i += lanes) {
      const I code = load(in.at + i);
      store(out.at + i,
            Codes::template decode_one<V>(plan.moment == ADAMW_MOMENT_EXP_AVG, code, scale.floor) * V(scale.absmax));
    }
    out.commit();
  }
}

void quantize(const QuantizePlan &plan, const float *source, std::uint8_t *codes, const ScaleArrays &scales,
              const Scale *given, std::int64_t first, std::int64_t last) {
  dispatch_scaled_format(plan.format, [&](auto coding) {
    quantize_as(typename decltype(coding)::Type{}, plan, source, codes, scales, given, first, last);
  });
}

void dequantize(const QuantizePlan &plan, const std::uint8_t *codes, const ScaleArrays &scales, float *target,
                std::int64_t first, std::int64_t last) {
  dispatch_scaled_format(plan.format, [&](auto coding) {
    dequantize_as(typename decltype(coding)::Type{}, plan, codes, scales, target, first, last);
  });
}

// ---- master weights ----

// body(first, n, padded) for each stretch of up to a block.
template <class Body>
void over_stretches(std::int64_t first, std::int64_t last, const Body &body) {
  for (std::int64_t begin = first; begin < last; begin += ADAMW_BLOCK_SIZE) {
    const int n = static_cast<int>(std::min<std::int64_t>(last - begin, ADAMW_BLOCK_SIZE));
    body(begin, n, (n + lanes - 1) & ~(lanes - 1));
  }
}

void split(const SplitPlan &plan, const float *weights, std::uint16_t *param, void *remainder, std::int64_t first,
           std::int64_t last) {
  Words words;
  Staged<float> from;
  StagedBytes<2> halves, rests;
  over_stretches(first, last, [&](std::int64_t begin, int n, int padded) {
    from.load(const_cast<float *>(weights) + begin, n, padded, 0.0f);
    halves.load(param, 2, begin, n, padded);
    rests.load(remainder, plan.remainder_bits / 8, begin, n, padded);
    if (plan.stochastic) words.fill(plan.key, plan.global_offset + begin, padded);
    store_any_weights(plan.remainder_bits, halves.at, rests.at, from.at, padded, plan.stochastic ? &words : nullptr);
    halves.commit();
    rests.commit();
  });
}

void join(const SplitPlan &plan, const std::uint16_t *param, const void *remainder, float *weights, std::int64_t first,
          std::int64_t last) {
  Staged<float> to;
  StagedBytes<2> halves, rests;
  dispatch_remainder(plan.remainder_bits, [&](auto type) {
    over_stretches(first, last, [&](std::int64_t begin, int n, int padded) {
      halves.load(param, 2, begin, n, padded);
      rests.load(remainder, plan.remainder_bits / 8, begin, n, padded);
      to.place(weights + begin, n, padded);
      for (int i = 0; i < padded; i += lanes) store(to.at + i, load_weight(type, halves.at, rests.at, i));
      to.commit();
    });
  });
}

}  // namespace
}  // namespace adamw
