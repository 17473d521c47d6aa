/* SPDX-License-Identifier: MIT
 *
 * adamw.h - the public C interface of libadamw.
 *
 * libadamw does the AdamW step (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019)
 * in place on the caller's memory, with 32-bit or 8-bit optimizer state. It owns no tensors: the caller
 * allocates parameters, gradients and state, asks adamw_get_state_layout() how large the state is,
 * fills a table with one adamw_tensor row per tensor, and calls adamw_step() once a step for any number of tensors. State that
 * does not fit may lie in the pages of an adamw_pager.
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
 *   - Every function returns adamw_status unless said otherwise; nothing exits, aborts, prints or throws. What a function
 *     says under "Errors" is every status but ADAMW_OK that it returns, ADAMW_ERROR_INTERNAL aside.
 *   - When the status is not ADAMW_OK because an argument was refused, no buffer has been written.
 *     adamw_last_error() then holds a sentence that names the row, the field and the value.
 *   - Ranges are checked. "in 1 ... 100" has both ends, "in [0, 1)" has 0 and not 1.
 *   - Thread safety: all functions may be called from any thread at any time, as long as no two running calls
 *     write the same memory. A step from atexit(), or from the destructor of a static or thread_local object, works.
 *   - fork(): see the end of the section on pages. In a child whose parent had threads a call computes on one thread,
 *     whatever num_threads says.
 *   - Later versions of this header only append fields to structs, and a new field of zero bytes asks for nothing new. So that
 *     programs and libraries of different versions fit, options structs begin with their own size, which the *_INIT macro or the
 *     *_init() function sets, and rows and statistics are passed with theirs. Every such size is a multiple of 8, is at least
 *     what the struct or the function says, and is at most 4096.
 *       A smaller struct is one of an older header. The fields that it lacks count as what the *_INIT macro says; in a row, as 0.
 *       A larger struct is one of a newer header. The bytes beyond the fields that this library knows must be 0: then nobody asks
 *       for what this library does not have. If one is not 0, or the size is another, the call returns ADAMW_ERROR_VERSION.
 *   - A buffer needs the alignment of its element type, no more.
 *   - The caller's rounding mode and flush-to-zero flags have no influence, and are as they were after the call.
 *
 * Not promised: anything about memory that other threads write during a call; atomicity (a call that fails half-way may
 * have stepped some rows: adamw_step_options.rows_stepped says which); that new versions choose the same bits (CHANGELOG.md
 * says when not).
 *
 * For bindings: adamw_*_options_init() are the *_INIT macros as functions. ADAMW_NO_ASSERTS, defined before this file is
 * included, leaves out the static assertions at its end, which parsers such as cffi's do not read.
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
  ADAMW_ERROR_VERSION = 2,          /* a struct size that this library does not know, or a field that it does not know in use */
  ADAMW_ERROR_UNSUPPORTED = 3,      /* valid, but not on this build, device or processor */
  ADAMW_ERROR_OUT_OF_MEMORY = 4,    /* memory, or the threads of a pager, that the system would not give: the message names
                                       which. Nothing was written, but see adamw_step() about pagers and devices */
  ADAMW_ERROR_INTERNAL = 5,         /* a defect of libadamw and nothing else: please report the text of adamw_last_error() */
  ADAMW_ERROR_DEVICE = 6,           /* a CUDA call failed; adamw_last_error() names it */
  ADAMW_ERROR_STORAGE = 7           /* a file could not be made, grown, read or written; adamw_last_error() says why */
} adamw_status;

/* The name of a status, for example "invalid argument". Never NULL; static storage. */
ADAMW_API const char *adamw_status_string(adamw_status status);

/* What went wrong in the last call on this thread that returned an adamw_status: one line that names the row, field and
 * value; "" if it returned ADAMW_OK. Valid until the next libadamw call on this thread. Never NULL. */
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
 * num_threads in 0 ... INT32_MAX is an upper limit: a call takes no more threads than it has work for, than the library allows
 * on a machine with so many processors (at least 64), and than the system gives; if that gives none, the call computes on the
 * thread that made it. The result of a step never depends on it.
 * Errors:
 *   INVALID_ARGUMENT  num_threads is negative */
