// Owns the table of functions that an instruction set's file makes of the block loops. Include a registers_*.h first.
#pragma once

#include "block_passes.h"
#include "block_step.h"
#include "kernels.h"

// The table of this instruction set: stands at the end of its file.
#define ADAMW_KERNELS(isa)                                                                                  \
  namespace adamw {                                                                                         \
  extern const Kernels isa##_kernels;                                                                       \
  const Kernels isa##_kernels = {#isa,     step,  measure, gradient_squares, squares, quantize, dequantize, \
                                 extremes, split, join};                                                    \
  }
