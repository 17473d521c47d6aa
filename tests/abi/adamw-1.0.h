/* SPDX-License-Identifier: MIT
 *
 * adamw.h - the public C interface of libadamw.
 *
 * libadamw does the AdamW step (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019)
 * in place on the caller's memory, with 32-bit or 8-bit optimizer state. It owns no tensors: the caller
 * allocates parameters, gradients and state, asks adamw_state_layout() how large the state is, fills a table
 * with one adamw_tensor row per tensor, and calls adamw_step() once a step for any number of tensors. State that does not
 * fit may lie in the pages of an adamw_pager.
 *
 * For every element, with gradient g (already unscaled, clipped and negated as the options ask):
 *
 *     m   = beta1 * m + (1 - beta1) * g                      exp_avg
 *     v   = beta2 * v + (1 - beta2) * g^2                    exp_avg_sq
 *     v^  = max over all steps of v  (AMSGRAD)  or  v
 *     p   = p * (1 - lr * weight_decay)
 *           - lr / (1 - beta1^step) * m / (sqrt(v^) / sqrt(1 - beta2^step) + eps)
 *
 * Promises (numerics)
 *   - All arithmetic is IEEE single precision; the scalar coefficients above are computed in double precision
 *     and rounded once to float. p is rounded once to its own type: to nearest even, or stochastically
 *     (ADAMW_STEP_STOCHASTIC_ROUNDING).
 *   - The bits of the result do not depend on the instruction set, the number of threads, the order of the
 *     rows, or on how tensors are spread over calls. The sign and payload of a NaN are not promised.
 *   - 8-bit state is described at adamw_state_format.
 *
 * Promises (calls)
 *   - Every function returns adamw_status unless said otherwise; nothing exits, aborts, prints or throws.
 *   - When the status is not ADAMW_OK because an argument was refused, no buffer has been written.
 *     adamw_last_error() then holds a sentence that names the row, the field and the value.
 *   - Thread safety: all functions may be called from any thread at any time, as long as no two running calls
 *     write the same memory.
 *   - Options structs begin with their own size, set by the *_INIT macro, so that fields can be appended in
 *     later versions without breaking compiled programs.
 *   - A buffer needs the alignment of its element type, no more.
 *   - The caller's rounding mode and flush-to-zero flags have no influence, and are as they were after the call.
 *
 * Not promised: anything about memory that other threads write during a call; atomicity (a call that returns
 * ADAMW_ERROR_INTERNAL may have stepped some rows); that new versions choose the same bits (CHANGELOG.md says when not).
 */
#ifndef ADAMW_H
#define ADAMW_H

#include <stddef.h>
#include <stdint.h>

#define ADAMW_VERSION_MAJOR 1
#define ADAMW_VERSION_MINOR 0
#define ADAMW_VERSION_PATCH 0

/* Changes only when a program compiled against an older header can no longer work. */
#define ADAMW_ABI_VERSION 1

#if defined(ADAMW_STATIC)
#define ADAMW_API
#elif defined(_WIN32)
#define ADAMW_API __declspec(dllimport)
#else
#define ADAMW_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------- */

typedef enum adamw_status {
  ADAMW_OK = 0,
  ADAMW_ERROR_INVALID_ARGUMENT = 1, /* a value is out of range, NULL, misaligned, overlapping, ... */
  ADAMW_ERROR_VERSION = 2,          /* a struct size that this library does not know */
  ADAMW_ERROR_UNSUPPORTED = 3,      /* valid, but not on this build, device or processor */
  ADAMW_ERROR_OUT_OF_MEMORY = 4,    /* working memory could not be had; nothing was written */
  ADAMW_ERROR_INTERNAL = 5,         /* a defect of libadamw: please report the text of adamw_last_error() */
  ADAMW_ERROR_DEVICE = 6,           /* a CUDA call failed; adamw_last_error() names it */
  ADAMW_ERROR_STORAGE = 7           /* a file could not be made, grown, read or written; adamw_last_error() says why */
} adamw_status;

/* The name of a status, for example "invalid argument". Never NULL; static storage. */
ADAMW_API const char *adamw_status_string(adamw_status status);

/* What went wrong in the last call on this thread that did not return ADAMW_OK: one line that names the row, field
 * and value. "" if nothing did. Valid until the next libadamw call on this thread. Never NULL. */
ADAMW_API const char *adamw_last_error(void);

/* ---- version ------------------------------------------------------------------------------------------------ */