ADAMW_API adamw_status adamw_set_num_threads(int32_t num_threads);

/* The number of threads that a call with num_threads = 0 would use now at most. At least 1. */
ADAMW_API int32_t adamw_get_num_threads(void);

/* The name of the CPU kernel in use: "scalar", "avx2", "avx512" or "neon". The best one that the processor has is chosen
 * at the first call; the environment variable ADAMW_CPU forces one.
 * Errors:
 *   INVALID_ARGUMENT  name is NULL
 *   UNSUPPORTED       ADAMW_CPU names a kernel that is unknown, not built in, or that this processor lacks; *name is NULL.
 *                     Every step and quantization of elements on the CPU then returns UNSUPPORTED, until the process
 *                     ends */
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
 *   absmax is the exact largest magnitude in the block. Its element gets the last code; for sqrt(exp_avg_sq), with a
 *   probability of 1/16000, the code below it, which is 0.35% smaller. The maps are the dynamic maps of Dettmers et al. ("8-bit
 *   Optimizers via Block-wise Quantization", ICLR 2022) as bitsandbytes uses them, see adamw_codebook(). The root is stored
 *   because it needs half the dynamic range. Stochastic rounding goes up with a probability equal to the distance from the code
 *   below, so that what is stored is right on average: rounding to the nearest code stalls wherever a step changes a moment by
 *   less than half the distance of two codes (v always, with beta2 = 0.999; small m, because small codes lie far apart). The
 *   random bits are a hash of (seed, step, global element index), so runs repeat and resume exactly.
 *   Right on average has a lower end, given here as a part of absmax, and from there on is meant to 1e-4 of the number.
 *     exp_avg: from 3.81e-6 up. Of magnitudes below 9e-7, 61% are kept on average (5.5 / 9: they become 0 or the smallest code,
 *     5.5e-7); from there to 1.08e-6 that part rises to 100%; it stays so up to 3.25e-6, where the second code is, and rises to
 *     109% before 3.81e-6.
 *     sqrt(exp_avg_sq): from 3.25e-7 up, which is the smallest code. What is smaller, and not 0, becomes that code.
 *   A moment that is exactly zero is stored as zero. Other second moments are not, and other first moments only if they are
 *   below 9e-7 of their absmax and the draw says so. If the absmax of a block is below 2^-126, all of that block is stored as
 *   zero.
 *   max_exp_avg_sq (AMSGRAD) is kept like exp_avg_sq, but rounded to the nearest code, because a maximum of stochastically
 *   rounded values would drift upwards.
 *   Positions between two codes are computed to 15 fractional bits. The step itself uses the moments before they are rounded;
 *   its constants are multiplied together beforehand (beta * absmax, the step size and the denominator), so that it differs
 *   from the step of 32-bit state by roundings of single precision.
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

/* Rows of fewer elements do not begin a block of their own: their blocks are flat. */
#define ADAMW_SHORTEST_BLOCK_ROW 64

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
 * numel in 0 ... 2^58, and row_length in 1 ... numel must divide it (any row_length will do if numel is 0).
 * Errors:
 *   INVALID_ARGUMENT  an unknown format; numel or row_length as said above; layout is NULL */
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
  int64_t numel;               /* number of elements, in 0 ... 2^58 */
  int64_t row_length;          /* elements of one row of dimension 0 (numel / size(0)); numel for 1-D tensors. It divides numel,
                                  and is in 1 ... numel. Not looked at if numel is 0 */
  int64_t step;                /* the number of this step, in 1 ... INT64_MAX (state after 0 steps is all zeros). Not looked at if
                                  there is a step_tensor */
  int64_t global_offset;       /* index of element 0 in the unsharded tensor, in 0 ... 2^62 - numel; 0 if it is not sharded */
  int64_t run_length;          /* 0: element i has the index global_offset + i in the unsharded tensor. Else the elements lie there
                                  in runs of so many neighbours, as a shard's columns of a matrix do: element i has the index
                                  global_offset + i / run_length * run_stride + i % run_length. It must divide numel, is in
                                  0 ... numel (where that is 0: not negative), and no block of 256 may lie in two runs (blocks are as adamw_state_format says,
                                  whatever the format): it is numel, or a multiple of row_length where blocks follow rows, of 256
                                  where they are flat. */
  int64_t run_stride;          /* how far apart the first elements of two runs lie there: 0 if run_length is 0, else at least
                                  run_length. The last index must be below 2^62. */
  const float *step_tensor;    /* NULL, or one float that is the number of this step instead of `step`, in [1, 9e18): device memory
                                  on a device, where it is read when the step runs (below 1 counts as 1), so that a graph can be
                                  replayed */
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
  size_t size;                 /* sizeof(adamw_step_options) of who calls, in 128 ... 4096: all up to `stream` must be there */
  double lr;                   /* learning rate, in [0, infinity) */
  double beta1;                /* in [0, 1) */
  double beta2;                /* in [0, 1) */
  double eps;                  /* in [0, infinity) */
  double weight_decay;         /* in [0, infinity); decoupled */
  double max_unorm;            /* in [0, infinity). 0: off. Else the update u = (m / bc1) / (sqrt(v^ / bc2) + eps) is scaled by
                                  max_unorm * |p| / |u| where |u| > max_unorm * |p| (2-norms over the tensor before the step;
                                  a tensor of zeros therefore never moves, as in bitsandbytes) */
  int32_t param_dtype;         /* adamw_dtype of param */
  int32_t grad_dtype;          /* adamw_dtype of grad; need not be the parameter's */
  int32_t state_format;        /* adamw_state_format */
  uint32_t flags;              /* adamw_step_flags, or-ed */
  int32_t percentile_clipping; /* in 1 ... 100. 100: off. Else the gradient is scaled by clip / |g| where its 2-norm |g| exceeds clip =
                                  sqrt(sort(history)[percentile_clipping]). history holds the squared norms of the last 100 steps:
                                  step 1 fills all entries (as does the first norm above zero), step t writes entry t % 100. A
                                  norm that is not finite is neither recorded nor clipped. */
  int32_t device;              /* -1: CPU. >= 0: that CUDA device (needs a CUDA build of the library) */
  int32_t num_threads;         /* CPU threads for this call at most, in 0 ... INT32_MAX; 0, and how many it takes: see
                                  adamw_set_num_threads() */
  int32_t reserved;            /* 0 */
  uint64_t seed;               /* of the stochastic rounding */
  const float *grad_scale;     /* NULL, or one float in (0, infinity): gradients are multiplied by its reciprocal (GradScaler).
                                  Device memory on a device */
  const float *found_inf;      /* NULL, or one float: if it is not 0 the call changes nothing. Device memory on a device */
  int64_t *skipped;            /* NULL, or a counter: increased by the elements that 8-bit state skipped, see
                                  adamw_state_format. Device memory on a device, where what pads a block to 256 elements
                                  counts, too, if 1 / *grad_scale overflows */
  void *stream;                /* the CUDA stream (cudaStream_t) that the work is queued on; ignored on the CPU */
  const float *lr_tensor;      /* NULL, or one float that is the learning rate instead of `lr`, in [0, infinity). Device memory on a
                                  device, where it is read when the step runs */
  adamw_pager *pager;          /* NULL, or the pager of this device that state may lie in (any of the rows' buffers of state) */
  int64_t *rows_stepped;       /* NULL, or set to the number of rows, counted from row 0, that this call has stepped completely
                                  (on a device: queued), whichever way the call ends. Only a call that is refused for what it was
                                  given may leave it as it was. Host memory. Worth a look after STORAGE, DEVICE, OUT_OF_MEMORY */
} adamw_step_options;

