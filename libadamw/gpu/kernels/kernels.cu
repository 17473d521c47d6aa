// Owns the list of kernels: each is a template of step.h, passes.h, norm.h or quantize.h for one choice of dtypes. table.h
// names them for the host.
#include "norm.h"
#include "passes.h"
#include "quantize.h"
#include "split.h"
#include "stream.h"

using namespace adamw::gpu;

// Threads that share a multiprocessor's 64 K registers: as few as let a thread keep all that it works with.
constexpr int at_once_codes = 640, at_once_numbers = 512, at_once_amsgrad = 512;

#define KERNEL(name, Table, at_once, ...)                                                                    \
  ADAMW_KERNEL ADAMW_LAUNCH_BOUNDS(name##_threads, at_once / name##_threads) name(ADAMW_PARAMS Table table) { \
    step<__VA_ARGS__, name##_threads / 32>(table);                                                           \
  }
#define STEP_KERNEL(state, at_once, name, P, G, ...) \
  KERNEL(adamw_step##state##_##name, PlainTable, at_once, __VA_ARGS__, P, G, false)
#define STEP_KERNEL_AMSGRAD(state, name, P, G, ...) \
  KERNEL(adamw_step##state##_##name##_amsgrad, AmsgradTable, at_once_amsgrad, __VA_ARGS__, P, G, true)
#define MEASURE_KERNEL(name, Table, amsgrad, ...) \
  ADAMW_KERNEL name(ADAMW_PARAMS Table table) { measure<__VA_ARGS__, amsgrad>(table); }

// The kernels of a format. After its name: how its moments are kept.
#define FORMAT_KERNELS(state, at_once, ...)                                                  \
  STEP_KERNEL(state, at_once, f32_f32, Float32, Float32, __VA_ARGS__)                        \
  STEP_KERNEL(state, at_once, f32_bf16, Float32, Bfloat16, __VA_ARGS__)                      \
  STEP_KERNEL(state, at_once, bf16_f32, Bfloat16, Float32, __VA_ARGS__)                      \
  STEP_KERNEL(state, at_once, bf16_bf16, Bfloat16, Bfloat16, __VA_ARGS__)                    \
  STEP_KERNEL(state, at_once, bf16r8_bf16, Weights<8>, Bfloat16, __VA_ARGS__)                \
  STEP_KERNEL(state, at_once, bf16r16_bf16, Weights<16>, Bfloat16, __VA_ARGS__)              \
  STEP_KERNEL(state, at_once, f16_f16, Float16, Float16, __VA_ARGS__)                        \
  STEP_KERNEL(state, at_once, any, RuntimeDtype, RuntimeDtype, __VA_ARGS__)                  \
  STEP_KERNEL(state, at_once, runs, RuntimeDtypeInRuns, RuntimeDtypeInRuns, __VA_ARGS__)     \
  STEP_KERNEL_AMSGRAD(state, f32_f32, Float32, Float32, __VA_ARGS__)                         \
  STEP_KERNEL_AMSGRAD(state, bf16_bf16, Bfloat16, Bfloat16, __VA_ARGS__)                     \
  STEP_KERNEL_AMSGRAD(state, any, RuntimeDtype, RuntimeDtype, __VA_ARGS__)                   \
  STEP_KERNEL_AMSGRAD(state, runs, RuntimeDtypeInRuns, RuntimeDtypeInRuns, __VA_ARGS__)      \
  MEASURE_KERNEL(adamw_measure##state, PlainTable, false, __VA_ARGS__)                       \
  MEASURE_KERNEL(adamw_measure##state##_amsgrad, AmsgradTable, true, __VA_ARGS__)
#define NUMBER_KERNELS(_, state, Dtype) FORMAT_KERNELS(state, at_once_numbers, Numbers<Dtype>)

ADAMW_NUMBER_FORMATS(NUMBER_KERNELS, )
FORMAT_KERNELS(8, at_once_codes, Codes8)

ADAMW_KERNEL adamw_norms(ADAMW_PARAMS NormTable table) { norms(table); }
ADAMW_KERNEL adamw_squares(ADAMW_PARAMS SquaresTable table) { squares(table); }
ADAMW_KERNEL adamw_clip(ADAMW_PARAMS ClipTable table) { clip(table); }
ADAMW_KERNEL adamw_extremes(ADAMW_PARAMS QuantizeTable table) { find_extremes(table); }
ADAMW_KERNEL adamw_quantize8(ADAMW_PARAMS QuantizeTable table) { quantize_blocks(table); }
ADAMW_KERNEL adamw_dequantize8(ADAMW_PARAMS QuantizeTable table) { dequantize_blocks(table); }
ADAMW_KERNEL adamw_split(ADAMW_PARAMS SplitTable table) { split_weights(table); }
ADAMW_KERNEL adamw_join(ADAMW_PARAMS SplitTable table) { join_weights(table); }