/* 10000 * major + 100 * minor + patch of the library that is loaded (ADAMW_VERSION_* are those of the header). */
ADAMW_API int32_t adamw_version(void);

/* ADAMW_ABI_VERSION of the library that is loaded. Refuse to go on if it differs from the header's. */
ADAMW_API int32_t adamw_abi_version(void);

/* One line for people and bug reports: version, backend, CUDA version and architectures (or "none"), the CPU kernels
 * built in and the one in use, and whose threads it runs on ("OpenMP" or "its own"). Static storage; never NULL. */
ADAMW_API const char *adamw_build_info(void);

/* ---- threads and instruction sets --------------------------------------------------------------------------- */

/* Number of CPU threads for calls of every thread whose options say num_threads = 0.
 * 0 (the start value): as many as OpenMP gives (OMP_NUM_THREADS, or what the host program set).
 * Negative numbers are refused. The result of a step never depends on it. */
ADAMW_API adamw_status adamw_set_num_threads(int32_t num_threads);

/* The number of threads that a call with num_threads = 0 would use now. At least 1. */
ADAMW_API int32_t adamw_get_num_threads(void);

/* The name of the CPU kernel in use: "scalar", "avx2", "avx512" or "neon". The best one that the processor has is chosen
 * at the first call; the environment variable ADAMW_CPU forces one. If it names one that is unknown, not built in or that
 * this processor lacks, *name is NULL and the status ADAMW_ERROR_UNSUPPORTED, as it is for every step until the process ends. */
ADAMW_API adamw_status adamw_cpu_kernel(const char **name);

/* ---- types -------------------------------------------------------------------------------------------------- */

typedef enum adamw_dtype {
  ADAMW_FLOAT32 = 0,
  ADAMW_BFLOAT16 = 1, /* the upper half of a float32 */
  ADAMW_FLOAT16 = 2   /* IEEE binary16 */
} adamw_dtype;

/* How exp_avg and exp_avg_sq are kept.
 *
 * ADAMW_STATE_FLOAT32: each moment is a float per element.
 *
 * ADAMW_STATE_BLOCK8: each moment is one code byte per element and one float scale ("absmax") per block of 256 elements:
 *
 *     exp_avg          = absmax * signed_map[code]     nearest code from absmax / 10 up, below it stochastically
 *     sqrt(exp_avg_sq) = absmax * unsigned_map[code]   stochastically
 *
 *   absmax is the exact largest magnitude in the block, which gets the last code (that of sqrt(exp_avg_sq) in all but one of
 *   7000 draws, else the one below, 0.35% less); the maps are the dynamic maps of Dettmers et al. ("8-bit
 *   Optimizers via Block-wise Quantization", ICLR 2022) as bitsandbytes uses them, see adamw_codebook(). The root is stored
 *   because it needs half the dynamic range. Stochastic rounding goes up with a probability equal to the distance from the code
 *   below, so that it is right on average: rounding to the nearest code stalls wherever a step changes a moment by less than
 *   half the distance of two codes (v always, with beta2 = 0.999; small m, because small codes lie far apart). The random bits
 *   are a hash of (seed, step, global element index), so runs repeat and resume exactly. A zero moment is exactly zero; a
 *   non-zero second moment is never stored as zero, a non-zero first moment only below 4.5e-7 of its absmax or by the draw, and
 *   where the block's absmax is below 2^-126.
 *   max_exp_avg_sq (AMSGRAD) is kept like exp_avg_sq, but rounded to the nearest code, because a maximum of stochastically
 *   rounded values would drift upwards.
 *   Where a number lies between two codes is known to 2^-15 of their distance. The step itself uses the moments before they
 *   are rounded; its constants are drawn together (beta * absmax, the step size and the denominator), so that it differs from
 *   the step of 32-bit state by roundings of single precision.
 *   Zero-filled memory is a valid fresh state.
 *
 *   Blocks follow rows (see adamw_tensor.row_length): if 64 <= row_length and row_length is no multiple of 256, each row begins
 *   a new block, so a row has ceil(row_length / 256) blocks; otherwise the blocks are those of the flat tensor.
 *
 *   Elements whose gradient is NaN or infinite, or so large that the second moment would overflow (|g| beyond about 1e19), are
 *   skipped: their parameter does not change at all, their moments are kept (rounded again with the rest of the block), the
 *   other elements of the block are stepped as usual, and adamw_step_options.skipped counts them.
 *   (With ADAMW_STATE_FLOAT32 non-finite gradients propagate, as they do in torch.optim.AdamW.)
 *
 * ADAMW_STATE_TENSOR8: as BLOCK8 with one scale for the whole tensor (bitsandbytes' block_wise=False). Less exact; two passes.
 */
