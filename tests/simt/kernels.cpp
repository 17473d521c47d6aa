// Owns the library's kernels as host code, and tells the fake driver of them. The kernel source is the real one.
#define ADAMW_DEVICE_HEADER "../../../tests/simt/device.h"
#include "../../libadamw/gpu/kernels/norm.h"
#include "../../libadamw/gpu/kernels/passes.h"
#include "../../libadamw/gpu/kernels/quantize.h"
#include "../../libadamw/gpu/kernels/split.h"
#include "fake_driver.h"

// By reference: on a GPU all threads read the same constant memory, and here 32 KB on each of 256 stacks would be slow.
#undef ADAMW_PARAMS
#define ADAMW_PARAMS
#define PlainTable const PlainTable &
#define AmsgradTable const AmsgradTable &
#define NormTable const NormTable &
#define QuantizeTable const QuantizeTable &
#define SplitTable const SplitTable &
#define SquaresTable const SquaresTable &
#define ClipTable const ClipTable &
#include "../../libadamw/gpu/kernels/kernels.cu"
#undef PlainTable
#undef AmsgradTable
#undef NormTable
#undef QuantizeTable
#undef SplitTable
#undef SquaresTable
#undef ClipTable

SIMT_KERNELS(ADAMW_KERNELS)

// In place of the compiled kernels (libadamw/gpu/fatbin.S.in).
extern "C" const unsigned char adamw_fatbin[16] = {0x50, 0xED, 0x55, 0xBA}, adamw_fatbin_end[1] = {};
