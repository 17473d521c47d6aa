// Owns the portable kernels, for any processor. Compiled with that instruction set: nothing else may be added here.
#include "registers_portable.h"
// The parts come first: the loops are written against them.
#include "blocks.h"

ADAMW_KERNELS(scalar)
