// Owns the list of kernels: each is a template of step.h, passes.h or quantize.h for one choice of dtypes. table.h
// names them for the host.
#include "passes.h"
#include "quantize.h"
#include "stream.h"

using namespace adamw::gpu;

// Threads that share a multiprocessor's 64 K registers: as few as let a thread keep all that it works with.
constexpr int at_once_step8 = 640, at_once_step32 = 512, at_once_amsgrad = 512;

#define KERNEL(name, Table, at_once, ...)                                                                    \
  ADAMW_KERNEL ADAMW_LAUNCH_BOUNDS(name##_threads, at_once / name##_threads) name(ADAMW_PARAMS Table table) { \
    __VA_ARGS__, name##_threads / 32>(table);                                                                \
  }
#define STEP_KERNEL(state, P, G, name) \
  KERNEL(adamw_##state##_##name, PlainTable, at_once_##state, state<P, G, false)
#define STEP_KERNEL_AMSGRAD(state, P, G, name) \
  KERNEL(adamw_##state##_##name##_amsgrad, AmsgradTable, at_once_amsgrad, state<P, G, true)
#define STEP_KERNELS(state)                                 \
  STEP_KERNEL(state, Float32, Float32, f32_f32)             \
  STEP_KERNEL(state, Float32, Bfloat16, f32_bf16)           \
  STEP_KERNEL(state, Bfloat16, Float32, bf16_f32)           \
  STEP_KERNEL(state, Bfloat16, Bfloat16, bf16_bf16)         \
  STEP_KERNEL(state, Float16, Float16, f16_f16)             \
  STEP_KERNEL(state, RuntimeDtype, RuntimeDtype, any)                         \
  STEP_KERNEL(state, RuntimeDtypeInRuns, RuntimeDtypeInRuns, runs)            \
  STEP_KERNEL_AMSGRAD(state, Float32, Float32, f32_f32)     \
  STEP_KERNEL_AMSGRAD(state, Bfloat16, Bfloat16, bf16_bf16) \
  STEP_KERNEL_AMSGRAD(state, RuntimeDtype, RuntimeDtype, any)                 \
  STEP_KERNEL_AMSGRAD(state, RuntimeDtypeInRuns, RuntimeDtypeInRuns, runs)

STEP_KERNELS(step32)
STEP_KERNELS(step8)

ADAMW_KERNEL adamw_measure32(ADAMW_PARAMS PlainTable table) { measure<false, false>(table); }
ADAMW_KERNEL adamw_measure8(ADAMW_PARAMS PlainTable table) { measure<false, true>(table); }
ADAMW_KERNEL adamw_measure32_amsgrad(ADAMW_PARAMS AmsgradTable table) { measure<true, false>(table); }
ADAMW_KERNEL adamw_measure8_amsgrad(ADAMW_PARAMS AmsgradTable table) { measure<true, true>(table); }
ADAMW_KERNEL adamw_norms(ADAMW_PARAMS NormTable table) { norms(table); }
ADAMW_KERNEL adamw_extremes(ADAMW_PARAMS QuantizeTable table) { find_extremes(table); }
ADAMW_KERNEL adamw_quantize8(ADAMW_PARAMS QuantizeTable table) { quantize_blocks(table); }
ADAMW_KERNEL adamw_dequantize8(ADAMW_PARAMS QuantizeTable table) { dequantize_blocks(table); }
