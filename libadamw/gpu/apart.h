// Owns what a device does apart from a step: see devices.h.
#pragma once

#include "../backend.h"

namespace adamw {
namespace gpu {

adamw_status quantize(const QuantizePlan &plan, const float *source, std::uint8_t *codes, const ScaleArrays &scales);
adamw_status dequantize(const QuantizePlan &plan, const std::uint8_t *codes, const ScaleArrays &scales, float *target);
adamw_status split(const SplitPlan &plan, const float *weights, std::uint16_t *param, void *remainder);
adamw_status join(const SplitPlan &plan, const std::uint16_t *param, const void *remainder, float *weights);
adamw_status norm(const NormPlan &plan, double *squares);
adamw_status clip_factor(const ClipPlan &plan, const double *squares, std::int64_t count, float *norm, float *factor);

}  // namespace gpu
}  // namespace adamw
