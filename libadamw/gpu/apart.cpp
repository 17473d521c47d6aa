// Owns what a CUDA device does apart from a step: quantization, master weights, the norm of gradients. Knows no
// arithmetic on elements.
#include "apart.h"

#include <algorithm>
#include <cstdio>

#include "../lease.h"
#include "kernel_choice.h"
#include "launch.h"

namespace adamw {
namespace gpu {

// ---- quantization ----

namespace {

QuantizeTable quantize_table(const QuantizePlan &plan, float *floats, std::uint8_t *codes, const ScaleArrays &scales) {
  QuantizeTable t{};
  t.blocks = plan.blocks;
  t.floats = floats;
  t.codes = codes;
  t.scales = scales;
  t.global_offset = plan.global_offset;
  t.key = plan.key;
  t.is_signed = plan.moment == ADAMW_MOMENT_EXP_AVG;
  t.stochastic = plan.stochastic;
  t.tensorwise = traits(plan.format).is_measured();
  return t;
}

// The name of a kernel of the plan's format.
struct KernelName {
  char name[48];
};
KernelName kernel_of(const char *what, const QuantizePlan &plan) {
  KernelName kernel;
  std::snprintf(kernel.name, sizeof kernel.name, "%s%s", what, traits(plan.format).kernel_name);
  return kernel;
}

adamw_status run_blocks(const Launcher &launcher, const char *function, const char *kernel, const QuantizeTable &t) {
  LoadedKernel loaded{};
  if (adamw_status s = launcher.state.kernel(function, *find_kernel(kernel), &loaded)) return s;
  return launcher.launch(function, loaded, t.blocks.count, t);
}

}  // namespace

adamw_status quantize(const QuantizePlan &plan, const float *source, std::uint8_t *codes, const ScaleArrays &scales) {
  constexpr const char *function = "adamw_quantize";
  return on_device(function, plan.device, plan.stream, [&](const Launcher &launcher) {
    QuantizeTable t = quantize_table(plan, const_cast<float *>(source), codes, scales);
    Workspace workspace(launcher.state, launcher.stream);
    if (t.tensorwise) {
      if (adamw_status s = workspace.get(function, sizeof(FoundExtremes))) return s;
      t.found = workspace.at<FoundExtremes>(0);
      if (adamw_status s = run_blocks(launcher, function, "adamw_extremes", t)) return s;
    }
    if (adamw_status s = run_blocks(launcher, function, kernel_of("adamw_quantize", plan).name, t)) return s;
    return workspace.give_back(function);
  });
}

adamw_status dequantize(const QuantizePlan &plan, const std::uint8_t *codes, const ScaleArrays &scales, float *target) {
  constexpr const char *function = "adamw_dequantize";
  return on_device(function, plan.device, plan.stream, [&](const Launcher &launcher) {
    return run_blocks(launcher, function, kernel_of("adamw_dequantize", plan).name,
                      quantize_table(plan, target, const_cast<std::uint8_t *>(codes), scales));
  });
}

// ---- master weights ----

namespace {

adamw_status convert_weights(const SplitPlan &plan, const char *function, const char *kernel, float *weights,
                             std::uint16_t *param, void *remainder) {
  return on_device(function, plan.device, plan.stream, [&](const Launcher &launcher) {
    const SplitTable t{weights,        param, remainder, plan.numel, plan.global_offset, plan.key, plan.remainder_bits,
                       plan.stochastic};
    LoadedKernel loaded{};
    if (adamw_status s = launcher.state.kernel(function, *find_kernel(kernel), &loaded)) return s;
    return launcher.launch(function, loaded, blocks_in(plan.numel), t);
  });
}

}  // namespace

adamw_status split(const SplitPlan &plan, const float *weights, std::uint16_t *param, void *remainder) {
  return convert_weights(plan, "adamw_split_weights", "adamw_split", const_cast<float *>(weights), param, remainder);
}

adamw_status join(const SplitPlan &plan, const std::uint16_t *param, const void *remainder, float *weights) {
  return convert_weights(plan, "adamw_join_weights", "adamw_join", weights, const_cast<std::uint16_t *>(param),
                         const_cast<void *>(remainder));
}

// ---- the norm of all gradients ----

namespace {

// One, launch by launch.
class NormRun {
 public:
  NormRun(const NormPlan &plan, double *squares, const Launcher &launcher)
      : plan_(plan), squares_(squares), launcher_(launcher), workspace_(launcher.state, launcher.stream) {}