typedef enum adamw_state_format {
  ADAMW_STATE_FLOAT32 = 0,
  ADAMW_STATE_BLOCK8 = 1,
  ADAMW_STATE_TENSOR8 = 2
} adamw_state_format;

/* Elements in a block of ADAMW_STATE_BLOCK8. */
#define ADAMW_BLOCK_SIZE 256

/* Entries of adamw_tensor.gnorm_history. */
#define ADAMW_GNORM_HISTORY 100

/* ---- the size of the state ---------------------------------------------------------------------------------- */

typedef struct adamw_state_layout {
  int64_t moment_bytes;   /* bytes of exp_avg; exp_avg_sq and max_exp_avg_sq have as many each */
  int64_t absmax_count;   /* floats of exp_avg_absmax, and of each other *_absmax; 0 for ADAMW_STATE_FLOAT32 */
  int64_t blocks_per_row; /* blocks in each row, if blocks follow rows; 0 if they are flat */
  int64_t total_bytes;    /* of the whole state: two moments (three with amsgrad != 0) and their scales */
} adamw_state_layout;

/* How much state a tensor of `numel` elements in rows of `row_length` (see adamw_tensor) needs. Writes *layout.
 * Errors: an unknown format, numel < 0, row_length that does not divide numel, a size beyond 2^62 bytes, layout == NULL. */
ADAMW_API adamw_status adamw_get_state_layout(adamw_state_format format, int64_t numel, int64_t row_length, int32_t amsgrad,
                                              adamw_state_layout *layout);

/* ---- the step ----------------------------------------------------------------------------------------------- */

/* One row of the table: one tensor. All tensors are dense and contiguous. Buffers may be NULL where numel is 0 or where
 * the options do not use them; those that are used must be aligned to their element and must not overlap any buffer that is
 * written, in this row or another. On a CUDA device every pointer is device-accessible memory. */
typedef struct adamw_tensor {
  void *param;                 /* numel elements of options.param_dtype, in and out */
  const void *grad;            /* numel elements of options.grad_dtype, read only */
  void *exp_avg;               /* state: float or uint8_t codes, see adamw_state_format */
  void *exp_avg_sq;            /* state: float, or uint8_t codes of its square root */
  void *max_exp_avg_sq;        /* state, with ADAMW_STEP_AMSGRAD only */
  float *exp_avg_absmax;       /* state, 8-bit formats only: adamw_state_layout.absmax_count scales */
  float *exp_avg_sq_absmax;    /* likewise */
  float *max_exp_avg_sq_absmax; /* likewise, with ADAMW_STEP_AMSGRAD only */
  float *gnorm_history;        /* state, with percentile_clipping < 100 only: ADAMW_GNORM_HISTORY squared norms */
  int64_t numel;               /* number of elements, >= 0; may exceed 2^31 */
  int64_t row_length;          /* elements of one row of dimension 0 (numel / size(0)); numel for 1-D tensors. Divides numel. */
  int64_t step;                /* the number of this step, from 1 on (state after 0 steps is all zeros) */
  int64_t global_offset;       /* index of element 0 in the unsharded tensor; 0 if it is not sharded */
  int64_t run_length;          /* 0: element i has the index global_offset + i in the unsharded tensor. Else the elements lie there
                                  in runs of so many neighbours, as a shard's columns of a matrix do: element i has the index
                                  global_offset + i / run_length * run_stride + i % run_length. It must divide numel, and no
                                  block of 256 may lie in two runs (blocks are as adamw_state_format says, whatever the format):
                                  it is numel, or a multiple of row_length where blocks follow rows, of 256 where they are flat. */
  int64_t run_stride;          /* how far apart the first elements of two runs lie there: 0 if run_length is 0, else at least
                                  run_length. The last index must be below 2^62. */
  const float *step_tensor;    /* NULL, or one float that is the number of this step instead of `step`: device memory on a
                                  device, where it is read when the step runs (below 1 counts as 1), so that a graph can be replayed */
} adamw_tensor;

/* Flags of adamw_step_options. */
typedef enum adamw_step_flags {
  ADAMW_STEP_AMSGRAD = 1,             /* v^ = the maximum of v so far (Reddi et al., ICLR 2018) */
  ADAMW_STEP_MAXIMIZE = 2,            /* g = -g */
  ADAMW_STEP_STOCHASTIC_ROUNDING = 4, /* round 16-bit parameters stochastically instead of to nearest (no effect on float32) */
  ADAMW_STEP_SKIP_ZEROS = 8           /* elements whose gradient is exactly 0 are left as they are: parameter and moments */
} adamw_step_flags;

