// Owns what the host hands to a kernel: the launch parameters, row table included, in the constant memory of the launch
// itself. So there is no upload, nothing to keep alive, and a captured graph holds its own copy. Knows no arithmetic.
#pragma once

#include "../numerics/codes.h"
#include "../numerics/layout.h"
#include "../numerics/sums.h"

namespace adamw {
namespace gpu {

constexpr int block_threads_used = 128, warps = block_threads_used / 32;  // of most kernels
// Of those that move so much an element that memory is what they wait for: one block fills a multiprocessor, and its
// warps stay side by side (Stream8).
constexpr int wide_threads = 512;
constexpr int max_rounds = 7;                                    // of a chunk of items: over_items()
constexpr int parameter_bytes = 32764;                           // the most that a launch can carry from CUDA 12.1 on
constexpr int coefficient_sets = 8;                              // different ones in a launch
constexpr int run_sets = 8;                                      // different IndexRuns in a launch
constexpr std::int64_t max_items = (std::int64_t{1} << 31) - 1;  // blocks of a launch: kernels count them in 32 bits

// What a pass over a whole tensor left for its step.
struct RowResult {
  float clip, unorm;                  // factors
  PerMoment<Scale> scales;            // of the new moments
  PerMoment<StoredScale> old_scales;  // those that the codes in memory have
  std::uint32_t arrived;              // segments that are done; 0 before and after
};

// The buffers that every row has. Those of max_exp_avg_sq travel only where there are any, so that more rows fit in a
// launch.
struct Buffers {
  void *param;
  const void *grad;
  void *exp_avg, *exp_avg_sq;
  float *exp_avg_absmax, *exp_avg_sq_absmax, *exp_avg_sq_floor;
};
struct LaunchRow : Buffers {
  void *param_remainder;  // null without master weights
  std::int64_t numel, row_length, global_offset;
  const float *step;       // null: coefficients are `sets[set]`
  std::uint32_t end;       // items (blocks, or segments) of this launch up to the end of this row
  std::uint8_t set, runs;  // runs: `head.runs[runs]`, for the kernels of rows in runs
  std::uint8_t aligned;    // whole blocks can be accessed in vectors

  ADAMW_INLINE BlockLayout blocks() const { return block_layout(numel, row_length); }
};
struct AmsgradRow : LaunchRow {
  void *max_exp_avg_sq;
  float *max_exp_avg_sq_absmax, *max_exp_avg_sq_floor;
};

// Those of any row; without amsgrad those of max_exp_avg_sq are null. In this order two of them are one load.
struct alignas(16) AllBuffers : Buffers {
  void *max_exp_avg_sq;
  float *max_exp_avg_sq_absmax, *max_exp_avg_sq_floor;
  void *param_remainder;