#define ADAMW_STEP_OPTIONS_INIT                                                                          \
  {                                                                                                      \
    sizeof(adamw_step_options), 1e-3, 0.9, 0.999, 1e-8, 1e-2, 0.0, ADAMW_FLOAT32, ADAMW_FLOAT32,         \
        ADAMW_STATE_FLOAT32, 0u, 100, -1, 0, 0, 0u, NULL, NULL, NULL, NULL, NULL, NULL, NULL             \
  }

/* The same as a function, for bindings that lose macros. size is sizeof(adamw_step_options) of who calls, size in 128 ... 4096.
 * Writes as many bytes: the fields that this library knows, as far as they fit, then zeros. options->size becomes `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           a size that this library does not know; nothing has been written then */
ADAMW_API adamw_status adamw_step_options_init(adamw_step_options *options, size_t size);

/* One AdamW step of `count` tensors, in place. `tensors` is an array of rows that lie `tensor_size` bytes apart, which is
 * sizeof(adamw_tensor) of who calls; it is only read, and not kept after the call. tensor_size in 104 ... 4096: all fields up to
 * `global_offset` must be there. count in 0 ... 2^55; 0 is a valid call that does nothing. Every field of every row is checked
 * before anything is written.
 * On the CPU the call returns when the step is done. It needs less than a kilobyte of working memory a row, and with
 * percentile_clipping up to 32 KiB, with max_unorm or ADAMW_STATE_TENSOR8 up to 128 KiB more a row; nothing that grows with the
 * tensors beyond that.
 * On a CUDA device the step is queued on options.stream and the call returns; nothing is synchronised, the caller's current
 * device is as it was, and the call may be captured into a CUDA graph (after one call outside of a capture, which loads the
 * kernels). Buffers must stay valid, and unchanged by others, until the stream has passed the step. A launch takes about 300
 * rows; where random bits are drawn, rows in runs (see run_length) have launches of their own, of a slower kernel. Percentile
 * clipping, max_unorm and TENSOR8 take working memory from a pool of the library's own, in stream order; max_unorm and TENSOR8
 * read and write state in a pager over the link, not in windows. State and results are the CPU's bits, except that a NaN may be
 * another NaN.
 * Errors:
 *   INVALID_ARGUMENT  any value outside what is said above; something of the pager's is acquired
 *   VERSION           options.size or tensor_size is one that this library does not know, or bytes that it does not know are not 0
 *   UNSUPPORTED       a device that this build, driver or machine does not have; a kernel (ADAMW_CPU) that cannot run here; a
 *                     pager, in a child of fork() (not HOST), or whose windows are too small for a tensor that max_unorm or
 *                     TENSOR8 measures (they never are with chunk_bytes of at least 131072 and 1 / 4096 of its state
 *                     more); a tensor of 2^31 blocks or more on a device
 *   OUT_OF_MEMORY     memory of the host or the device; the threads that a FILE pager needs, at the first use of that pager
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           a pager's file could not be read or written, or is not to be had again after a fork
 * After an error nothing has been written, with these exceptions. On a device, rows that were queued before the failing call
 * have been. With a pager, rows before *rows_stepped have been stepped, the one at it possibly in part (the message says up to
 * which element), those after it not at all; parameters and state agree in each element, whatever could not be written to the
 * file being kept in memory. */
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

