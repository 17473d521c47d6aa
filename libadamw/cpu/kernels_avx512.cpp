// Owns the kernels for x86-64 with AVX-512. Compiled with that instruction set: nothing else may be added here.
#include "registers_avx512.h"
// The parts come first: the loops are written against them.
#include "blocks.h"

ADAMW_KERNELS(avx512)
