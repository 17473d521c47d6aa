// Owns which kernels the rows of a step take, and what those must be told of them. Knows no launches.
#pragma once

#include <cstdio>
#include <cstring>

#include "../backend.h"
#include "device_state.h"
#include "table.h"

namespace adamw {
namespace gpu {

// The kernel of table.h with this name; null if there is none.
inline const ListedKernel *find_kernel(const char *name) {
#define ADAMW_NAME(kernel, Table, threads) {#kernel, threads},
  static constexpr ListedKernel known[] = {ADAMW_KERNELS(ADAMW_NAME)};
#undef ADAMW_NAME
  for (const ListedKernel &one : known) {
    if (std::strcmp(one.name, name) == 0) return &one;
  }
  return nullptr;
}

struct StepKernels {
  const ListedKernel *step, *in_runs, *measure;

  explicit StepKernels(const StepKind &kind) {
    const FormatTraits format = traits(kind.state_format);
    const char *state = format.kernel_name, *amsgrad = kind.amsgrad ? "_amsgrad" : "";
    char name[48];
    std::snprintf(name, sizeof name, "adamw_step%s_%s_%s%s", state, traits(kind.param_dtype).kernel_name,
                  traits(kind.grad_dtype).kernel_name, amsgrad);
    // The kernels of single dtypes know nothing of scales of a whole tensor.
    step = format.is_measured() ? nullptr : find_kernel(name);
    if (step == nullptr) {
      std::snprintf(name, sizeof name, "adamw_step%s_any%s", state, amsgrad);
      step = find_kernel(name);
    }
    std::snprintf(name, sizeof name, "adamw_step%s_runs%s", state, amsgrad);
    in_runs = find_kernel(name);
    std::snprintf(name, sizeof name, "adamw_measure%s%s", state, amsgrad);
    measure = find_kernel(name);
  }
};

inline bool is_aligned(const void *p, std::size_t bytes) { return reinterpret_cast<std::uintptr_t>(p) % bytes == 0; }

// Whether whole blocks of a row can be read in vectors: elements.h takes 8 neighbours, or 4 and 4, of each buffer.
inline bool is_aligned(const StepKind &kind, const Row &row) {
  const adamw_tensor &t = row.tensor;
  const auto fits = [&](const void *p) { return p == nullptr || is_aligned(p, 16); };
  const bool steps = row.blocks.blocks_per_row == 0 || row.blocks.row_length % 8 == 0;
  const bool groups = !kind.needs_indices() || t.global_offset % 8 == 0;  // random words are of 8 neighbours, too
  return steps && groups && fits(t.param) && fits(t.grad) && fits(t.exp_avg) && fits(t.exp_avg_sq) &&
         (!kind.amsgrad || fits(t.max_exp_avg_sq));
}

// Whether a row takes the kernel that knows of runs.
inline bool is_in_runs(const StepKind &kind, const Row &row) { return row.runs.length != 0 && kind.needs_indices(); }

}  // namespace gpu
}  // namespace adamw