/* A page manager, see adamw_pager_create(). */
typedef struct adamw_pager adamw_pager;

/* What is the same for all rows of a call. Start from ADAMW_STEP_OPTIONS_INIT. */
typedef struct adamw_step_options {
  size_t size;                 /* sizeof(adamw_step_options) */
  double lr;                   /* learning rate, finite, >= 0 */
  double beta1;                /* in [0, 1) */
  double beta2;                /* in [0, 1) */
  double eps;                  /* finite, >= 0 */
  double weight_decay;         /* finite, >= 0; decoupled */
  double max_unorm;            /* 0: off. Else finite and > 0: the update u = (m / bc1) / (sqrt(v^ / bc2) + eps) is scaled by
                                  max_unorm * |p| / |u| where |u| > max_unorm * |p| (2-norms over the tensor before the step;
                                  a tensor of zeros therefore never moves, as in bitsandbytes) */
  int32_t param_dtype;         /* adamw_dtype of param */
  int32_t grad_dtype;          /* adamw_dtype of grad; need not be the parameter's */
  int32_t state_format;        /* adamw_state_format */
  uint32_t flags;              /* adamw_step_flags, or-ed */
  int32_t percentile_clipping; /* 100: off. 1 ... 99: the gradient is scaled by clip / |g| where its 2-norm |g| exceeds clip =
                                  sqrt(sort(history)[percentile_clipping]). history holds the squared norms of the last 100 steps:
                                  step 1 fills all entries (as does the first norm above zero), step t writes entry t % 100. A
                                  norm that is not finite is neither recorded nor clipped. */
  int32_t device;              /* -1: CPU. >= 0: that CUDA device (needs a CUDA build of the library) */
  int32_t num_threads;         /* CPU threads for this call; 0: see adamw_set_num_threads() */
  int32_t reserved;            /* 0 */
  uint64_t seed;               /* of the stochastic rounding */
  const float *grad_scale;     /* NULL, or one float > 0: gradients are multiplied by its reciprocal (GradScaler). Device memory
                                  on a device */
  const float *found_inf;      /* NULL, or one float: if it is not 0 the call changes nothing. Device memory on a device */
  int64_t *skipped;            /* NULL, or a counter: increased by the elements that 8-bit state skipped, see
                                  adamw_state_format. Device memory on a device */
  void *stream;                /* the CUDA stream (cudaStream_t) that the work is queued on; ignored on the CPU */
  const float *lr_tensor;      /* NULL, or one float that is the learning rate instead of `lr`. Device memory on a device, where
                                  it is read when the step runs */
  adamw_pager *pager;          /* NULL, or the pager of this device that state may lie in (any of the rows' buffers of state) */
  int64_t *rows_stepped;       /* NULL, or set to the number of rows, counted from row 0, that this call has stepped completely
                                  (on a device: queued). Host memory. Worth a look after ADAMW_ERROR_STORAGE and DEVICE */
} adamw_step_options;

#define ADAMW_STEP_OPTIONS_INIT                                                                          \
  {                                                                                                      \
    sizeof(adamw_step_options), 1e-3, 0.9, 0.999, 1e-8, 1e-2, 0.0, ADAMW_FLOAT32, ADAMW_FLOAT32,         \
        ADAMW_STATE_FLOAT32, 0u, 100, -1, 0, 0, 0u, NULL, NULL, NULL, NULL, NULL, NULL, NULL             \
  }

/* One AdamW step of `count` tensors, in place. `tensors` is an array of rows that lie `tensor_size` =
 * sizeof(adamw_tensor) bytes apart; it is only read, and not kept after the call.
 * Every field of every row is checked before anything is written. count = 0 is a valid call that does nothing.
 * On the CPU the call returns when the step is done. It needs less than a kilobyte of working memory a row (132 with
 * percentile_clipping, max_unorm or ADAMW_STATE_TENSOR8), and nothing that grows with the tensors.
 * On a CUDA device the step is queued on options.stream and the call returns; nothing is synchronised, the caller's current
 * device is as it was, and the call may be captured into a CUDA graph (after one call outside of a capture, which loads the
 * kernels). Buffers must stay valid, and unchanged by others, until the stream has passed the step. A launch takes about 300
 * rows; where random bits are drawn, rows in runs (see run_length) have launches of their own, of a slower kernel. Percentile
 * clipping, max_unorm and TENSOR8 take working memory from a pool of the library's own, in stream order. State and results
 * are the CPU's bits, except that a NaN may be another NaN.
 * Errors: INVALID_ARGUMENT for any value outside what is said above; VERSION for an unknown size; UNSUPPORTED for a
 * device that this build, driver or machine has not; OUT_OF_MEMORY; DEVICE with the name of the CUDA call that failed;
 * STORAGE, of a pager's file. On the CPU nothing has been written then; on a device, rows that were queued before the failing
 * call have been. After STORAGE, rows before *rows_stepped have been stepped, the one at it possibly in part (the message says up
 * to which element), those after it not at all; parameters and state agree in each element, whatever could not be written to
 * the file being kept in memory. */
