// Owns the seam between the entry points and the devices: a checked, derived plan goes down, a status comes back.
// Knows no arithmetic on moments and no memory but the plan's.
#pragma once

#include <cstdint>

#include "../include/adamw.h"
#include "coefficients.h"
#include "layout.h"

namespace adamw {

static_assert(block_size == ADAMW_BLOCK_SIZE, "the header's");

// One tensor of a step.
struct Row {
  adamw_tensor tensor;
  BlockLayout blocks;
  Coefficients coefficients;
};

// What a step does to every row.
struct StepKind {
  adamw_dtype param_dtype, grad_dtype;
  adamw_state_format state_format;
  bool amsgrad, stochastic_rounding, skip_zeros;
};

struct StepPlan {
  StepKind kind;
  Hyperparameters hyperparameters;  // for tensors whose step number, or a call whose lr, only the device knows
  const float *lr;                  // null, or where the device finds it
  Row *rows;                        // rows of at least one element
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
  adamw_status (*check_device)(const char *function, std::int32_t device);
  adamw_status (*step)(const StepPlan &);
  adamw_status (*quantize)(const QuantizePlan &, const float *source, std::uint8_t *codes, float *absmax);
  adamw_status (*dequantize)(const QuantizePlan &, const std::uint8_t *codes, const float *absmax, float *target);
};

extern const Backend cpu_backend;
#ifdef ADAMW_CUDA_MAJOR
extern const Backend cuda_backend;
#endif

// The backend of adamw_step_options.device; null where this build has none.
inline const Backend *backend_of(std::int32_t device) {
  if (device < 0) return &cpu_backend;
#ifdef ADAMW_CUDA_MAJOR
  return &cuda_backend;
#else
  return nullptr;
#endif
}

}  // namespace adamw