/* Writes the 256 floats of a map to values[0..255].
 * Errors:
 *   INVALID_ARGUMENT  an unknown map; values is NULL or misaligned */
ADAMW_API adamw_status adamw_codebook(adamw_map map, float *values);

typedef enum adamw_rounding {
  ADAMW_ROUND_NEAREST = 0,
  ADAMW_ROUND_STOCHASTIC = 1 /* as a step of the same key rounds that moment */
} adamw_rounding;

/* Start from ADAMW_QUANTIZE_OPTIONS_INIT and set numel and row_length. */
typedef struct adamw_quantize_options {
  size_t size;           /* sizeof(adamw_quantize_options) of who calls, in 72 ... 4096: all up to `seed` must be there */
  int32_t map;           /* adamw_map */
  int32_t state_format;  /* ADAMW_STATE_BLOCK8 or ADAMW_STATE_TENSOR8 */
  int32_t rounding;      /* adamw_rounding */
  int32_t device;        /* as in adamw_step_options */
  int32_t num_threads;   /* as in adamw_step_options, in 0 ... INT32_MAX */
  int32_t reserved;      /* 0 */
  int64_t numel;         /* as in adamw_tensor, in 0 ... 2^58 */
  int64_t row_length;    /* as in adamw_tensor, in 1 ... numel */
  int64_t step;          /* key of stochastic rounding, with seed and global_offset; in 0 ... INT64_MAX */
  int64_t global_offset; /* as in adamw_tensor, in 0 ... 2^62 - numel; there are no runs here */
  uint64_t seed;         /* as in adamw_step_options */
  void *stream;          /* as in adamw_step_options */
} adamw_quantize_options;

