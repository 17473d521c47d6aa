// Owns which kinds of devices there are: the table of their backends. Knows a plan by its name alone.
#pragma once

#include <cstdint>

#include "../include/adamw.h"

namespace adamw {

struct ClipPlan;  // backend.h
struct NormPlan;
struct QuantizePlan;
struct ScaleArrays;  // numerics/moments.h
struct SplitPlan;
struct StepPlan;

// One row of the table per device kind; a build without a device has no row for it.
struct Backend {
  const char *name;
  adamw_status (*check_device)(const char *function, std::int32_t device);
  adamw_status (*step)(const StepPlan &);
  adamw_status (*quantize)(const QuantizePlan &, const float *source, std::uint8_t *codes, const ScaleArrays &scales);
  adamw_status (*dequantize)(const QuantizePlan &, const std::uint8_t *codes, const ScaleArrays &scales, float *target);
  adamw_status (*split)(const SplitPlan &, const float *weights, std::uint16_t *param, void *remainder);
  adamw_status (*join)(const SplitPlan &, const std::uint16_t *param, const void *remainder, float *weights);
  adamw_status (*norm)(const NormPlan &, double *squares);
  adamw_status (*clip_factor)(const ClipPlan &, const double *squares, std::int64_t count, float *norm, float *factor);
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