ADAMW_API adamw_status adamw_step(const adamw_step_options *options, const adamw_tensor *tensors, size_t tensor_size,
                                  int64_t count);

/* ---- quantization ------------------------------------------------------------------------------------------- */

/* The two 256-entry maps from a code to a number in [-1, 1]. Both increase with the code.
 * SIGNED (exp_avg): code 127 is 0, codes 127 + k and 127 - k are +-value; 255 is 1.
 *   value(k) = 10^(i - 6) * (0.1 + 0.9 * (k - 2^i + 0.5) / 2^i)   with i = floor(log2(k)), k = 1 ... 127
 * UNSIGNED (sqrt(exp_avg_sq)): code 0 is 0, 255 is 1.
 *   value(k) = 10^(i - 7) * (0.1 + 0.9 * (k + 1 - 2^i + 0.5) / 2^i) with i = floor(log2(k + 1)), k = 1 ... 254
 * evaluated as one fused multiply-add in single precision, so within 1e-6 (relative) of these and of bitsandbytes' tables. */
typedef enum adamw_map { ADAMW_MAP_SIGNED = 0, ADAMW_MAP_UNSIGNED = 1 } adamw_map;

/* Writes the 256 floats of a map to values[0..255]. Errors: an unknown map, NULL. */
ADAMW_API adamw_status adamw_codebook(adamw_map map, float *values);

typedef enum adamw_rounding {
  ADAMW_ROUND_NEAREST = 0,
  ADAMW_ROUND_STOCHASTIC = 1 /* as a step of the same key rounds that moment */
} adamw_rounding;

/* Start from ADAMW_QUANTIZE_OPTIONS_INIT and set numel and row_length. */
typedef struct adamw_quantize_options {
  size_t size;           /* sizeof(adamw_quantize_options) */
  int32_t map;           /* adamw_map */
  int32_t state_format;  /* ADAMW_STATE_BLOCK8 or ADAMW_STATE_TENSOR8 */
  int32_t rounding;      /* adamw_rounding */
  int32_t device;        /* as in adamw_step_options */
  int32_t num_threads;   /* as in adamw_step_options */
  int32_t reserved;      /* 0 */
  int64_t numel;         /* as in adamw_tensor */
  int64_t row_length;    /* as in adamw_tensor */
  int64_t step;          /* key of stochastic rounding, with seed and global_offset; >= 0 */
  int64_t global_offset; /* as in adamw_tensor; there are no runs here */
  uint64_t seed;         /* as in adamw_step_options */
  void *stream;          /* as in adamw_step_options */
} adamw_quantize_options;

#define ADAMW_QUANTIZE_OPTIONS_INIT                                                                      \
  {                                                                                                      \
    sizeof(adamw_quantize_options), ADAMW_MAP_SIGNED, ADAMW_STATE_BLOCK8, ADAMW_ROUND_NEAREST, -1, 0, 0, \
        0, 0, 0, 0, 0u, NULL                                                                             \
  }

/* codes[i], absmax[block] from numel floats. The number of scales is adamw_get_state_layout().absmax_count.
 * NaN, infinities and, with ADAMW_MAP_UNSIGNED, negative numbers are stored as zero. With ADAMW_MAP_UNSIGNED a number above
 * zero never becomes code 0; rounding to the nearest code of ADAMW_MAP_SIGNED takes magnitudes below 4.5e-7 of the scale to
 * zero. A block whose largest magnitude is below 2^-126 is stored as zero. */
ADAMW_API adamw_status adamw_quantize(const adamw_quantize_options *options, const float *source, uint8_t *codes, float *absmax);

/* target[i] = absmax[block of i] * map[codes[i]], in single precision. Every byte is a valid code. */
ADAMW_API adamw_status adamw_dequantize(const adamw_quantize_options *options, const uint8_t *codes, const float *absmax,
                                        float *target);