#define ADAMW_QUANTIZE_OPTIONS_INIT                                                                      \
  {                                                                                                      \
    sizeof(adamw_quantize_options), ADAMW_MAP_SIGNED, ADAMW_STATE_BLOCK8, ADAMW_ROUND_NEAREST, -1, 0, 0, \
        0, 0, 0, 0, 0u, NULL                                                                             \
  }

/* The same as a function, for bindings that lose macros. size is sizeof(adamw_quantize_options) of who calls, size in 72 ... 4096.
 * Writes as many bytes: the fields that this library knows, as far as they fit, then zeros. options->size becomes `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           a size that this library does not know; nothing has been written then */
ADAMW_API adamw_status adamw_quantize_options_init(adamw_quantize_options *options, size_t size);

/* codes[i], absmax[block] from numel floats. The number of scales is adamw_get_state_layout().absmax_count.
 * NaN, infinities and, with ADAMW_MAP_UNSIGNED, negative numbers are stored as zero. With ADAMW_MAP_UNSIGNED a number above
 * zero never becomes code 0; rounding to the nearest code of ADAMW_MAP_SIGNED takes magnitudes below 4.5e-7 of the scale to
 * zero. A block whose largest magnitude is below 2^-126 is stored as zero. From where on stochastic rounding is right on average:
 * see adamw_state_format.
 * Errors:
 *   INVALID_ARGUMENT  a value outside what is said at adamw_quantize_options; buffers that are NULL (unless numel is 0),
 *                     misaligned, or overlap one that is written
 *   VERSION           options.size is one that this library does not know, or bytes that it does not know are not 0
 *   UNSUPPORTED       a device that this build, driver or machine does not have; a kernel (ADAMW_CPU) that cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_quantize(const adamw_quantize_options *options, const float *source, uint8_t *codes, float *absmax);

/* target[i] = absmax[block of i] * map[codes[i]], in single precision. Every byte is a valid code.
 * Errors:
 *   INVALID_ARGUMENT  a value outside what is said at adamw_quantize_options; buffers that are NULL (unless numel is 0),
 *                     misaligned, or overlap one that is written
 *   VERSION           options.size is one that this library does not know, or bytes that it does not know are not 0
 *   UNSUPPORTED       a device that this build, driver or machine does not have; a kernel (ADAMW_CPU) that cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
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
  ADAMW_PLACE_FILE = 1,    /* files without names in `directory`, gone with the process however that ends; for the CPU.
                              Space on the disk is reserved before a buffer is given out: a multiple of 64 bytes for one below
                              4096 bytes, whole pages of 4096 for others. The buffer is a mapping of a file; a step reads and
                              writes the file itself, past the page cache where the file system can */
  ADAMW_PLACE_PINNED = 2,  /* page-locked host memory, copied through slots in the memory of a CUDA device */
  ADAMW_PLACE_MANAGED = 3, /* CUDA unified memory. What the budget holds lies on the device until the driver moves it out of a
                              full one; a step prefetches what may not be there. What it does not hold stays on the host,
                              where kernels read and write it over the link */
  ADAMW_PLACE_DEVICE = 4   /* device memory; no backing, but where a part of state may lie that the budget has room for */
} adamw_place;

