// Owns the entry points of adamw.h that convert numbers apart from a step: quantization, and master weights. Checks and
// hands a plan to the device's backend; does no arithmetic itself.
#include <vector>

#include "backend.h"
#include "check/check.h"
#include "check/sizes.h"
#include "cpu/float_mode.h"
#include "cpu/parallel.h"
#include "guarded.h"
#include "numerics/coefficients.h"
#include "status.h"

namespace adamw {
namespace {

QuantizePlan quantize_plan(const adamw_quantize_options &o) {
  QuantizePlan plan{};
  plan.moment = static_cast<adamw_moment>(o.moment);
  plan.format = static_cast<adamw_state_format>(o.state_format);
  plan.stochastic = o.rounding == ADAMW_ROUND_STOCHASTIC;
  plan.blocks = block_layout(o.numel, o.row_length);
  plan.key = static_cast<std::uint32_t>(random_keys(o.seed, o.step));
  plan.global_offset = o.global_offset;
  plan.threads = o.num_threads > 0 ? o.num_threads : default_threads();
  plan.device = o.device;
  plan.stream = o.stream;
  return plan;
}

// Of a call that goes one way or the other: it writes the floats, or all else.
adamw_status check_directions(const char *function, const Interval &floats, bool floats_written, const Interval *others,
                              size_t count) {
  const std::vector<Interval> one = by_address(&floats, 1), all = by_address(others, count);
  return floats_written ? check_overlap(function, one, all) : check_overlap(function, all, one);
}

// The buffers of both directions: floats, codes, scales; `floats_written` tells which way.
adamw_status check_quantize_buffers(const char *function, const adamw_quantize_options &o, const void *floats,
                                    const void *codes, const ScaleArrays &kept, bool floats_written) {
  const int64_t scales =
      traits(static_cast<adamw_state_format>(o.state_format)).scales(block_layout(o.numel, o.row_length));
  const int64_t floors = o.moment == ADAMW_MOMENT_EXP_AVG ? 0 : scales;
  const char *name = floats_written ? "target" : "source";
  if (adamw_status s = check_buffer(function, -1, name, floats, o.numel * 4, 4)) return s;
  if (adamw_status s = check_buffer(function, -1, "codes", codes, o.numel, 1)) return s;
  if (adamw_status s = check_buffer(function, -1, "absmax", kept.absmax, scales * 4, 4)) return s;
  if (floors != 0) {
    if (adamw_status s = check_buffer(function, -1, "floor", kept.floor, floors * 4, 4)) return s;
  }
  const Interval state[] = {interval(codes, o.numel, "codes"), interval(kept.absmax, scales * 4, "absmax"),
                            interval(kept.floor, floors * 4, "floor")};
  return check_directions(function, interval(floats, o.numel * 4, name), floats_written, state, floors != 0 ? 3 : 2);
}

SplitPlan split_plan(const adamw_split_options &o) {
  SplitPlan plan{};
  plan.remainder_bits = o.remainder_bits;
  plan.stochastic = o.rounding == ADAMW_ROUND_STOCHASTIC;
  plan.numel = o.numel;
  plan.global_offset = o.global_offset;
  plan.key = static_cast<std::uint32_t>(random_keys(o.seed, o.step));
  plan.threads = o.num_threads > 0 ? o.num_threads : default_threads();
  plan.device = o.device;
  plan.stream = o.stream;
  return plan;
}

// The buffers of both directions; `weights_written` tells which way.
adamw_status check_split_buffers(const char *function, const adamw_split_options &o, const float *weights,
                                 const std::uint16_t *param, const void *remainder, bool weights_written) {
  const int64_t size = o.remainder_bits / 8, bytes = o.numel * size;
  if (adamw_status s = check_buffer(function, -1, "weights", weights, o.numel * 4, 4)) return s;
  if (adamw_status s = check_buffer(function, -1, "param", param, o.numel * 2, 2)) return s;
  if (adamw_status s = check_buffer(function, -1, "remainder", remainder, bytes, static_cast<size_t>(size))) return s;
  const Interval parts[] = {interval(param, o.numel * 2, "param"), interval(remainder, bytes, "remainder")};
  return check_directions(function, interval(weights, o.numel * 4, "weights"), weights_written, parts, 2);
}

}  // namespace
}  // namespace adamw

using namespace adamw;

// What a caller hands over for a moment: exp_avg has no floor.
static ScaleArrays scale_arrays(const adamw_quantize_options &o, const float *absmax, const float *floor) {
  return {{const_cast<float *>(absmax), o.moment == ADAMW_MOMENT_EXP_AVG ? nullptr : const_cast<float *>(floor)}};
}

adamw_status adamw_quantize(const adamw_quantize_options *options, const float *source, uint8_t *codes, float *absmax,
                            float *floor) {
  return guarded("adamw_quantize", [&] {
    const DefaultFloatMode mode;
    adamw_quantize_options o;
    if (adamw_status s = check_quantize_options("adamw_quantize", options, o)) return s;
    if (o.numel == 0) return ADAMW_OK;
    const ScaleArrays scales = scale_arrays(o, absmax, floor);
    if (adamw_status s = check_quantize_buffers("adamw_quantize", o, source, codes, scales, false)) return s;
    return backend_of(o.device)->quantize(quantize_plan(o), source, codes, scales);
  });
}

adamw_status adamw_dequantize(const adamw_quantize_options *options, const uint8_t *codes, const float *absmax,
                              const float *floor, float *target) {
  return guarded("adamw_dequantize", [&] {
    adamw_quantize_options o;
    if (adamw_status s = check_quantize_options("adamw_dequantize", options, o)) return s;
    if (o.numel == 0) return ADAMW_OK;
    const ScaleArrays scales = scale_arrays(o, absmax, floor);
    if (adamw_status s = check_quantize_buffers("adamw_dequantize", o, target, codes, scales, true)) return s;
    return backend_of(o.device)->dequantize(quantize_plan(o), codes, scales, target);
  });
}

adamw_status adamw_split_weights(const adamw_split_options *options, const float *weights, uint16_t *param,
                                 void *remainder) {
  constexpr const char *function = "adamw_split_weights";
  return guarded(function, [&] {
    adamw_split_options o;
    if (adamw_status s = check_split_options(function, options, o)) return s;
    if (o.numel == 0) return ADAMW_OK;
    if (adamw_status s = check_split_buffers(function, o, weights, param, remainder, false)) return s;
    return backend_of(o.device)->split(split_plan(o), weights, param, remainder);
  });
}

adamw_status adamw_join_weights(const adamw_split_options *options, const uint16_t *param, const void *remainder,
                                float *weights) {
  constexpr const char *function = "adamw_join_weights";
  return guarded(function, [&] {
    adamw_split_options o;
    if (adamw_status s = check_split_options(function, options, o)) return s;
    if (o.numel == 0) return ADAMW_OK;
    if (adamw_status s = check_split_buffers(function, o, weights, param, remainder, true)) return s;
    return backend_of(o.device)->join(split_plan(o), param, remainder, weights);
  });
}