/* ---- pages -------------------------------------------------------------------------------------------------- */

/* A pager owns memory for optimizer state that need not fit where the step runs: it lies in its backing, and adamw_step()
 * brings it in for use, a window of at most chunk_bytes at a time, reading ahead and writing behind. Whatever the backing, the
 * bits of a step are those without a pager.
 *
 * Buffers are ordinary memory to the program that holds them: they may be read, written and copied between steps. Pointers
 * to state in adamw_tensor may point anywhere into a buffer. */
typedef enum adamw_place {
  ADAMW_PLACE_HOST = 0,    /* ordinary memory. As a backing: the CPU steps it where it lies */
  ADAMW_PLACE_FILE = 1,    /* a file without a name in `directory`, gone with the process however that ends; for the CPU.
                              Space on the disk is reserved before a buffer is given out. The buffer is a mapping of the file; a
                              step reads and writes the file itself, past the page cache where the file system can */
  ADAMW_PLACE_PINNED = 2,  /* page-locked host memory, copied through slots in the memory of a CUDA device */
  ADAMW_PLACE_MANAGED = 3, /* CUDA unified memory. What the budget holds lies on the device until the driver moves it out of a
                              full one; a step prefetches what may not be there. What it does not hold stays on the host,
                              where kernels read and write it over the link */
  ADAMW_PLACE_DEVICE = 4   /* device memory; no backing, but where a part of state may lie that the budget has room for */
} adamw_place;

/* Start from ADAMW_PAGER_OPTIONS_INIT. */
typedef struct adamw_pager_options {
  size_t size;            /* sizeof(adamw_pager_options) */
  int32_t backing;        /* adamw_place, but for DEVICE */
  int32_t device;         /* where steps run: -1, the CPU (HOST, FILE), or a CUDA device (PINNED, MANAGED) */
  int64_t resident_bytes; /* the budget of fast memory (host memory for FILE, the device's for PINNED and MANAGED). What the
                             windows do not need (those of MANAGED take nothing) holds the buffers allocated first, which are
                             then stepped where they lie. 0: the windows alone (FILE, PINNED), or no limit (MANAGED). No effect
                             on HOST. A step itself needs some kilobytes beside it */
  int64_t chunk_bytes;    /* state in one window; 0: 16 MiB, or less where the budget is small (MANAGED: 1 GiB).
                             There are 4 windows */
  int64_t reserve_bytes;  /* FILE: space that is reserved on the disk at once, in addition to that of each buffer when it is
                             allocated. 0 for other backings */
  const char *directory;  /* FILE: where; NULL: the environment variable TMPDIR, else /var/tmp. NULL for other backings */
} adamw_pager_options;

#define ADAMW_PAGER_OPTIONS_INIT \
  { sizeof(adamw_pager_options), ADAMW_PLACE_HOST, -1, 0, 0, 0, NULL }

/* What a pager holds and has done. Bytes, from its creation on. */
typedef struct adamw_pager_statistics {
  int64_t buffers;             /* allocated now */
  int64_t host_bytes;          /* of these buffers, by where they lie */
  int64_t file_bytes;
  int64_t pinned_bytes;
  int64_t managed_bytes;
  int64_t device_bytes;
  int64_t resident_bytes;      /* fast memory in use now: windows and resident buffers (MANAGED: what the last step found) */
  int64_t resident_peak_bytes; /* at most so far */
  int64_t bytes_in;            /* brought in by steps (MANAGED: as far as they prefetched it) */
  int64_t bytes_out;           /* written back */
  int64_t wait_ns;             /* time that steps waited for bytes (FILE; on a device nobody waits on the host) */
  int64_t faults_avoided;      /* pages of 4096 bytes that were there before they were touched */
} adamw_pager_statistics;

/* Makes a pager; *pager is NULL after an error. Errors: INVALID_ARGUMENT; VERSION; UNSUPPORTED (a device that is not there, a
 * backing that it cannot have); STORAGE (a directory that is missing or read-only, a full disk), naming the directory. */
ADAMW_API adamw_status adamw_pager_create(const adamw_pager_options *options, adamw_pager **pager);

/* Gives back the pager and everything that it holds; NULL is allowed. INVALID_ARGUMENT while it has buffers, nothing has happened
 * then: each would become a wild pointer. */
ADAMW_API adamw_status adamw_pager_destroy(adamw_pager *pager);

