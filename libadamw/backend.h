// Owns the seam between the entry points and the devices: a checked, derived plan goes down, a status comes back.
// Knows no arithmetic on moments and no memory but the plan's.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../include/adamw.h"
#include "devices.h"
#include "formats.h"
#include "numerics/coefficients.h"
#include "numerics/layout.h"

namespace adamw {

static_assert(block_size == ADAMW_BLOCK_SIZE, "the header's");
static_assert(shortest_block_row == ADAMW_SHORTEST_BLOCK_ROW, "the header's");

// One tensor of a step.
struct Row {
  adamw_tensor tensor;
  BlockLayout blocks;
  Coefficients coefficients;
  std::int64_t number;  // in the caller's table
  IndexRuns runs;       // length 0: one alone, whatever the tensor says

  // The index of element i in the unsharded tensor.
  ADAMW_INLINE std::int64_t index(std::int64_t i) const { return global_index(tensor.global_offset, runs, i); }
};

// What a step does to every row.
struct StepKind {
  adamw_dtype param_dtype, grad_dtype;
  adamw_state_format state_format;
  int remainder_bits;  // of master weights; 0: parameters are all there is
  bool amsgrad, stochastic_rounding, skip_zeros;

  // Whether random words are drawn, for which elements are told apart by their indices.
  bool needs_indices() const { return traits(state_format).is_random || rounds_params() || remainder_bits == 8; }
  // Whether parameters are rounded by random words of their own.
  bool rounds_params() const { return stochastic_rounding && param_dtype != ADAMW_FLOAT32 && remainder_bits == 0; }
  std::int64_t remainder_bytes() const { return remainder_bits / 8; }
};

// Blocks [first, last) of a row of the plan. `row` may be a copy of it whose state is elsewhere, each block where its
// number says.
struct Part {
  const Row *row;
  std::int64_t index, first, last;
};

// State that has to be brought in, some rows and parts of rows at a time.
class Windows {
 public:
  using Body = std::function<adamw_status(const Part *parts, std::int64_t count)>;
  virtual ~Windows() = default;
  // Calls body() with all rows, part by part, in order. `written`: it writes state, so that goes back; and
  // StepPlan.rows_done follows.
  virtual adamw_status sweep(bool written, const Body &body) = 0;
};

struct StepPlan {
  StepKind kind;
  Hyperparameters hyperparameters;  // for tensors whose step number, or a call whose lr, only the device knows
  const float *lr;                  // null, or where the device finds it
  Row *rows;                        // rows of at least one element
  std::int64_t count;
  int percentile_clipping, threads, device;
  double max_unorm;
  const float *grad_scale, *grad_factor, *found_inf;
  std::int64_t *skipped;
  void *stream;
  Windows *windows;         // null: state is used where it lies
  std::int64_t *rows_done;  // set to the rows, from the first on, that have been stepped completely

  // Whether whole rows are measured before they are stepped.
  bool measures() const { return traits(kind.state_format).is_measured() || max_unorm > 0.0; }
};

struct QuantizePlan {
  adamw_moment moment;
  adamw_state_format format;  // one that has scales
  bool stochastic;
  BlockLayout blocks;
  std::uint32_t key;
  std::int64_t global_offset;
  int threads, device;
  void *stream;
};

// What a norm takes on the host, and calls keep for those after them.
struct NormMemory {
  std::vector<adamw_gradient> copies;  // of a caller's table that has another version's size
  std::vector<std::int64_t> offsets;
  std::vector<double> sums;
};

struct NormPlan {
  const adamw_gradient *gradients;
  std::int64_t count;
  int threads, device;
  void *stream;
  NormMemory *memory;
};

struct ClipPlan {
  double max_norm;
  const float *grad_scale;  // may be null
  int device;
  void *stream;
};

// Parameters, remainders and the weights that they make, in one direction or the other.
struct SplitPlan {
  int remainder_bits;
  bool stochastic;
  std::int64_t numel, global_offset;
  std::uint32_t key;
  int threads, device;
  void *stream;
};

}  // namespace adamw
