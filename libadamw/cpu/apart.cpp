// Owns what the CPU does apart from a step: quantization, master weights, the norm of gradients. Knows no arithmetic on
// elements.
#include "apart.h"

#include "../status.h"
#include "kernels.h"
#include "sharing.h"

namespace adamw {
namespace {

adamw_status find_kernels(const char *function, const Kernels **kernels) {
  const char *error;
  *kernels = active_kernels(&error);
  return *kernels != nullptr ? ADAMW_OK : fail(ADAMW_ERROR_UNSUPPORTED, "%s: %s", function, error);
}

// body(first, last) for stretches of so many elements, each of whole blocks.
template <class Body>
void over_elements(std::int64_t numel, int threads, const Body &body) {
  over_blocks({0, blocks_in(numel)}, threads, [&](std::int64_t, std::int64_t first, std::int64_t last) {
    body(first * block_size, std::min(last * block_size, numel));
  });
}

}  // namespace

// ---- quantization ----

adamw_status quantize(const QuantizePlan &plan, const float *source, std::uint8_t *codes, const ScaleArrays &scales) {
  const Kernels *kernels;
  if (adamw_status s = find_kernels("adamw_quantize", &kernels)) return s;
  const std::vector<std::int64_t> offsets{0, plan.blocks.count};
  Scale scale{}, *given = nullptr;
  if (traits(plan.format).is_measured()) {
    std::atomic<Extremes> found{nothing_found};
    over_blocks(offsets, plan.threads, [&](std::int64_t, std::int64_t first, std::int64_t last) {
      const Extremes now = kernels->extremes(plan, source, first, last);
      Extremes seen = found;
      while (!found.compare_exchange_weak(seen, both(seen, now))) {
      }
    });
    scale = dispatch_scaled_format(plan.format, [&](auto coding) {
      return decltype(coding)::Type::scale_one(plan.moment == ADAMW_MOMENT_EXP_AVG, found.load());
    });
    given = &scale;
    scales.put(0, scale);
  }
  over_blocks(offsets, plan.threads, [&](std::int64_t, std::int64_t first, std::int64_t last) {
    kernels->quantize(plan, source, codes, scales, given, first, last);
  });
  return ADAMW_OK;
}

adamw_status dequantize(const QuantizePlan &plan, const std::uint8_t *codes, const ScaleArrays &scales, float *target) {
  const Kernels *kernels;
  if (adamw_status s = find_kernels("adamw_dequantize", &kernels)) return s;
  over_blocks({0, plan.blocks.count}, plan.threads, [&](std::int64_t, std::int64_t first, std::int64_t last) {
    kernels->dequantize(plan, codes, scales, target, first, last);
  });
  return ADAMW_OK;
}

// ---- master weights ----

adamw_status split(const SplitPlan &plan, const float *weights, std::uint16_t *param, void *remainder) {
  const Kernels *kernels;
  if (adamw_status s = find_kernels("adamw_split_weights", &kernels)) return s;
  over_elements(plan.numel, plan.threads, [&](std::int64_t first, std::int64_t last) {
    kernels->split(plan, weights, param, remainder, first, last);
  });
  return ADAMW_OK;
}

adamw_status join(const SplitPlan &plan, const std::uint16_t *param, const void *remainder, float *weights) {
  const Kernels *kernels;
  if (adamw_status s = find_kernels("adamw_join_weights", &kernels)) return s;
  over_elements(plan.numel, plan.threads, [&](std::int64_t first, std::int64_t last) {
    kernels->join(plan, param, remainder, weights, first, last);
  });
  return ADAMW_OK;
}

// ---- the norm of gradients ----

adamw_status norm(const NormPlan &plan, double *squares) {
  const Kernels *kernels;
  if (adamw_status s = find_kernels("adamw_norm", &kernels)) return s;
  // Items are segments, and one has work for a thread of its own.
  std::vector<std::int64_t> &offsets = plan.memory->offsets;
  offsets.assign(1, 0);
  std::int64_t blocks = 0;
  for (const adamw_gradient *g = plan.gradients; g < plan.gradients + plan.count; ++g) {
    const std::int64_t own = blocks_in(g->numel);
    offsets.push_back(offsets.back() + (own > 0 ? segments_of(own).count : 0));
    blocks += own;
  }
  std::vector<double> &sums = plan.memory->sums;
  sums.resize(static_cast<std::size_t>(offsets.back()));
  const auto run = [&](std::int64_t number, std::int64_t first, std::int64_t last) {
    const adamw_gradient &g = plan.gradients[number];
    kernels->squares(g.grad, static_cast<adamw_dtype>(g.dtype), g.numel, first, last,
                     sums.data() + offsets[static_cast<std::size_t>(number)] + first);
  };
  constexpr std::int64_t together = 4;  // as kernels read them
  SharedLoop<decltype(run)>(offsets, together, run).go(useful_threads(plan.threads, blocks));
  *squares = ordered_sum(plan.count, [&](std::int64_t i) {
    const auto k = static_cast<std::size_t>(i);
    const double *part = sums.data() + offsets[k];
    return ordered_sum(offsets[k + 1] - offsets[k], [part](std::int64_t s) { return part[s]; });
  });
  return ADAMW_OK;
}

adamw_status clip_factor(const ClipPlan &plan, const double *squares, std::int64_t count, float *norm, float *factor) {
  double all = 0.0;
  for (std::int64_t i = 0; i < count; ++i) all += squares[i];
  const Clip clip =
      clip_of(all, plan.grad_scale != nullptr ? static_cast<double>(*plan.grad_scale) : 1.0, plan.max_norm);
  if (norm != nullptr) *norm = clip.norm;
  *factor = clip.factor;
  return ADAMW_OK;
}

}  // namespace adamw