/* A buffer of at least `bytes` (> 0) zeros, aligned to 64 bytes; *place (or NULL) is where it lies. Buffers that are allocated
 * in the order in which they are stepped are read and written in larger pieces. *buffer is NULL after an error, which is
 * STORAGE where the disk has no room for it, OUT_OF_MEMORY or DEVICE. */
ADAMW_API adamw_status adamw_pager_alloc(adamw_pager *pager, int64_t bytes, void **buffer, int32_t *place);

/* Gives a buffer back, waiting for the steps and loans that still use it (not for other work of the caller's); NULL is
 * allowed. */
ADAMW_API adamw_status adamw_pager_free(adamw_pager *pager, void *buffer);

/* For kernels other than adamw_step(). Brings in `bytes` at `address`, which lie in one buffer: *usable is where they can be used
 * by the CPU, or by work that is queued on `stream` of the device, until adamw_pager_release(). At most 3 stretches of at
 * most chunk_bytes each are out at a time, and none during an adamw_step() with this pager: INVALID_ARGUMENT otherwise. */
ADAMW_API adamw_status adamw_pager_acquire(adamw_pager *pager, void *address, int64_t bytes, void *stream, void **usable);

/* The end of that use; `dirty` is not 0 if bytes were written, which then go back to the buffer: at once on the CPU, behind the
 * work queued on `stream` on a device. */
ADAMW_API adamw_status adamw_pager_release(adamw_pager *pager, void *usable, int32_t dirty, void *stream);

/* A hint that these bytes will be acquired soon. They lie in one buffer. */
ADAMW_API adamw_status adamw_pager_prefetch(adamw_pager *pager, void *address, int64_t bytes, void *stream);

/* Waits until buffers in host memory (PINNED) hold what the steps queued so far have left there. Others always do, as far as
 * the stream has come. */
ADAMW_API adamw_status adamw_pager_wait(adamw_pager *pager);

/* Writes *statistics. size is sizeof(adamw_pager_statistics). */
ADAMW_API adamw_status adamw_pager_stats(adamw_pager *pager, adamw_pager_statistics *statistics, size_t size);

/* Pagers are thread safe; steps with one pager run one after the other. After fork() the child has copies of HOST and FILE
 * buffers, as of all its memory, and may free them, but every other call with a FILE, PINNED or MANAGED pager is refused there
 * (UNSUPPORTED). */

/* ---- tensors of a Python framework -------------------------------------------------------------------------- */

/* What adamw_describe_tensors() says of one tensor besides its address. Tensors of equal form have equal bytes here. */
typedef struct adamw_tensor_form {
  int64_t numel;        /* number of elements */
  uint64_t shape;       /* a hash of the sizes, in order */
  int32_t device_type;  /* DLDeviceType: 1 is the CPU, 2 CUDA */
  int32_t device_id;
  uint8_t dtype_code;   /* DLDataTypeCode: 2 is float, 4 bfloat */
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int32_t contiguous;   /* 1 if the elements lie side by side in the order of the dimensions, else 0 */
} adamw_tensor_form;

/* Fills the DLTensor of dlpack.h, version 1, at `dl_tensor` with a view of `object`; 0 if it could. It is the
 * dltensor_from_py_object_no_sync of a DLPackExchangeAPI, which torch has since 2.9 in Tensor.__dlpack_c_exchange_api__. */
typedef int (*adamw_dlpack_function)(void *object, void *dl_tensor);

/* The object at `index` of `sequence`, not owned, or NULL. CPython's PyList_GetItem is one. */
typedef void *(*adamw_item_function)(void *sequence, ptrdiff_t index);

/* What `object` refers to, owned by whoever calls it, or NULL. The `get` of a PyGetSetDef of CPython is one. */
typedef void *(*adamw_get_function)(void *object, void *closure);

/* Makes `object` number `index` of `sequence`, which owns it from now on, even if it fails; 0 if it could. CPython's
 * PyList_SetItem is one. */
typedef int (*adamw_set_item_function)(void *sequence, ptrdiff_t index, void *object);

/* What adamw_describe_tensors() calls, and where it writes: filled in once, for as many calls as there are. Start from
 * ADAMW_DESCRIBE_OPTIONS_INIT. */