  adamw_status go() {
    std::int64_t segments = 0, all_rows = 0;
    for (std::int64_t i = 0; i < plan_.count; ++i) {
      const std::int64_t blocks = blocks_in(plan_.gradients[i].numel);
      if (blocks > max_items) {
        return fail(ADAMW_ERROR_UNSUPPORTED,
                    "%s: tensor %lld: it has %lld blocks of %d elements, but a GPU takes at most %lld", function,
                    static_cast<long long>(i), static_cast<long long>(blocks), block_size,
                    static_cast<long long>(max_items));
      }
      if (blocks == 0) continue;
      segments += segments_of(blocks).count;
      ++all_rows;
    }
    if (adamw_status s = launcher_.state.kernel(function, *find_kernel("adamw_squares"), &kernel_)) return s;
    SquaresHead &h = table_->head;
    h = {};
    h.squares = squares_;
    h.count = plan_.count;
    h.all_rows = all_rows;
    if (all_rows == 0) return launcher_.launch(function, kernel_, 1, *table_);
    // What is counted up begins with zeros, and so do the sums of gradients without elements.
    const auto doubles = static_cast<std::size_t>(segments + plan_.count) * sizeof(double),
               counters = static_cast<std::size_t>(plan_.count + 1) * sizeof(std::uint32_t);
    if (adamw_status s = workspace_.get(function, doubles + counters)) return s;
    h.sums = workspace_.at<double>(0);
    h.rows_arrived = workspace_.at<std::uint32_t>(doubles);
    parts_ = h.sums + plan_.count;
    for (std::int64_t first = 0; first < plan_.count;) {
      if (adamw_status s = launch(&first)) return s;
    }
    return workspace_.give_back(function);
  }

 private:
  static constexpr const char *function = "adamw_norm";

  // Gradients from *first on, as many as one launch carries. Those without elements end it: rows are numbered without
  // gaps.
  adamw_status launch(std::int64_t *first) {
    SquaresHead &h = table_->head;
    h.parts = parts_;
    h.rows = 0;
    std::int64_t items = 0;
    while (*first < plan_.count && plan_.gradients[*first].numel == 0) ++*first;
    h.rows_before = h.sums + *first;
    h.arrived = h.rows_arrived + 1 + *first;
    for (; *first < plan_.count && h.rows < SquaresTable::capacity; ++*first) {
      const adamw_gradient &g = plan_.gradients[*first];
      const std::int64_t own = g.numel > 0 ? segments_of(blocks_in(g.numel)).count : 0;
      if (own == 0 || items + own > max_items) break;
      items += own;
      table_->rows[h.rows++] = {g.grad, g.numel, static_cast<std::uint32_t>(items), static_cast<std::uint16_t>(g.dtype),
                                static_cast<std::uint16_t>(is_aligned(g.grad, 16))};
    }
    if (h.rows == 0) return ADAMW_OK;  // the last ones have no elements
    h.items = items;
    parts_ += items;
    return launcher_.launch(function, kernel_, items, *table_);
  }

  const NormPlan &plan_;
  double *const squares_;
  const Launcher &launcher_;
  Workspace workspace_;
  LoadedKernel kernel_{};
  double *parts_ = nullptr;
  Lease<SquaresTable> table_;
};

}  // namespace

adamw_status norm(const NormPlan &plan, double *squares) {
  return on_device("adamw_norm", plan.device, plan.stream,
                   [&](const Launcher &launcher) { return NormRun(plan, squares, launcher).go(); });
}

adamw_status clip_factor(const ClipPlan &plan, const double *squares, std::int64_t count, float *norm, float *factor) {
  constexpr const char *function = "adamw_clip_factor";
  return on_device(function, plan.device, plan.stream, [&](const Launcher &launcher) {
    const ClipTable t{squares, plan.grad_scale, norm, factor, plan.max_norm, static_cast<std::int32_t>(count)};
    LoadedKernel loaded{};
    if (adamw_status s = launcher.state.kernel(function, *find_kernel("adamw_clip"), &loaded)) return s;
    return launcher.launch(function, loaded, 1, t);
  });
}

}  // namespace gpu
}  // namespace adamw
