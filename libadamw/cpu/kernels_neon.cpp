// Owns the kernels for AArch64. Compiled with that instruction set: nothing else may be added here.
#include "registers_neon.h"
// The parts come first: the loops are written against them.
#include "blocks.h"

ADAMW_KERNELS(neon)
