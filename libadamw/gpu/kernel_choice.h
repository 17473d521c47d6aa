// Owns which kernels the rows of a step take, and what those must be told of them. Knows no launches.
#pragma once

#include <cstdio>
#include <initializer_list>

#include "../backend.h"
#include "device_state.h"
#include "table.h"

namespace adamw {
namespace gpu {

#define ADAMW_NAME(kernel, Table, threads) {#kernel, threads},
constexpr ListedKernel listed_kernels[] = {ADAMW_KERNELS(ADAMW_NAME)};
#undef ADAMW_NAME

// The kernel of table.h with this name; null if there is none.
constexpr const ListedKernel *find_kernel(const char *name) {
  for (const ListedKernel &one : listed_kernels) {
    const char *a = one.name, *b = name;
    for (; *a == *b && *a != '\0'; ++a, ++b) {
    }
    if (*a == *b) return &one;
  }
  return nullptr;
}
constexpr bool are_kernels(std::initializer_list<const char *> names) {
  for (const char *name : names) {
    if (find_kernel(name) == nullptr) return false;
  }
  return true;
}

// Every format has the kernels that any dtypes take, and every dtype is known to these.
#define ADAMW_CHECK_FORMAT(value, Coding, kernel, bytes, scaling, is_random)                                           \
  static_assert(                                                                                                       \
      are_kernels({"adamw_step" kernel "_any", "adamw_step" kernel "_any_amsgrad", "adamw_step" kernel "_runs",        \
                   "adamw_step" kernel "_runs_amsgrad", "adamw_measure" kernel, "adamw_measure" kernel "_amsgrad"}) && \
          (scaling == Scaling::none ||                                                                                 \
           are_kernels({"adamw_quantize" kernel, "adamw_dequantize" kernel, "adamw_extremes"})),                       \
      "table.h lacks kernels of a state format");
ADAMW_STATE_FORMAT_TABLE(ADAMW_CHECK_FORMAT)
#undef ADAMW_CHECK_FORMAT

constexpr bool kernels_know(adamw_dtype dtype) {
#define ADAMW_KNOWS(value, Dtype) dtype == value ||
  return ADAMW_KERNEL_DTYPES(ADAMW_KNOWS) false;
#undef ADAMW_KNOWS
}
#define ADAMW_CHECK_DTYPE(value, name, bytes) \
  static_assert(kernels_know(value), "table.h lacks a dtype in ADAMW_KERNEL_DTYPES");
ADAMW_DTYPE_TABLE(ADAMW_CHECK_DTYPE)
#undef ADAMW_CHECK_DTYPE

// Every width of remainders is known to these, too, and with every format has a kernel at full speed.
constexpr bool is_kernel(std::initializer_list<const char *> parts_of_name) {
  for (const ListedKernel &one : listed_kernels) {
    const char *rest = one.name;
    for (const char *part : parts_of_name) {
      for (; rest != nullptr && *part != '\0'; ++part) rest = *rest == *part ? rest + 1 : nullptr;
    }
    if (rest != nullptr && *rest == '\0') return true;
  }
  return false;
}
constexpr bool has_kernels(int remainder_bits, const char *name) {
#define ADAMW_KNOWS(bits) remainder_bits == bits ||
  const bool known = ADAMW_KERNEL_REMAINDERS(ADAMW_KNOWS) false;
#undef ADAMW_KNOWS
#define ADAMW_HAS(value, Coding, kernel, bytes, scaling, is_random) \
  is_kernel({"adamw_step", kernel, "_bf16r", name, "_bf16"}) &&
  return ADAMW_STATE_FORMAT_TABLE(ADAMW_HAS) known;
#undef ADAMW_HAS
}
#define ADAMW_CHECK_REMAINDER(bits, T) static_assert(has_kernels(bits, #bits), "table.h lacks a width of remainders");
ADAMW_REMAINDER_TABLE(ADAMW_CHECK_REMAINDER)
#undef ADAMW_CHECK_REMAINDER

struct StepKernels {
  const ListedKernel *step, *in_runs, *measure;

  explicit StepKernels(const StepKind &kind) {
    const FormatTraits format = traits(kind.state_format);
    const char *state = format.kernel_name, *amsgrad = kind.amsgrad ? "_amsgrad" : "";
    char name[48], remainder[8] = "";
    if (kind.remainder_bits != 0) std::snprintf(remainder, sizeof remainder, "r%d", kind.remainder_bits);
    std::snprintf(name, sizeof name, "adamw_step%s_%s%s_%s%s", state, traits(kind.param_dtype).kernel_name, remainder,
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
         (kind.remainder_bits == 0 || fits(t.param_remainder)) && (!kind.amsgrad || fits(t.max_exp_avg_sq));
}

// Whether a row takes the kernel that knows of runs.
inline bool is_in_runs(const StepKind &kind, const Row &row) { return row.runs.length != 0 && kind.needs_indices(); }

}  // namespace gpu
}  // namespace adamw