typedef struct adamw_describe_options {
  size_t size;                    /* sizeof(adamw_describe_options) */
  adamw_dlpack_function describe;
  adamw_item_function item;
  int64_t count;                  /* number of objects, >= 0 */
  void *addresses;                /* the address of element 0 of tensor i goes to the pointer i * stride bytes beyond this */
  size_t stride;                  /* a multiple of 8: `addresses` may be a column of a table of adamw_tensor */
  adamw_tensor_form *forms;       /* `count` of them */
  size_t form_size;               /* sizeof(adamw_tensor_form) */
  void **objects;                 /* NULL, or where to write what tells the objects apart: `count` pointers, those that `item`
                                     returned, or with `handle` those that lie in these objects */
  adamw_get_function get;         /* NULL, or: described is get(object, closure), as a parameter's gradient is */
  void *closure;
  adamw_set_item_function keep;   /* with `get`: the sequence `kept` owns what `get` returned until the caller empties it */
  void *kept;
  adamw_get_function test;        /* NULL, or: a tensor is refused of which test(tensor, NULL) is not `passes`. A torch tensor
                                     whose is_neg() is not False holds other numbers than its memory */
  void *passes;
  size_t handle;                  /* 0, or: `handle` bytes beyond its beginning a tensor has a pointer. It is refused if the
                                     64-bit number `bits_at` bytes beyond what that points to has one of the bits `bits` */
  size_t bits_at;
  uint64_t bits;
} adamw_describe_options;

#define ADAMW_DESCRIBE_OPTIONS_INIT \
  { sizeof(adamw_describe_options), NULL, NULL, 0, NULL, 0, NULL, sizeof(adamw_tensor_form), NULL, NULL, NULL, NULL, NULL, \
    NULL, NULL, 0, 0, 0u }

/* Looks at each of the first `count` objects of `sequence`. For bindings that must look at thousands of tensors before each
 * step: asked one by one from Python that takes longer than the step. It keeps nothing, synchronises nothing and takes no
 * lock: if the functions need the interpreter's, the caller must hold it.
 * Errors: INVALID_ARGUMENT, among them an object that is no tensor, has no memory (a sparse one, or one that wraps another
 * tensor) or is refused by `test`; a pending Python exception is left for the caller to handle. VERSION. In both cases the
 * outputs may be partly written. */
ADAMW_API adamw_status adamw_describe_tensors(void *sequence, const adamw_describe_options *options);

#ifdef __cplusplus
} /* extern "C" */
#endif

/* The layout that compiled programs rely on (64-bit platforms). */
#if defined(__cplusplus) && __cplusplus >= 201103L
#define ADAMW_ASSERT_(condition, name) static_assert(condition, #name)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define ADAMW_ASSERT_(condition, name) _Static_assert(condition, #name)
#else
#define ADAMW_ASSERT_(condition, name) typedef char name[(condition) ? 1 : -1]
#endif
ADAMW_ASSERT_(sizeof(adamw_status) == 4 && sizeof(adamw_dtype) == 4, adamw_assert_enum_size);
ADAMW_ASSERT_(sizeof(adamw_state_layout) == 32, adamw_assert_state_layout_size);
ADAMW_ASSERT_(sizeof(adamw_tensor) == 128 && offsetof(adamw_tensor, numel) == 72, adamw_assert_tensor_size);
ADAMW_ASSERT_(offsetof(adamw_tensor, step_tensor) == 120, adamw_assert_tensor_tail);
ADAMW_ASSERT_(sizeof(adamw_step_options) == 152 && offsetof(adamw_step_options, param_dtype) == 56, adamw_assert_step_size);
ADAMW_ASSERT_(offsetof(adamw_step_options, seed) == 88 && offsetof(adamw_step_options, lr_tensor) == 128, adamw_assert_step_tail);
ADAMW_ASSERT_(sizeof(adamw_quantize_options) == 80 && offsetof(adamw_quantize_options, numel) == 32, adamw_assert_quantize_size);
ADAMW_ASSERT_(offsetof(adamw_step_options, pager) == 136, adamw_assert_step_pager);
ADAMW_ASSERT_(sizeof(adamw_pager_options) == 48 && offsetof(adamw_pager_options, resident_bytes) == 16, adamw_assert_pager_size);
ADAMW_ASSERT_(sizeof(adamw_pager_statistics) == 96 && offsetof(adamw_pager_statistics, bytes_in) == 64, adamw_assert_statistics);
ADAMW_ASSERT_(sizeof(adamw_tensor_form) == 32 && offsetof(adamw_tensor_form, contiguous) == 28, adamw_assert_form_size);
ADAMW_ASSERT_(sizeof(adamw_describe_options) == 144 && offsetof(adamw_describe_options, bits) == 136, adamw_assert_describe);
#undef ADAMW_ASSERT_

#endif /* ADAMW_H */
