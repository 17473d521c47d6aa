// Owns the passes over whole tensors that a step may need first, as far as they must give the same bits everywhere: how
// a tensor is cut into segments, in what order sums are taken, and what is made of them.
#pragma once

#include "coefficients.h"
#include "layout.h"

namespace adamw {

// A row is cut into segments of whole blocks. Lane l of 32 sums elements l, l + 32, ... of a block in single precision;
// halves() adds the lanes in double; a segment adds its blocks in order; ordered_sum() adds the segments.
constexpr int sum_lanes = 32;
constexpr std::int64_t segment_blocks = 16, max_segments = 4096;

struct Segments {
  std::int64_t blocks, count;

  ADAMW_INLINE std::int64_t begin(std::int64_t segment) const {
    const std::int64_t rest = blocks % count;
    return blocks / count * segment + (segment < rest ? segment : rest);
  }
};
ADAMW_INLINE Segments segments_of(std::int64_t blocks) {
  const std::int64_t count = blocks / segment_blocks;
  return {blocks, count < 1 ? 1 : count > max_segments ? max_segments : count};
}

// The sum of 32 numbers by halves, left in lane[0].
ADAMW_INLINE double halves(double *lane) {
  for (int width = sum_lanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

// get(0) + ... + get(count - 1): 32 interleaved sums, then by halves.
template <class Get>
ADAMW_INLINE double ordered_sum(std::int64_t count, const Get &get) {
  double lane[sum_lanes] = {};
  for (std::int64_t i = 0; i < count; ++i) lane[i % sum_lanes] += get(i);
  return halves(lane);
}

// ---- the norm of all gradients ----

// Of a gradient in flat blocks. Within a segment, the squares of the i-th elements of all blocks, which are exact, are
// added to the i-th of so many sums, block after block; these are added by halves. So whoever adds, however many
// elements at a time, gets the same bits.
constexpr int position_sums = block_size;

// Only the first `used` of them need be there, a power of two: the others are 0, and adding those changes nothing.
ADAMW_INLINE double sum_of_positions(double *sums, int used = position_sums) {
  for (int width = used / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) sums[i] += sums[i + width];
  }
  return sums[0];
}

// torch.nn.utils.clip_grad_norm_()'s: a NaN stays one.
struct Clip {
  float norm, factor;
};
ADAMW_INLINE Clip clip_of(double squares, double grad_scale, double max_norm) {
  const double norm = square_root(squares) / grad_scale, factor = max_norm / (norm + 1e-6);
  return {static_cast<float>(norm), factor >= 1.0 ? 1.0f : static_cast<float>(factor)};
}

// ---- passes over one tensor ----

// What a segment measures before the step: for max_unorm the squared norms of the update direction and of the
// parameter, for tensor-wise scales the extremes of the new moments' magnitudes.
struct Measures {
  double direction_squares, param_squares;
  PerMoment<Extremes> found;
};
constexpr Extremes nothing_found{0.0f, largest_float};

// The factor on the step size: 1, or what takes the update's norm down to max_unorm times the parameter's.
ADAMW_INLINE float unorm_factor(const Measures &all, double bc1, double max_unorm) {
  const double update = square_root(all.direction_squares) / bc1, most = max_unorm * square_root(all.param_squares);
  return max_unorm > 0.0 && update > most ? static_cast<float>(most / update) : 1.0f;
}

// The factor on the gradient: 1, or what takes its norm down to the `clip`-th smallest of the history.
ADAMW_INLINE float clip_factor(float squares, float clip) {
  return squares > clip ? static_cast<float>(square_root(static_cast<double>(clip) / static_cast<double>(squares)))
                        : 1.0f;
}

}  // namespace adamw
