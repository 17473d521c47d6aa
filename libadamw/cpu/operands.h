// Owns what a block's step works on, and the sums that a step may need first, whatever the format of its state. Knows
// nothing of how moments are kept.
#pragma once

#include "../numerics/sums.h"
#include "block_params.h"

namespace adamw {
namespace {

// Parameters and gradients of one block.
struct Operands {
  Params params;
  Elements grad;
  std::int64_t begin;
  int n, padded;

  ADAMW_INLINE void place(const Row &row, std::int64_t block) {
    const BlockLayout::Place place = row.blocks.place(block);
    begin = place.begin;
    n = place.length;
    padded = (n + lanes - 1) & ~(lanes - 1);
  }
  ADAMW_INLINE void load(const StepKind &kind, const Row &row) {
    params.load(kind, row, begin, n, padded);
    grad.load(row.tensor.grad, kind.grad_dtype, begin, n, padded);
  }
};

// How a coding (formats.h) keeps the moments of a block. Each has
//   BlockMoments(kind, row)
//   load(operands, block)       brings a block's moments into reach
//   step(operands, block, scales, random)
//                               updates parameters and moments; scales: null, or those that the whole tensor has;
//                               random(): a block's random words. Returns how many elements it has skipped
//   commit()                    puts the moments where they came from
//   directions(operands, all, squares)
//                               writes nothing: adds up what a step may have to know of a whole tensor first
template <class Coding, bool Amsgrad>
class BlockMoments;  // coded_moments.h; number_moments.h

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

}  // namespace
}  // namespace adamw