/* Start from ADAMW_PAGER_OPTIONS_INIT. */
typedef struct adamw_pager_options {
  size_t size;            /* sizeof(adamw_pager_options) of who calls, in 32 ... 4096: all up to `chunk_bytes` must be there */
  int32_t backing;        /* adamw_place, but for DEVICE */
  int32_t device;         /* where steps run: -1, the CPU (HOST, FILE), or a CUDA device (PINNED, MANAGED) */
  int64_t resident_bytes; /* the budget of fast memory (host memory for FILE, the device's for PINNED and MANAGED), in
                             0 ... INT64_MAX. The budget left after the 4 windows (MANAGED needs none) keeps the first buffers
                             resident: they are stepped in place. 0: the windows alone (FILE, PINNED), or no limit (MANAGED).
                             Else FILE and PINNED take at least 4 times chunk_bytes, or 262144 if that is 0. No effect on HOST.
                             A step itself needs some kilobytes beside it, and each window a page */
  int64_t chunk_bytes;    /* state in one window, in 65536 ... 2^40, rounded up to whole pages of 4096 bytes; or 0: 16 MiB, or
                             less where the budget is small (MANAGED: 1 GiB) */
  int64_t reserve_bytes;  /* FILE: space that is reserved on the disk at once, in 0 ... 2^60; buffers beyond it reserve theirs when
                             they are allocated. 0 for other backings */
  const char *directory;  /* FILE: where; NULL: the environment variable TMPDIR, else /var/tmp. NULL for other backings */
} adamw_pager_options;

#define ADAMW_PAGER_OPTIONS_INIT \
  { sizeof(adamw_pager_options), ADAMW_PLACE_HOST, -1, 0, 0, 0, NULL }

/* The same as a function, for bindings that lose macros. size is sizeof(adamw_pager_options) of who calls, size in 32 ... 4096.
 * Writes as many bytes: the fields that this library knows, as far as they fit, then zeros. options->size becomes `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           a size that this library does not know; nothing has been written then */
ADAMW_API adamw_status adamw_pager_options_init(adamw_pager_options *options, size_t size);

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
  int64_t faults_avoided;      /* pages of 4096 bytes that were brought in before they were touched */
} adamw_pager_statistics;

/* Makes a pager; *pager is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  a value outside what is said at adamw_pager_options; options or pager is NULL
 *   VERSION           options.size is one that this library does not know, or bytes that it does not know are not 0
 *   UNSUPPORTED       a device that this build, driver or machine does not have, or a backing that the device cannot have
 *   OUT_OF_MEMORY     memory of the host or the device
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           a directory that is missing or read-only, a full disk; the message names the directory */
ADAMW_API adamw_status adamw_pager_create(const adamw_pager_options *options, adamw_pager **pager);

/* Gives back the pager and everything that it holds; NULL is allowed. Nobody may use the pager any more.
 * Errors:
 *   INVALID_ARGUMENT  buffers are still allocated: their pointers would dangle. Nothing has happened then */
ADAMW_API adamw_status adamw_pager_destroy(adamw_pager *pager);

/* A buffer of at least `bytes` zeros, aligned to 64 bytes; *place (or NULL) is where it lies. bytes in 1 ... 2^60. Buffers that
 * are allocated in the order in which they are stepped are read and written in larger pieces. *buffer is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  pager or buffer is NULL; bytes as said above
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     memory of the host or the device
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the disk has no room for it */
ADAMW_API adamw_status adamw_pager_alloc(adamw_pager *pager, int64_t bytes, void **buffer, int32_t *place);

/* Gives a buffer back, waiting for the steps that still use it (not for other work of the caller's); NULL is allowed.
 * Errors: the buffer is there as before. Nothing else can fail: neither memory nor a disk is needed.
 *   INVALID_ARGUMENT  pager is NULL; what is no buffer of this pager; a buffer of which something is acquired */
ADAMW_API adamw_status adamw_pager_free(adamw_pager *pager, void *buffer);