  ADAMW_INLINE PerMoment<void *> moments() const { return {exp_avg, exp_avg_sq, max_exp_avg_sq}; }
  ADAMW_INLINE PerMoment<ScaleArrays> scales() const {
    return {{{exp_avg_absmax, nullptr}},
            {{exp_avg_sq_absmax, exp_avg_sq_floor}},
            {{max_exp_avg_sq_absmax, max_exp_avg_sq_floor}}};
  }
};
ADAMW_INLINE AllBuffers buffers_of(const LaunchRow &row) {
  return {row, nullptr, nullptr, nullptr, row.param_remainder};
}
ADAMW_INLINE AllBuffers buffers_of(const AmsgradRow &row) {
  return {row, row.max_exp_avg_sq, row.max_exp_avg_sq_absmax, row.max_exp_avg_sq_floor, row.param_remainder};
}

struct LaunchHead {
  Coefficients sets[coefficient_sets];
  IndexRuns runs[run_sets];
  Hyperparameters hyperparameters;
  const float *lr, *grad_scale, *grad_factor, *found_inf;  // each may be null
  std::uint64_t *skipped;                                  // may be null
  RowResult *results;                                      // per row of this launch; null if no pass went before
  Measures *measures;                                      // per segment of this launch, of the measuring pass
  std::int64_t items;                                      // blocks, or segments
  double max_unorm;
  std::int32_t rows, rounds;                             // rounds: over_items()
  std::int32_t param_dtype, grad_dtype, remainder_bits;  // remainder_bits: 0 without master weights
  bool on_device;                                        // lr, or a row's step, lies there
  bool stochastic_rounding;                              // of parameters that are all there is
  bool skip_zeros, tensorwise;
  bool clipped, measured;  // `results` has such factors
};

template <class Row>
struct StepTable {
  using RowType = Row;
  static constexpr int capacity =
      (parameter_bytes - static_cast<int>(sizeof(LaunchHead))) / static_cast<int>(sizeof(Row));
  LaunchHead head;
  Row rows[capacity];
};

struct NormRow {
  const void *grad;
  float *history;
  const float *step;
  std::int64_t end, numel, row_length, step_number;
};
struct NormHead {
  const float *grad_scale, *grad_factor, *found_inf;
  RowResult *results;
  double *squares;  // per segment
  std::int64_t items;
  std::int32_t rows, grad_dtype, percentile;
};
struct NormTable {
  static constexpr int capacity =
      (parameter_bytes - static_cast<int>(sizeof(NormHead))) / static_cast<int>(sizeof(NormRow));
  NormHead head;
  NormRow rows[capacity];
};

// Of the norm of all gradients. A gradient without elements has no row.
struct SquaresRow {
  const void *grad;
  std::int64_t numel;
  std::uint32_t end;  // segments of this launch up to the end of this row
  std::uint16_t dtype, aligned;
};
struct SquaresHead {
  double *squares;              // the result
  double *parts;                // per segment of this launch
  double *rows_before, *sums;   // per row of this launch; per gradient of the call
  std::uint32_t *arrived;       // per row of this launch: its segments that are done
  std::uint32_t *rows_arrived;  // of the call
  std::int64_t items, count,
      all_rows;  // segments of this launch; gradients of the call, and those of them with elements
  std::int32_t rows;
};
struct SquaresTable {
  static constexpr int capacity =
      (parameter_bytes - static_cast<int>(sizeof(SquaresHead))) / static_cast<int>(sizeof(SquaresRow));
  SquaresHead head;
  SquaresRow rows[capacity];
};
struct ClipTable {
  const double *squares;
  const float *grad_scale;  // may be null, and so may norm
  float *norm, *factor;
  double max_norm;
  std::int32_t count;
};

// The extremes of a tensor as bits: zeros before anything has been seen.
struct FoundExtremes {
  std::uint32_t largest, smallest_inverted;
};
struct QuantizeTable {
  BlockLayout blocks;
  float *floats;
  std::uint8_t *codes;
  ScaleArrays scales;
  FoundExtremes *found;  // before; tensor-wise quantization only
  std::int64_t global_offset;
  std::uint32_t key;
  bool is_signed, stochastic, tensorwise;
};

// Of master weights alone.
struct SplitTable {
  float *weights;
  std::uint16_t *param;
  void *remainder;
  std::int64_t numel, global_offset;
  std::uint32_t key;
  std::int32_t remainder_bits;
  bool stochastic;
};

using PlainTable = StepTable<LaunchRow>;
using AmsgradTable = StepTable<AmsgradRow>;
static_assert(sizeof(PlainTable) <= parameter_bytes && sizeof(AmsgradTable) <= parameter_bytes, "a launch carries it");
static_assert(coefficient_sets <= 256 && run_sets <= 256, "a byte of a row holds them");
static_assert(PlainTable::capacity >= 304, "GPT-2 small in one launch");

// The dtypes that the kernels of any dtype know: F(value of adamw_dtype, its class in kernels/elements.h).
// kernel_choice.h sees to it that none is missing.
#define ADAMW_KERNEL_DTYPES(F) F(0, Float32) F(1, Bfloat16) F(2, Float16)

// The widths of remainders that they know: F(bits). kernel_choice.h sees to it that none is missing.
#define ADAMW_KERNEL_REMAINDERS(F) F(8) F(16)

// The state formats whose moments are numbers: F(G, their name in those of kernels, their dtype's class).
#define ADAMW_NUMBER_FORMATS(F, G) F(G, 32, Float32) F(G, 16, Bfloat16)

// Every kernel with its parameters and the threads of its blocks. step<state>_<parameters>_<gradients>: what people
// train with, at full speed (bf16r8, bf16r16: parameters with remainders); step<state>_any: every other choice, element
// by element. step<state>_runs: the same of rows whose elements lie in runs of the unsharded tensor. (Kernels that know
// no runs are none the slower.)
#define ADAMW_STEP_KERNELS(F, state, wide)                               \
  F(adamw_##state##_f32_f32, PlainTable, wide)                           \
  F(adamw_##state##_f32_bf16, PlainTable, wide)                          \
  F(adamw_##state##_bf16_f32, PlainTable, block_threads_used)            \
  F(adamw_##state##_bf16_bf16, PlainTable, block_threads_used)           \
  F(adamw_##state##_bf16r8_bf16, PlainTable, block_threads_used)         \
  F(adamw_##state##_bf16r16_bf16, PlainTable, block_threads_used)        \
  F(adamw_##state##_f16_f16, PlainTable, block_threads_used)             \
  F(adamw_##state##_any, PlainTable, block_threads_used)                 \
  F(adamw_##state##_runs, PlainTable, block_threads_used)                \
  F(adamw_##state##_f32_f32_amsgrad, AmsgradTable, wide)                 \
  F(adamw_##state##_bf16_bf16_amsgrad, AmsgradTable, block_threads_used) \
  F(adamw_##state##_any_amsgrad, AmsgradTable, block_threads_used)       \
  F(adamw_##state##_runs_amsgrad, AmsgradTable, block_threads_used)

#define ADAMW_MEASURE_KERNELS(F, state)                   \
  F(adamw_measure##state, PlainTable, block_threads_used) \
  F(adamw_measure##state##_amsgrad, AmsgradTable, block_threads_used)

#define ADAMW_NUMBER_KERNELS(F, state, Dtype)            \
  ADAMW_STEP_KERNELS(F, step##state, block_threads_used) \
  ADAMW_MEASURE_KERNELS(F, state)

#define ADAMW_KERNELS(F)                                  \
  ADAMW_NUMBER_FORMATS(ADAMW_NUMBER_KERNELS, F)           \
  ADAMW_STEP_KERNELS(F, step8, wide_threads)              \
  ADAMW_MEASURE_KERNELS(F, 8)                             \
  F(adamw_norms, NormTable, block_threads_used)           \
  F(adamw_squares, SquaresTable, block_threads_used)      \
  F(adamw_clip, ClipTable, block_threads_used)            \
  F(adamw_extremes, QuantizeTable, block_threads_used)    \
  F(adamw_quantize8, QuantizeTable, block_threads_used)   \
  F(adamw_dequantize8, QuantizeTable, block_threads_used) \
  F(adamw_split, SplitTable, block_threads_used)          \
  F(adamw_join, SplitTable, block_threads_used)

#define ADAMW_THREADS(kernel, Table, threads) constexpr int kernel##_threads = threads;
ADAMW_KERNELS(ADAMW_THREADS)
#undef ADAMW_THREADS

}  // namespace gpu
}  // namespace adamw
