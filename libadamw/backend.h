// Owns the seam between the entry points and the devices: a checked, derived plan goes down, a status comes back.
// Knows no arithmetic on moments and no memory but the plan's.
#pragma once

#include <cstdint>

#include "../include/adamw.h"
#include "math.h"

namespace adamw {

// Where the blocks of a tensor lie (see adamw_state_format).
struct BlockLayout {
  std::int64_t numel, row_length, blocks_per_row, count;  // blocks_per_row = 0: flat

  std::int64_t begin(std::int64_t block) const {
    if (blocks_per_row == 0) return block * ADAMW_BLOCK_SIZE;
    return block / blocks_per_row * row_length + block % blocks_per_row * ADAMW_BLOCK_SIZE;
  }
  int length(std::int64_t block) const {
    const std::int64_t rest =
        blocks_per_row == 0 ? numel - block * ADAMW_BLOCK_SIZE : row_length - block % blocks_per_row * ADAMW_BLOCK_SIZE;
    return static_cast<int>(rest < ADAMW_BLOCK_SIZE ? rest : ADAMW_BLOCK_SIZE);
  }
};

// Rows shorter than this share flat blocks: a scale each would eat the saving.
constexpr std::int64_t shortest_block_row = 64;

inline BlockLayout block_layout(std::int64_t numel, std::int64_t row_length) {
  const bool rows = row_length >= shortest_block_row && row_length % ADAMW_BLOCK_SIZE != 0 && row_length < numel;
  const auto blocks = [](std::int64_t n) { return n / ADAMW_BLOCK_SIZE + (n % ADAMW_BLOCK_SIZE != 0); };
  if (!rows) return {numel, numel, 0, blocks(numel)};
  return {numel, row_length, blocks(row_length), numel / row_length * blocks(row_length)};
}

// One tensor of a step.
struct Row {
  adamw_tensor tensor;
  BlockLayout blocks;
  Coefficients coefficients;
  double inverse_bc1;  // 1 / (1 - beta1^step), which coefficients.negative_step_size contains
};

// What a step does to every row.
struct StepKind {
  adamw_dtype param_dtype, grad_dtype;
  adamw_state_format state_format;
  bool amsgrad, stochastic_rounding, skip_zeros;
};

struct StepPlan {
  StepKind kind;
  Row *rows;  // rows of at least one element
  std::int64_t count;
  int percentile_clipping, threads, device;
  double max_unorm;
  const float *grad_scale, *found_inf;
  std::int64_t *skipped;
  void *stream;
};

struct QuantizePlan {
  adamw_map map;
  bool blockwise, stochastic;
  BlockLayout blocks;
  std::uint32_t key;
  std::int64_t global_offset;
  int threads, device;
  void *stream;
};

// One row of the table per device kind; a build without a device has no row for it.
struct Backend {
  const char *name;
  adamw_status (*step)(const StepPlan &);
  adamw_status (*quantize)(const QuantizePlan &, const float *source, std::uint8_t *codes, float *absmax);
  adamw_status (*dequantize)(const QuantizePlan &, const std::uint8_t *codes, const float *absmax, float *target);
};

extern const Backend cpu_backend;

}  // namespace adamw