/* For kernels other than adamw_step(). Brings in `bytes` at `address`: *usable is where they can be used by the CPU, or by work
 * that is queued on `stream` of the device, until adamw_pager_release(). They must lie in one buffer, and bytes in
 * 1 ... chunk_bytes (rounded up to pages). At most 3 stretches are out at a time, of which no two overlap, and while one is out
 * a step with this pager is refused. What is used where it lies (HOST, and buffers that the budget keeps resident) is not
 * brought in: *usable is `address`, and these limits are not its.
 * *usable is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  pager or usable is NULL; bytes that are in no buffer, or pass its end; anything else said above
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     memory of the host or the device for the windows, or the two threads that a FILE pager needs
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the file could not be read; or after a fork, see below */
ADAMW_API adamw_status adamw_pager_acquire(adamw_pager *pager, void *address, int64_t bytes, void *stream, void **usable);

/* The end of that use; `dirty` is not 0 if bytes were written, which then go back to the buffer: at once on the CPU, behind the
 * work queued on `stream` on a device.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL; `usable` is not acquired
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     of the host, or after a fork, see below: it stays acquired; or of the device, as CUDA says
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the file could not be written: what it should have taken is kept in memory, and the buffer holds it; or
 *                     after a fork, see below: it stays acquired */
ADAMW_API adamw_status adamw_pager_release(adamw_pager *pager, void *usable, int32_t dirty, void *stream);

/* A hint that these bytes will be acquired soon, and nothing else: acquire gives what the buffer holds then, whatever was
 * prefetched and however the buffer was written since. It may be given at any time, of any stretch of a buffer, acquired or not.
 * Nothing fails that is no more than a hint: no memory, a disk or a device that does not obey. No effect on HOST and PINNED.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL; bytes that are in no buffer, or pass its end
 *   UNSUPPORTED       in a child of fork() (not HOST) */
ADAMW_API adamw_status adamw_pager_prefetch(adamw_pager *pager, void *address, int64_t bytes, void *stream);

/* Waits until buffers in host memory (PINNED) hold what the steps queued so far have left there. Other backings need no wait
 * beyond synchronising the stream.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     as CUDA says
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_pager_wait(adamw_pager *pager);

/* Writes *statistics. size is sizeof(adamw_pager_statistics) of who calls, size in 64 ... 4096: all up to resident_peak_bytes is
 * there. As many bytes are written: the fields that this library knows, as far as they fit, then zeros.
 * Errors:
 *   INVALID_ARGUMENT  pager or statistics is NULL
 *   VERSION           a size that this library does not know; nothing has been written then
 *   UNSUPPORTED       in a child of fork() (not HOST) */
ADAMW_API adamw_status adamw_pager_stats(adamw_pager *pager, adamw_pager_statistics *statistics, size_t size);

/* Pagers are thread safe; steps with one pager run one after the other.
 *
 * fork() waits for running calls of pagers. In the child,
 *   - HOST pagers and their buffers work as in any process;
 *   - FILE buffers are snapshots of the moment of the fork, private to the child, as are those of them that the budget keeps in
 *     memory. They may be read, written and given back, and then the pager, by adamw_pager_free() and adamw_pager_destroy();
 *     where RLIMIT_DATA does not let the parent have them as private memory, they are not readable;
 *   - memory of PINNED and MANAGED pagers must not be touched, since CUDA does not work there;
 *   - every other call with a FILE, PINNED or MANAGED pager is refused (UNSUPPORTED).
 * Making the snapshot of FILE buffers costs the parent, at its next step, acquire, or release of dirty bytes with that pager while
 * such a child still lives and has not given its buffers back, one copy of the files' content, and as much space on the disk. If
 * that cannot be had the call returns STORAGE or OUT_OF_MEMORY, nothing is lost, and the next one tries again. Without such a
 * child only what the parent's program itself has written to buffers since the fork is written to the files. */

#ifdef __cplusplus
} /* extern "C" */
#endif

/* The layout that compiled programs rely on (64-bit platforms). */
#ifndef ADAMW_NO_ASSERTS
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
#undef ADAMW_ASSERT_
#endif

#endif /* ADAMW_H */
