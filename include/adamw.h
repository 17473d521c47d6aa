/* SPDX-License-Identifier: MIT
 *
 * adamw.h - the public C interface of libadamw.
 *
 * libadamw performs the AdamW step (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019)
 * in place on the caller's memory, with 32-bit, 16-bit or 8-bit optimizer state. The library owns no tensors. The caller
 *   1. allocates parameters, gradients and state (adamw_get_state_layout() computes the size of the state),
 *   2. fills a table with one adamw_tensor per tensor,
 *   3. calls adamw_step() once per step, for any number of tensors.
 * State that does not fit into memory can lie in the pages of an adamw_pager.
 *
 * Words
 *   tensor         an entry of the caller's table; "tensor 3" is tensors[3]
 *   row            a row of dimension 0 of a tensor, see adamw_tensor.row_length
 *   block          256 neighbouring elements, see adamw_state_format; the last block of a row or tensor may be shorter
 *   on a device    with options.device >= 0, on a CUDA device; otherwise the CPU computes
 *   acquired       handed out by adamw_pager_acquire() and not yet released
 *
 * For every element, with gradient g (already unscaled, clipped and negated as the options ask; see adamw_norm() for clipping by
 * the norm of all gradients):
 *
 *     m   = beta1 * m + (1 - beta1) * g                      exp_avg
 *     v   = beta2 * v + (1 - beta2) * g^2                    exp_avg_sq
 *     v^  = max over all steps of v  (AMSGRAD)  or  v
 *     p   = p * (1 - lr * weight_decay)
 *           - lr / (1 - beta1^step) * m / (sqrt(v^) / sqrt(1 - beta2^step) + eps)
 *
 * Promises (numerics)
 *   - All arithmetic is IEEE single precision. The library computes the scalar coefficients above in double precision
 *     and rounds them once to float. It rounds p once to the parameter's type: to nearest even, or stochastically
 *     (ADAMW_STEP_STOCHASTIC_ROUNDING). With master weights (adamw_step_options.remainder_bits) p is the master weight.
 *   - The bits of the result do not depend on the instruction set, the number of threads, the order of the tensors, or
 *     how the caller spreads tensors over calls. The sign and payload of a NaN are not promised.
 *   - adamw_state_format describes 16-bit and 8-bit state.
 *
 * Promises (calls)
 *   - Every function returns adamw_status unless its description says otherwise. No function exits, aborts, prints or throws.
 *     The list "Errors" of a function contains every status that the function returns, except ADAMW_OK and
 *     ADAMW_ERROR_INTERNAL.
 *   - If the library refuses an argument, it has not written any buffer. adamw_last_error() then returns a sentence that
 *     names the tensor, the field and the value.
 *   - The library checks ranges. "in 1 ... 100" includes both ends; "in [0, 1)" includes 0, but not 1.
 *   - Thread safety: any thread may call any function at any time, as long as no two running calls write the same
 *     memory. A step from atexit(), or from the destructor of a static or thread_local object, works.
 *   - fork(): see the end of the section on pages. If the parent process had threads, calls in the child compute on one
 *     thread, whatever num_threads says.
 *   - Later versions of this header only append fields to structs, and a new field whose bytes are 0 has no effect. To let
 *     programs and libraries of different versions work together, the caller passes the size of each struct. Options structs
 *     begin with their size, which the *_INIT macro or the *_init() function sets. For tensors and statistics, the size is
 *     a parameter. Every such size is a multiple of 8, at least the minimum that the struct or function gives, and at
 *     most 4096.
 *       A smaller struct comes from an older header. Each missing field has the value of the *_INIT macro, or 0 in a tensor.
 *       A larger struct comes from a newer header. The bytes after the fields that this library knows must be 0, which means
 *       that nobody asks for a feature that this library lacks. If one of them is not 0, or if the size is not allowed, the
 *       call returns ADAMW_ERROR_VERSION.
 *   - A buffer needs only the alignment of its element type.
 *   - The caller's rounding mode and flush-to-zero flags do not affect a call, and a call leaves them unchanged.
 *
 * Not promised
 *   - Anything about memory that other threads write during a call.
 *   - Atomicity: a call that fails half-way may have stepped some tensors. adamw_step_options.rows_stepped says which.
 *   - The same bits in a new version. CHANGELOG.md lists the versions that change them.
 *
 * For bindings: the functions adamw_*_options_init() do the same as the *_INIT macros. If ADAMW_NO_ASSERTS is defined before
 * this file is included, the file leaves out the static assertions at its end, which parsers such as cffi's cannot read.
 */
#ifndef ADAMW_H
#define ADAMW_H

#include <stddef.h>
#include <stdint.h>

#define ADAMW_VERSION_MAJOR 1
#define ADAMW_VERSION_MINOR 0
#define ADAMW_VERSION_PATCH 0

/* Changes only when a program compiled with an older header can no longer work. */
#define ADAMW_ABI_VERSION 1

#if defined(ADAMW_STATIC)
#define ADAMW_API
#elif defined(_WIN32) && defined(ADAMW_BUILDING)
#define ADAMW_API __declspec(dllexport)
#elif defined(_WIN32)
#define ADAMW_API __declspec(dllimport)
#else
#define ADAMW_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------------------------- */

/* What a call returns. */
typedef enum adamw_status {
  ADAMW_OK = 0,                     /* the call succeeded (on a device: its work is queued) */
  ADAMW_ERROR_INVALID_ARGUMENT = 1, /* a value is out of range, NULL, misaligned, overlapping, ... */
  ADAMW_ERROR_VERSION = 2,          /* this library does not know the size of a struct, or a field that the caller uses */
  ADAMW_ERROR_UNSUPPORTED = 3,      /* valid, but not possible with this build, device or processor */
  ADAMW_ERROR_OUT_OF_MEMORY = 4,    /* the system did not provide memory, or the threads of a pager; adamw_last_error() says
                                       which. Nothing was written, except as adamw_step() says of pagers and devices */
  ADAMW_ERROR_INTERNAL = 5,         /* a defect of libadamw, always: please report the text of adamw_last_error() */
  ADAMW_ERROR_DEVICE = 6,           /* a CUDA call failed; adamw_last_error() names it */
  ADAMW_ERROR_STORAGE = 7           /* a file could not be created, enlarged, read or written; adamw_last_error() says why */
} adamw_status;

/* Returns the name of a status, for example "invalid argument". Never NULL; static storage. */
ADAMW_API const char *adamw_status_string(adamw_status status);

/* Describes the error of the last call on this thread that returned an adamw_status: one line that names the tensor, the
 * field and the value. Returns "" if that call returned ADAMW_OK. The text is valid until the next libadamw call on this
 * thread. Never NULL. */
ADAMW_API const char *adamw_last_error(void);

/* ---- version ------------------------------------------------------------------------------------------------ */

/* Returns 10000 * major + 100 * minor + patch of the loaded library. The ADAMW_VERSION_* macros describe the header. */
ADAMW_API int32_t adamw_version(void);

/* Returns the ADAMW_ABI_VERSION of the loaded library. Do not continue if it differs from the header's. */
ADAMW_API int32_t adamw_abi_version(void);

/* Returns one line for people and bug reports. It names the version, the backend, the CUDA version and architectures (or
 * "none"), the CPU kernels that are built in, and the kernel in use. It also names the kind of threads ("OpenMP" or
 * "std::thread"). Static storage; never NULL. */
ADAMW_API const char *adamw_build_info(void);

/* ---- threads and instruction sets --------------------------------------------------------------------------- */

/* Sets the number of CPU threads for calls whose options say num_threads = 0, on every thread of the process.
 * 0 (the initial value): as many as OpenMP provides (OMP_NUM_THREADS, or the number that the host program has set).
 * num_threads in 0 ... INT32_MAX is an upper limit. A call uses fewer threads if it has too little work for them, or if the
 * system provides fewer. The library has a limit, too, which depends on the number of processors and is at least 64. If the
 * system provides no threads, the call computes on the calling thread. The result of a step never depends on the number.
 * Errors:
 *   INVALID_ARGUMENT  num_threads is negative */
ADAMW_API adamw_status adamw_set_num_threads(int32_t num_threads);

/* Returns the maximum number of threads that a call with num_threads = 0 would use now. At least 1. */
ADAMW_API int32_t adamw_get_num_threads(void);

/* Writes to *name the name of the CPU kernel in use: "scalar", "avx2", "avx512" or "neon". The first call chooses the best
 * kernel that the processor supports. The environment variable ADAMW_CPU forces one.
 * Errors:
 *   INVALID_ARGUMENT  name is NULL
 *   UNSUPPORTED       ADAMW_CPU names a kernel that is unknown, is not built in, or needs another processor; *name is NULL.
 *                     Every step and quantization of elements on the CPU then returns UNSUPPORTED, until the process
 *                     ends */
ADAMW_API adamw_status adamw_cpu_kernel(const char **name);

/* ---- types -------------------------------------------------------------------------------------------------- */

/* The type of the elements of a parameter or gradient. */
typedef enum adamw_dtype {
  ADAMW_FLOAT32 = 0,  /* IEEE binary32, float in C */
  ADAMW_BFLOAT16 = 1, /* the upper half of a float32 */
  ADAMW_FLOAT16 = 2   /* IEEE binary16 */
} adamw_dtype;

/* How the library stores exp_avg and exp_avg_sq.
 *
 * ADAMW_STATE_FLOAT32: each moment is one float per element.
 *
 * ADAMW_STATE_BFLOAT16: each moment is one bfloat16 per element. The step uses the moments before they are rounded. exp_avg and
 * max_exp_avg_sq are rounded to nearest even. exp_avg_sq is rounded stochastically: up with a probability equal to the distance
 * from the number below, so that the stored number is right on average. (Rounding it to nearest stalls at beta2 = 0.999.)
 *
 * ADAMW_STATE_BLOCK8: each moment is one code byte per element and one float scale ("absmax") per block of 256 elements.
 * exp_avg_sq and max_exp_avg_sq also have one float "floor" per block. The codes are root codes:
 *
 *     exp_avg     t = |code - 128| / 127                          |exp_avg| = absmax * power(t, 2), negative if code < 128
 *     exp_avg_sq  t = floor + code * (1 - floor) / 255             exp_avg_sq = absmax * power(t, 3)
 *
 *   power(t, s) is nearly t to the power of 2^s. It is exact where t is a power of two, and linear wherever its value lies
 *   between two powers of two. On the bits of floats it is a subtraction and a shift. A reader of the state needs no more
 *   than this:
 *
 *     float power(float t, int s) {
 *       uint32_t bits, zero = 0x3F800000u - (0x3F800000u >> s);
 *       memcpy(&bits, &t, 4);
 *       bits = bits > zero ? (bits - zero) << s : 0;
 *       memcpy(&t, &bits, 4);
 *       return t;
 *     }
 *     float exp_avg(uint8_t code, float absmax) {
 *       float t = ((float)code - 128.0f) * (1.0f / 127.0f);
 *       return (t < 0.0f ? -power(-t, 2) : power(t, 2)) * absmax;
 *     }
 *     float exp_avg_sq(uint8_t code, float absmax, float floor) {
 *       return power(fmaf((float)code, (1.0f - floor) * (1.0f / 255.0f), floor), 3) * absmax;
 *     }
 *
 *   To encode, the library takes the root of |x| / absmax, the inverse of power(): on the bits of floats it is a shift and
 *   an addition. Then it rounds between the two nearest codes.
 *
 *   Scale and floor. absmax is the exact largest magnitude in the block. floor is the root of the block's smallest number
 *   divided by absmax, but at most 255/256, the root of 31/32. So the 256 codes of exp_avg_sq cover just the range of the
 *   numbers that the block holds. The element with the largest magnitude gets the last code, and that with the smallest
 *   exp_avg_sq gets code 0 unless it is above 31/32 of absmax. For exp_avg_sq, each may get the code next to that: the
 *   smallest with a probability of at most 1/30000, the largest with one of 1/16000 if floor is below 2/3, or 1/250 with any
 *   floor, so that absmax is kept to 2e-6 on average. A floor is in [0x1.2p-16, 255/256], or 0 in fresh state. The library
 *   reads a floor outside of [0x1.2p-16, 1] as 0.
 *
 *   Rounding. exp_avg_sq is rounded stochastically: up with a probability equal to the distance from the code below, so that
 *   the stored value is right on average. exp_avg is rounded in this way below absmax / 16, and to the nearest code from there
 *   up. Rounding to the nearest code would stall wherever a step changes a moment by less than half the distance between two
 *   codes. That always happens to exp_avg_sq with beta2 = 0.999. It also happens to small exp_avg, because small codes lie far
 *   apart. The random bits are a hash of (seed, step, global element index), so runs repeat and resume exactly.
 *   max_exp_avg_sq (AMSGRAD) is rounded to the nearest code, because a maximum of stochastically rounded values would drift
 *   upwards.
 *
 *   Limits of the average. power() is convex. If a power of two lies between the values that two neighbouring codes have at
 *   an absmax of 1, then power() is not linear between them, and the stored value is too large on average. Elsewhere it is
 *   right. It is too large by at most
 *     exp_avg     2.7% of the number from 1e-6 of absmax up, 28% from 6.2e-8 up, 140% from 3.9e-9 up. Smaller numbers become
 *                 zero or the code beside zero (3.8e-9 of absmax), and are too large by at most 2e-9 of absmax
 *     exp_avg_sq  0.4%, 1.1%, 2.6%, 5.7% or 13% of the number, if the block's smallest number is at least 1e-2, 1e-4, 1e-6,
 *                 1e-8 or 1e-12 of absmax. In a block with zeros, 3% of the number from 1e-12 of absmax up, 28% from
 *                 3.8e-15 up, and 145% from 1.5e-17 up. Smaller numbers are too large by at most 8e-18 of absmax
 *
 *   Zeros. A moment that is exactly zero is stored as zero. If the absmax of a block is below 2^-126, the whole block is
 *   stored as zero. Apart from that, an exp_avg_sq above zero never becomes zero. If a block holds a zero, or a number below
 *   2^-146 (1e-44) of absmax, then its floor is the root of 0, which is 0x1.2p-16, code 0 stands for zero, and every number
 *   above zero gets code 1 or above; code 1 stands for 5.8e-20 of absmax. An exp_avg whose magnitude is below 3.8e-9 of
 *   absmax may become zero; rounding to the nearest code turns magnitudes below 2.4e-10 of absmax to zero. Memory filled with
 *   zeros is a valid fresh state.
 *
 *   Precision. Positions between two codes are computed to 15 fractional bits. A root drops the last 2 bits of |x| / absmax,
 *   for exp_avg_sq the last 3, so that the stored value is smaller by up to 8e-7 of the number. The step itself uses the
 *   moments before they are rounded. Its constants are multiplied together beforehand (beta * absmax, the step size and the
 *   denominator). Therefore it differs from the step with 32-bit state by roundings of single precision.
 *
 *   Blocks follow rows (see adamw_tensor.row_length). If row_length is at least 64 and not a multiple of 256, each row begins
 *   a new block, so that a row has ceil(row_length / 256) blocks. Otherwise the blocks are those of the flat tensor.
 *
 *   Skipped elements. The step skips an element if its gradient is NaN or infinite, or so large that the second moment would
 *   overflow (|g| above about 1e19). The parameter of a skipped element does not change at all. Its moments stay the same,
 *   but are rounded again with the rest of the block. The step treats the other elements of the block as usual, and adds the
 *   number of skipped elements to adamw_step_options.skipped.
 *   (With ADAMW_STATE_FLOAT32 and ADAMW_STATE_BFLOAT16, non-finite gradients propagate, as they do in torch.optim.AdamW.)
 *
 * ADAMW_STATE_TENSOR8: like BLOCK8, but with one scale and floor for the whole tensor (bitsandbytes' block_wise=False). It is
 * less exact and needs two passes.
 */
typedef enum adamw_state_format {
  ADAMW_STATE_FLOAT32 = 0, /* 32 bits: one float per element */
  ADAMW_STATE_BLOCK8 = 1,  /* 8 bits: one code per element; one scale, and a floor for exp_avg_sq, per block */
  ADAMW_STATE_TENSOR8 = 2, /* 8 bits: likewise, but per tensor */
  ADAMW_STATE_BFLOAT16 = 3 /* 16 bits: one bfloat16 per element */
} adamw_state_format;

/* Elements in a block of ADAMW_STATE_BLOCK8. */
#define ADAMW_BLOCK_SIZE 256

/* The smallest row_length with which blocks follow rows. With shorter rows, blocks are flat. */
#define ADAMW_SHORTEST_BLOCK_ROW 64

/* Entries of adamw_tensor.gnorm_history. */
#define ADAMW_GNORM_HISTORY 100

/* ---- the size of the state ---------------------------------------------------------------------------------- */

/* The sizes of the buffers of one tensor's state, from adamw_get_state_layout(). */
typedef struct adamw_state_layout {
  int64_t moment_bytes;   /* bytes of exp_avg; exp_avg_sq and max_exp_avg_sq need the same number each */
  int64_t absmax_count;   /* floats of exp_avg_absmax, and of each other *_absmax; 0 if the format is not an 8-bit one */
  int64_t floor_count;    /* floats of exp_avg_sq_floor, and of max_exp_avg_sq_floor; 0 if the format is not an 8-bit one */
  int64_t blocks_per_row; /* blocks in each row, if blocks follow rows; 0 if the blocks are flat */
  int64_t remainder_bytes; /* bytes of param_remainder: numel * remainder_bits / 8 */
  int64_t total_bytes;    /* of the whole state: two moments (three if amsgrad != 0), their scales and floors, and
                             param_remainder */
} adamw_state_layout;

/* Computes how much state a tensor of `numel` elements in rows of `row_length` (see adamw_tensor) needs. Writes *layout.
 * Allowed: numel in 0 ... 2^58, and row_length in 1 ... numel, which must divide numel (if numel is 0, any row_length is
 * allowed). remainder_bits is 0, 8 or 16, as in adamw_step_options.
 * Errors:
 *   INVALID_ARGUMENT  the format is unknown; numel, row_length or remainder_bits breaks the rules above; layout is NULL */
ADAMW_API adamw_status adamw_get_state_layout(adamw_state_format format, int64_t numel, int64_t row_length, int32_t amsgrad,
                                              int32_t remainder_bits, adamw_state_layout *layout);

/* ---- the step ----------------------------------------------------------------------------------------------- */

/* One tensor: an entry of the table that adamw_step() takes. The tensor is dense and contiguous. A buffer may be NULL if numel
 * is 0 or the options do not use the buffer. Every other buffer must be aligned to its element, and must not overlap a buffer
 * of this or another tensor that the step writes. On a CUDA device, every pointer is device-accessible memory. */
typedef struct adamw_tensor {
  void *param;                 /* numel elements of options.param_dtype, in and out */
  const void *grad;            /* numel elements of options.grad_dtype, read only */
  void *exp_avg;               /* state: float, bfloat16 or uint8_t codes, see adamw_state_format */
  void *exp_avg_sq;            /* likewise */
  void *max_exp_avg_sq;        /* state, with ADAMW_STEP_AMSGRAD only */
  float *exp_avg_absmax;       /* state, 8-bit formats only: adamw_state_layout.absmax_count scales */
  float *exp_avg_sq_absmax;    /* likewise */
  float *max_exp_avg_sq_absmax; /* likewise, with ADAMW_STEP_AMSGRAD only */
  float *exp_avg_sq_floor;     /* state, 8-bit formats only: adamw_state_layout.floor_count floors */
  float *max_exp_avg_sq_floor; /* likewise, with ADAMW_STEP_AMSGRAD only */
  void *param_remainder;       /* state, with options.remainder_bits > 0 only: numel elements of int16_t (16) or int8_t (8), see
                                  adamw_step_options.remainder_bits. Zeros are a valid fresh state */
  float *gnorm_history;        /* state, with percentile_clipping < 100 only: ADAMW_GNORM_HISTORY squared norms */
  int64_t numel;               /* number of elements, in 0 ... 2^58 */
  int64_t row_length;          /* elements in one row of dimension 0 (numel / size(0)); numel for 1-D tensors. It divides numel,
                                  and is in 1 ... numel. Ignored if numel is 0 */
  int64_t step;                /* the number of this step, in 1 ... INT64_MAX (state after 0 steps is all zeros). Ignored if
                                  step_tensor is not NULL */
  int64_t global_offset;       /* index of element 0 in the unsharded tensor, in 0 ... 2^62 - numel; 0 without sharding */
  int64_t run_length;          /* 0: element i has the index global_offset + i in the unsharded tensor. Otherwise the elements
                                  are runs of run_length neighbours in the unsharded tensor. For example, a shard of a matrix's
                                  columns holds one run of each row. Element i has the index
                                  global_offset + i / run_length * run_stride + i % run_length.
                                  run_length must divide numel and is in 0 ... numel (if numel is 0: not negative). No block may
                                  lie in two runs, with any state format (adamw_state_format defines the blocks). Therefore
                                  run_length is numel, or a multiple of row_length if blocks follow rows, or a multiple of 256
                                  if blocks are flat. */
  int64_t run_stride;          /* distance between the first elements of two runs in the unsharded tensor. It is 0 if run_length
                                  is 0, otherwise at least run_length. The last index must be below 2^62. */
  const float *step_tensor;    /* NULL, or one float that is the number of this step and replaces `step`, in [1, 9e18). On a
                                  device: device memory, which is read when the step runs, so that a CUDA graph can be replayed.
                                  A value below 1 then counts as 1 */
} adamw_tensor;

/* Flags of adamw_step_options. */
typedef enum adamw_step_flags {
  ADAMW_STEP_AMSGRAD = 1,             /* v^ = the maximum of v so far (Reddi et al., ICLR 2018) */
  ADAMW_STEP_MAXIMIZE = 2,            /* g = -g */
  ADAMW_STEP_STOCHASTIC_ROUNDING = 4, /* round 16-bit parameters stochastically instead of to nearest (no effect on float32
                                         parameters and on those with master weights) */
  ADAMW_STEP_SKIP_ZEROS = 8           /* do not change elements whose gradient is exactly 0: neither parameter nor moments */
} adamw_step_flags;

/* A page manager, see adamw_pager_create(). */
typedef struct adamw_pager adamw_pager;

/* Options that apply to all tensors of a call. Start from ADAMW_STEP_OPTIONS_INIT. */
typedef struct adamw_step_options {
  size_t size;                 /* the caller's sizeof(adamw_step_options), in 128 ... 4096: it includes all fields up to
                                  `stream` */
  double lr;                   /* learning rate, in [0, infinity) */
  double beta1;                /* in [0, 1) */
  double beta2;                /* in [0, 1) */
  double eps;                  /* in [0, infinity) */
  double weight_decay;         /* in [0, infinity); decoupled */
  double max_unorm;            /* in [0, infinity). 0: off. Otherwise the update u = (m / bc1) / (sqrt(v^ / bc2) + eps) is
                                  scaled by max_unorm * |p| / |u| if |u| > max_unorm * |p|. |u| and |p| are 2-norms over the
                                  tensor before the step. A tensor of zeros therefore never moves, as in bitsandbytes */
  int32_t param_dtype;         /* adamw_dtype of param */
  int32_t grad_dtype;          /* adamw_dtype of grad; may differ from the parameter's */
  int32_t state_format;        /* adamw_state_format */
  uint32_t flags;              /* adamw_step_flags, or-ed */
  int32_t percentile_clipping; /* in 1 ... 100. 100: off. Otherwise the gradient is scaled by clip / |g| if its 2-norm |g| is
                                  greater than clip = sqrt(sort(history)[percentile_clipping]). history holds the squared norms
                                  of the last 100 steps. Step 1 fills all entries, and so does the first norm above zero; step t
                                  writes entry t % 100. A norm that is not finite is neither recorded nor clipped. */
  int32_t device;              /* -1: CPU. >= 0: the CUDA device with this number (needs a CUDA build of the library) */
  int32_t num_threads;         /* CPU threads for this call: the maximum, in 0 ... INT32_MAX. adamw_set_num_threads() says what
                                  0 means and how many threads a call uses */
  int32_t remainder_bits;      /* 0: off. 8 or 16: the step works on master weights of 24 or 32 bits. Each is a parameter, which
                                  must be ADAMW_BFLOAT16, and so many bits more in adamw_tensor.param_remainder.
                                  adamw_split_weights() defines them */
  uint64_t seed;               /* of the stochastic rounding */
  const float *grad_scale;     /* NULL, or one float in (0, infinity): the step multiplies gradients by its reciprocal
                                  (GradScaler). On a device: device memory */
  const float *found_inf;      /* NULL, or one float: if it is not 0, the call changes nothing. On a device: device memory */
  int64_t *skipped;            /* NULL, or a counter, to which the call adds the number of elements that 8-bit state skipped,
                                  see adamw_state_format. On a device: device memory; if 1 / *grad_scale overflows, the padding
                                  of a block to 256 elements counts, too */
  void *stream;                /* the CUDA stream (cudaStream_t) on which the work is queued; ignored on the CPU */
  const float *lr_tensor;      /* NULL, or one float that is the learning rate and replaces `lr`, in [0, infinity). On a device:
                                  device memory, which is read when the step runs */
  adamw_pager *pager;          /* NULL, or a pager for this device, in which any state buffer of the tensors may lie */
  int64_t *rows_stepped;       /* NULL, or receives the number of tensors, counted from tensor 0, that this call has stepped
                                  completely (on a device: queued), however the call ends. Only a call that refuses its
                                  arguments may leave it unchanged. Host memory. Look at it after STORAGE, DEVICE and
                                  OUT_OF_MEMORY */
  const float *grad_factor;    /* NULL, or one float in [0, infinity), or a NaN: the step multiplies gradients by it, in addition to
                                  grad_scale. adamw_clip_factor() computes one. On a device: device memory, which is read when
                                  the step runs */
} adamw_step_options;

#define ADAMW_STEP_OPTIONS_INIT                                                                          \
  {                                                                                                      \
    sizeof(adamw_step_options), 1e-3, 0.9, 0.999, 1e-8, 1e-2, 0.0, ADAMW_FLOAT32, ADAMW_FLOAT32,         \
        ADAMW_STATE_FLOAT32, 0u, 100, -1, 0, 0, 0u, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL       \
  }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_step_options). Allowed:
 * size in 128 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets
 * options->size to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_step_options_init(adamw_step_options *options, size_t size);

/* Performs one AdamW step of `count` tensors, in place.
 *
 * `tensors` is a table: an array of adamw_tensor whose entries lie `tensor_size` bytes apart. tensor_size is the caller's
 * sizeof(adamw_tensor). Allowed: tensor_size in 128 ... 4096, which includes all fields up to `global_offset`, and
 * count in 0 ... 2^54. A call with count = 0 does nothing. The library only reads the table, and does not use it after the
 * call. It checks every field of every tensor before it writes anything.
 *
 * On the CPU, the call returns when the step is done. Working memory for each tensor: less than a kilobyte; up to 32 KiB more
 * with percentile_clipping; up to 128 KiB more with max_unorm or ADAMW_STATE_TENSOR8. No other memory grows with the tensors.
 *
 * On a CUDA device, the call queues the step on options.stream and returns. It synchronises nothing and leaves the caller's
 * current device as it was. A CUDA graph can capture the call, after one call outside of a capture, which loads the kernels.
 * Buffers must stay valid, and nobody else may change them, until the stream has passed the step. One kernel launch takes about
 * 300 tensors. If the step uses random bits, tensors with runs (see run_length) have separate launches of a slower kernel.
 * percentile_clipping, max_unorm and TENSOR8 take working memory from the library's memory pool, in stream order. If state lies
 * in a pager, max_unorm and TENSOR8 read and write it over the link, not in windows. State and results have the same bits as on
 * the CPU, except that a NaN may be another NaN.
 *
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules above; memory of the pager is acquired
 *   VERSION           this library does not know options.size or tensor_size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here; a pager
 *                     is used in a child of fork() (not HOST); a tensor on a device has 2^31 blocks or more;
 *                     max_unorm or TENSOR8 measures a tensor that is too large for the windows of the pager (chunk_bytes of
 *                     at least 131072 plus 1 / 4096 of the tensor's state is always enough)
 *   OUT_OF_MEMORY     memory of the host or the device; the threads that a FILE pager needs, when it is first used
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           a pager's file could not be read or written, or could not be copied after a fork
 *
 * After an error, the call has written nothing, with two exceptions.
 *   - On a device, tensors that were queued before the failing call are stepped.
 *   - With a pager, the tensors before *rows_stepped have been stepped. The tensor at *rows_stepped may have been stepped in
 *     part; the message says up to which element. The tensors after it have not been stepped. Parameters and state agree in
 *     each element, because the pager keeps in memory what it could not write to the file. */
ADAMW_API adamw_status adamw_step(const adamw_step_options *options, const adamw_tensor *tensors, size_t tensor_size,
                                  int64_t count);

/* ---- the norm of all gradients ------------------------------------------------------------------------------ */

/* To clip gradients by their global norm, call adamw_norm() for the gradients, adamw_clip_factor() for the factor, and adamw_step()
 * with adamw_step_options.grad_factor. Nothing rounds or writes a gradient, and nothing waits: on a device, all of it is queued on
 * one stream. If gradients lie in several processes or on several devices, add their sums of squares in between. */

/* One gradient: an entry of the table that adamw_norm() takes. It is dense and contiguous. */
typedef struct adamw_gradient {
  const void *grad; /* numel elements, aligned to their element; may be NULL if numel is 0. On a CUDA device: device-accessible */
  int64_t numel;    /* number of elements, in 0 ... 2^58 */
  int32_t dtype;    /* adamw_dtype */
  int32_t reserved; /* 0 */
} adamw_gradient;

/* Start from ADAMW_NORM_OPTIONS_INIT. */
typedef struct adamw_norm_options {
  size_t size;         /* the caller's sizeof(adamw_norm_options), in 24 ... 4096: it includes all fields up to `stream` */
  int32_t device;      /* as in adamw_step_options */
  int32_t num_threads; /* as in adamw_step_options, in 0 ... INT32_MAX */
  void *stream;        /* as in adamw_step_options */
} adamw_norm_options;

#define ADAMW_NORM_OPTIONS_INIT \
  { sizeof(adamw_norm_options), -1, 0, NULL }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_norm_options). Allowed: size
 * in 24 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets options->size
 * to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_norm_options_init(adamw_norm_options *options, size_t size);

/* Sets *squares to the sum of the squares of all elements of `count` gradients. The norm is its root.
 *
 * `gradients` is a table: an array of adamw_gradient whose entries lie `gradient_size` bytes apart. gradient_size is the caller's
 * sizeof(adamw_gradient). Allowed: gradient_size in 24 ... 4096, and count in 0 ... 2^54. With count = 0, *squares becomes 0.
 * `squares` is aligned to 8 bytes; on a device, it is device memory. The gradients stay as they are.
 *
 * Squares are exact, and are added in double precision, in an order that only the numbers of elements decide. So the bits do not
 * depend on threads, instruction set or device. The sum overflows for no finite gradients. It is infinite or a NaN if an element
 * is.
 *
 * On a CUDA device, the call queues its work on options.stream and returns, as adamw_step() does: one launch for about 1300
 * gradients. Its working memory is 8 bytes for every 4096 elements (at most 32 KiB for a gradient) and 12 for each gradient, from
 * the library's memory pool.
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules above; a buffer is NULL, misaligned, or overlaps *squares
 *   VERSION           this library does not know options.size or gradient_size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here; a gradient
 *                     on a device has 2^31 blocks or more; the device has no memory pools
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_norm(const adamw_norm_options *options, const adamw_gradient *gradients, size_t gradient_size,
                                  int64_t count, double *squares);

/* Start from ADAMW_CLIP_OPTIONS_INIT. */
typedef struct adamw_clip_options {
  size_t size;             /* the caller's sizeof(adamw_clip_options), in 40 ... 4096: it includes all fields up to `stream` */
  double max_norm;         /* in [0, infinity] */
  const float *grad_scale; /* NULL, or as in adamw_step_options: the gradients are this many times too large */
  int32_t device;          /* as in adamw_step_options */
  int32_t reserved;        /* 0 */
  void *stream;            /* as in adamw_step_options */
} adamw_clip_options;

#define ADAMW_CLIP_OPTIONS_INIT \
  { sizeof(adamw_clip_options), 1.0, NULL, -1, 0, NULL }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_clip_options). Allowed: size
 * in 40 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets options->size
 * to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_clip_options_init(adamw_clip_options *options, size_t size);

/* Computes, from `count` sums of squares (which it adds in their order),
 *
 *     norm   = sqrt(squares[0] + ... + squares[count - 1]) / grad_scale
 *     factor = max_norm / (norm + 1e-6), but at most 1; a NaN if norm is a NaN
 *
 * in double precision, and rounds both to float. The meaning is that of torch.nn.utils.clip_grad_norm_(): with an infinite norm
 * the factor is 0, which turns infinite gradients into NaN. Allowed: count in 1 ... 4096. All buffers are host memory, or on a
 * device device memory, which is read and written when the work that the call queues on options.stream runs. `norm` may be NULL.
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules above; a buffer is NULL, misaligned, or overlaps one that is written
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_clip_factor(const adamw_clip_options *options, const double *squares, int64_t count, float *norm,
                                         float *factor);

/* ---- quantization ------------------------------------------------------------------------------------------- */

/* The two kinds of codes of 8-bit state, see adamw_state_format. max_exp_avg_sq has those of exp_avg_sq. */
typedef enum adamw_moment {
  ADAMW_MOMENT_EXP_AVG = 0,   /* numbers of both signs */
  ADAMW_MOMENT_EXP_AVG_SQ = 1 /* numbers that are not negative */
} adamw_moment;

/* How a number between two codes, or between two numbers of 24 bits, is rounded. */
typedef enum adamw_rounding {
  ADAMW_ROUND_NEAREST = 0,   /* to the nearest */
  ADAMW_ROUND_STOCHASTIC = 1 /* as a step with the same key rounds this moment */
} adamw_rounding;

/* Start from ADAMW_QUANTIZE_OPTIONS_INIT and set numel and row_length. */
typedef struct adamw_quantize_options {
  size_t size;           /* the caller's sizeof(adamw_quantize_options), in 72 ... 4096: it includes all fields up to `seed` */
  int32_t moment;        /* adamw_moment */
  int32_t state_format;  /* ADAMW_STATE_BLOCK8 or ADAMW_STATE_TENSOR8 */
  int32_t rounding;      /* adamw_rounding */
  int32_t device;        /* as in adamw_step_options */
  int32_t num_threads;   /* as in adamw_step_options, in 0 ... INT32_MAX */
  int32_t reserved;      /* 0 */
  int64_t numel;         /* as in adamw_tensor, in 0 ... 2^58 */
  int64_t row_length;    /* as in adamw_tensor, in 1 ... numel */
  int64_t step;          /* with seed and global_offset, the key of stochastic rounding; in 0 ... INT64_MAX */
  int64_t global_offset; /* as in adamw_tensor, in 0 ... 2^62 - numel; runs are not supported here */
  uint64_t seed;         /* as in adamw_step_options */
  void *stream;          /* as in adamw_step_options */
} adamw_quantize_options;

#define ADAMW_QUANTIZE_OPTIONS_INIT                                                                      \
  {                                                                                                      \
    sizeof(adamw_quantize_options), ADAMW_MOMENT_EXP_AVG, ADAMW_STATE_BLOCK8, ADAMW_ROUND_NEAREST, -1, 0, 0, \
        0, 0, 0, 0, 0u, NULL                                                                                 \
  }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_quantize_options). Allowed:
 * size in 72 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets
 * options->size to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_quantize_options_init(adamw_quantize_options *options, size_t size);

/* Computes codes[i], absmax[block] and, for ADAMW_MOMENT_EXP_AVG_SQ, floor[block] from numel floats. The numbers of scales and
 * floors are absmax_count and floor_count of adamw_get_state_layout(). For ADAMW_MOMENT_EXP_AVG, `floor` is not used and may be
 * NULL. NaN and infinities are stored as zero; so are negative numbers with ADAMW_MOMENT_EXP_AVG_SQ.
 * adamw_state_format says what becomes zero, and how exact the codes are.
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules of adamw_quantize_options; a buffer is NULL (unless numel is 0), is
 *                     misaligned, or overlaps a buffer that is written
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_quantize(const adamw_quantize_options *options, const float *source, uint8_t *codes, float *absmax,
                                      float *floor);

/* Computes the numbers that codes stand for, target[i], as adamw_state_format defines them. `floor` as in adamw_quantize().
 * Every byte is a valid code. (exp_avg's code 0, which nothing is rounded to, stands for -1.03 * absmax.)
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules of adamw_quantize_options; a buffer is NULL (unless numel is 0), is
 *                     misaligned, or overlaps a buffer that is written
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_dequantize(const adamw_quantize_options *options, const uint8_t *codes, const float *absmax,
                                        const float *floor, float *target);

/* ---- master weights ----------------------------------------------------------------------------------------- */

/* A master weight is a float32 number w that is kept in two parts: a bfloat16 parameter p, which the model uses, and a
 * remainder, which p lacks of w. With adamw_step_options.remainder_bits, adamw_step() joins the two, steps w as it would step a
 * float32 parameter, and splits the result.
 *
 *     16 bits   p is w rounded to the nearest bfloat16, half a unit away from zero. remainder, an int16_t, is
 *               bits(w) - (bits(p) << 16). So nothing of w is lost: the run is that of a float32 parameter, bit for bit.
 *      8 bits   w is first rounded to its upper 24 bits, stochastically: up with a probability equal to the distance from the
 *               number below, so that w is right on average. p is this number rounded to the nearest bfloat16, half a unit away
 *               from zero. remainder, an int8_t, is (bits(w) - (bits(p) << 16)) >> 8. The random bits are a hash of (seed,
 *               step, global element index).
 *
 *     w = number with the bits ((bits(p) << 16) + remainder)  or, with 8 bits,  ((bits(p) << 16) + remainder * 256);
 *         p, if that is a NaN
 *
 * bits() is the bit pattern as an unsigned integer, of 32 bits for w and of 16 bits for p; sums are modulo 2^32. If w is a NaN,
 * p is the NaN with the bits 0x7FC0 and remainder is 0. If |w| is 0x1.FFp+127 or more, p is infinite although w need not be;
 * with 8 bits, w may become infinite itself if |w| is above 0x1.FFFEp+127.
 *
 * A program may set p at any time. What w lacks of p then is at most half a unit in the last place of p, so any p and any
 * remainder are a valid state. */

/* Start from ADAMW_SPLIT_OPTIONS_INIT and set numel. */
typedef struct adamw_split_options {
  size_t size;            /* the caller's sizeof(adamw_split_options), in 56 ... 4096: it includes all fields up to `seed` */
  int32_t remainder_bits; /* 8 or 16 */
  int32_t rounding;       /* adamw_rounding, with which adamw_split_weights() rounds to 24 bits: to nearest, half a unit away from
                             zero; or stochastically, as a step with the same key. No effect with 16 bits */
  int32_t device;         /* as in adamw_step_options */
  int32_t num_threads;    /* as in adamw_step_options, in 0 ... INT32_MAX */
  int64_t numel;          /* in 0 ... 2^58 */
  int64_t step;           /* with seed and global_offset, the key of stochastic rounding; in 0 ... INT64_MAX */
  int64_t global_offset;  /* as in adamw_tensor, in 0 ... 2^62 - numel; runs are not supported here */
  uint64_t seed;          /* as in adamw_step_options */
  void *stream;           /* as in adamw_step_options */
} adamw_split_options;

#define ADAMW_SPLIT_OPTIONS_INIT \
  { sizeof(adamw_split_options), 16, ADAMW_ROUND_NEAREST, -1, 0, 0, 0, 0, 0u, NULL }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_split_options). Allowed: size
 * in 56 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets options->size
 * to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_split_options_init(adamw_split_options *options, size_t size);

/* Splits numel master weights: computes param[i] and remainder[i] (int16_t or int8_t) from weights[i].
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules of adamw_split_options; a buffer is NULL (unless numel is 0), is misaligned, or
 *                     overlaps a buffer that is written
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_split_weights(const adamw_split_options *options, const float *weights, uint16_t *param,
                                           void *remainder);

/* Joins numel parameters and remainders to master weights: computes weights[i]. Every param[i] and remainder[i] is valid.
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules of adamw_split_options; a buffer is NULL (unless numel is 0), is misaligned, or
 *                     overlaps a buffer that is written
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the kernel (ADAMW_CPU) cannot run here
 *   OUT_OF_MEMORY     memory of the host or the device; nothing has been written
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_join_weights(const adamw_split_options *options, const uint16_t *param, const void *remainder,
                                          float *weights);

/* ---- pages -------------------------------------------------------------------------------------------------- */

/* A pager owns memory for optimizer state that may be too large for the memory where the step runs. The state lies in the
 * backing of the pager. adamw_step() brings it in through windows of at most chunk_bytes each, and reads ahead and writes
 * behind. A step with a pager has the same bits as a step without one, whatever the backing.
 *
 * For the program that holds them, buffers are ordinary memory: it may read, write and copy them between steps. Pointers to
 * state in adamw_tensor may point anywhere into a buffer. */
typedef enum adamw_place {
  ADAMW_PLACE_HOST = 0,    /* ordinary memory. As a backing: the CPU steps it in place */
  ADAMW_PLACE_FILE = 1,    /* files without names in `directory`, which disappear with the process however it ends; for the CPU.
                              adamw_pager_alloc() reserves space on the disk before it returns a buffer: a multiple of 64 bytes
                              for a buffer below 4096 bytes, whole pages of 4096 bytes for others. The buffer is a mapping of a
                              file. A step reads and writes the file directly, past the page cache if the file system can */
  ADAMW_PLACE_PINNED = 2,  /* page-locked host memory, copied through slots in the memory of a CUDA device */
  ADAMW_PLACE_MANAGED = 3, /* CUDA unified memory. Buffers within the budget lie on the device until it is full and the driver
                              moves them out; a step prefetches those that may have been moved. Buffers beyond the budget stay
                              on the host, where kernels read and write them over the link */
  ADAMW_PLACE_DEVICE = 4   /* device memory. Not a backing, but the place of state that the budget keeps on the device */
} adamw_place;

/* Start from ADAMW_PAGER_OPTIONS_INIT. */
typedef struct adamw_pager_options {
  size_t size;            /* the caller's sizeof(adamw_pager_options), in 32 ... 4096: it includes all fields up to
                             `chunk_bytes` */
  int32_t backing;        /* adamw_place, except DEVICE */
  int32_t device;         /* where steps run: -1, the CPU (HOST, FILE), or a CUDA device (PINNED, MANAGED) */
  int64_t resident_bytes; /* the budget of fast memory (host memory for FILE, device memory for PINNED and MANAGED), in
                             0 ... INT64_MAX. The budget left after the 4 windows (MANAGED needs none) keeps the first buffers
                             resident: they are stepped in place. 0: only the windows (FILE, PINNED), or no limit (MANAGED).
                             Otherwise FILE and PINNED need at least 4 times chunk_bytes, or 262144 if that is 0. No effect on
                             HOST. In addition, a step needs some kilobytes, and each window needs a page */
  int64_t chunk_bytes;    /* state in one window, in 65536 ... 2^40, rounded up to whole pages of 4096 bytes; or 0: 16 MiB, or
                             less if the budget is small (MANAGED: 1 GiB) */
  int64_t reserve_bytes;  /* FILE: space that the pager reserves on the disk at once, in 0 ... 2^60; buffers beyond it reserve
                             theirs when they are allocated. 0 for other backings */
  const char *directory;  /* FILE: where the files lie; NULL: the environment variable TMPDIR, or /var/tmp if that is not set or
                             is empty. NULL for other backings */
} adamw_pager_options;

#define ADAMW_PAGER_OPTIONS_INIT \
  { sizeof(adamw_pager_options), ADAMW_PLACE_HOST, -1, 0, 0, 0, NULL }

/* The same as a function, for bindings that cannot use macros. size is the caller's sizeof(adamw_pager_options). Allowed:
 * size in 32 ... 4096. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros. Sets
 * options->size to `size`.
 * Errors:
 *   INVALID_ARGUMENT  options is NULL
 *   VERSION           this library does not know the size; it has written nothing */
ADAMW_API adamw_status adamw_pager_options_init(adamw_pager_options *options, size_t size);

/* The contents of a pager, and its work since its creation. Bytes, unless a comment says otherwise. */
typedef struct adamw_pager_statistics {
  int64_t buffers;             /* number of buffers that are allocated now */
  int64_t host_bytes;          /* bytes of these buffers in HOST */
  int64_t file_bytes;          /* likewise, in FILE */
  int64_t pinned_bytes;        /* likewise, in PINNED */
  int64_t managed_bytes;       /* likewise, in MANAGED */
  int64_t device_bytes;        /* likewise, in DEVICE */
  int64_t resident_bytes;      /* fast memory in use now: windows and resident buffers (MANAGED: as the last step found it) */
  int64_t resident_peak_bytes; /* the largest value so far */
  int64_t bytes_in;            /* brought in by steps (MANAGED: only bytes that they prefetched) */
  int64_t bytes_out;           /* written back */
  int64_t wait_ns;             /* nanoseconds that steps waited for bytes (FILE; on a device, the host does not wait) */
  int64_t faults_avoided;      /* pages of 4096 bytes that were brought in before the first access */
} adamw_pager_statistics;

/* Creates a pager; *pager is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  a value breaks the rules of adamw_pager_options; options or pager is NULL
 *   VERSION           this library does not know options.size, or bytes that it does not know are not 0
 *   UNSUPPORTED       this build, driver or machine does not have the device; the device, or this build (FILE, except on
 *                     Linux), does not support the backing
 *   OUT_OF_MEMORY     memory of the host or the device
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the directory is missing or read-only, or the disk is full; the message names the directory */
ADAMW_API adamw_status adamw_pager_create(const adamw_pager_options *options, adamw_pager **pager);

/* Frees the pager and everything that it holds; NULL is allowed. Nobody may use the pager any more.
 * Errors:
 *   INVALID_ARGUMENT  buffers are still allocated: their pointers would dangle. The call has changed nothing */
ADAMW_API adamw_status adamw_pager_destroy(adamw_pager *pager);

/* Allocates a buffer of at least `bytes` zeros, aligned to 64 bytes. Allowed: bytes in 1 ... 2^60. *place receives the place of
 * the buffer; `place` may be NULL. Allocate buffers in the order in which they are stepped: the pager then reads and writes
 * them in larger pieces. *buffer is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  pager or buffer is NULL; bytes breaks the rule above
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     memory of the host or the device
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the disk has no room for the buffer */
ADAMW_API adamw_status adamw_pager_alloc(adamw_pager *pager, int64_t bytes, void **buffer, int32_t *place);

/* Frees a buffer, after waiting for the steps that still use it (not for other work of the caller); NULL is allowed.
 * Errors: the buffer is unchanged. No other errors are possible, because the call needs neither memory nor a disk.
 *   INVALID_ARGUMENT  pager is NULL; `buffer` is not a buffer of this pager; bytes of the buffer are acquired */
ADAMW_API adamw_status adamw_pager_free(adamw_pager *pager, void *buffer);

/* For kernels other than adamw_step(). Brings in `bytes` bytes at `address` and writes to *usable where the CPU, or work that
 * is queued on `stream` of the device, can use them until adamw_pager_release(). The bytes must lie in one buffer. Allowed:
 * bytes in 1 ... chunk_bytes (rounded up to pages). At most 3 byte ranges can be acquired at a time, and they must not overlap.
 * While one is acquired, a step with this pager is refused. Memory that is used in place (HOST, and buffers that the budget
 * keeps resident) is not brought in: *usable is `address`, and these limits do not apply.
 * *usable is NULL after an error.
 * Errors:
 *   INVALID_ARGUMENT  pager or usable is NULL; the bytes lie in no buffer or pass its end; another rule above is broken
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     memory of the host or the device for the windows, or the two threads that a FILE pager needs
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the file could not be read; or after a fork, see below */
ADAMW_API adamw_status adamw_pager_acquire(adamw_pager *pager, void *address, int64_t bytes, void *stream, void **usable);

/* Ends the use of acquired bytes. `dirty` is not 0 if the bytes were written. They then go back to the buffer: at once on the
 * CPU; on a device, after the work that is queued on `stream`.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL; `usable` is not acquired
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     memory of the host, or after a fork, see below: the bytes stay acquired; or memory of the device, as CUDA
 *                     says
 *   DEVICE            the CUDA call that failed, by name
 *   STORAGE           the file could not be written: the pager keeps the bytes in memory, and the buffer holds them; or after
 *                     a fork, see below: the bytes stay acquired */
ADAMW_API adamw_status adamw_pager_release(adamw_pager *pager, void *usable, int32_t dirty, void *stream);

/* Gives a hint that these bytes will be acquired soon. It is only a hint: adamw_pager_acquire() returns the contents that the
 * buffer has at that time, whatever was prefetched and however the buffer was written since. The hint may be given at any time,
 * for any bytes of a buffer, acquired or not. If memory is short, or if a disk or a device fails, the call still succeeds. No
 * effect on HOST and PINNED.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL; the bytes lie in no buffer or pass its end
 *   UNSUPPORTED       in a child of fork() (not HOST) */
ADAMW_API adamw_status adamw_pager_prefetch(adamw_pager *pager, void *address, int64_t bytes, void *stream);

/* Waits until the steps queued so far have written their results to the buffers in host memory (PINNED). With other backings,
 * it is enough to synchronise the stream.
 * Errors:
 *   INVALID_ARGUMENT  pager is NULL
 *   UNSUPPORTED       in a child of fork() (not HOST)
 *   OUT_OF_MEMORY     as CUDA says
 *   DEVICE            the CUDA call that failed, by name */
ADAMW_API adamw_status adamw_pager_wait(adamw_pager *pager);

/* Writes *statistics. size is the caller's sizeof(adamw_pager_statistics). Allowed: size in 64 ... 4096, which includes all
 * fields up to resident_peak_bytes. Writes `size` bytes: the fields that this library knows, as far as they fit, then zeros.
 * Errors:
 *   INVALID_ARGUMENT  pager or statistics is NULL
 *   VERSION           this library does not know the size; it has written nothing
 *   UNSUPPORTED       in a child of fork() (not HOST) */
ADAMW_API adamw_status adamw_pager_stats(adamw_pager *pager, adamw_pager_statistics *statistics, size_t size);

/* Pagers are thread safe; steps with one pager run one after the other.
 *
 * fork() waits for running calls of pagers. In the child process:
 *   - HOST pagers and their buffers work as in any process.
 *   - FILE buffers, including those that the budget keeps in memory, are snapshots of the moment of the fork and private to the
 *     child. The child may read and write them, and free them with adamw_pager_free() and then the pager with
 *     adamw_pager_destroy(). If RLIMIT_DATA does not let the parent hold them as private memory, the child cannot read them.
 *   - Nobody may touch the memory of PINNED and MANAGED pagers, because CUDA does not work in the child.
 *   - Every other call with a FILE, PINNED or MANAGED pager returns UNSUPPORTED.
 *
 * The snapshot of FILE buffers costs the parent one copy of the files' content, and as much space on the disk. The parent makes
 * the copy if such a child is still alive and has not freed its buffers. It does so at its next step, acquire, or release of
 * dirty bytes with that pager. If the copy cannot be made, that call returns STORAGE or OUT_OF_MEMORY, nothing is lost, and the
 * next call tries again. Without such a child, the parent writes to the files only the bytes that its program has written
 * to buffers since the fork. */

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
ADAMW_ASSERT_(sizeof(adamw_state_layout) == 48, adamw_assert_state_layout_size);
ADAMW_ASSERT_(sizeof(adamw_tensor) == 152 && offsetof(adamw_tensor, numel) == 96, adamw_assert_tensor_size);
ADAMW_ASSERT_(offsetof(adamw_tensor, step_tensor) == 144, adamw_assert_tensor_tail);
ADAMW_ASSERT_(sizeof(adamw_step_options) == 160 && offsetof(adamw_step_options, param_dtype) == 56, adamw_assert_step_size);
ADAMW_ASSERT_(offsetof(adamw_step_options, seed) == 88 && offsetof(adamw_step_options, lr_tensor) == 128, adamw_assert_step_tail);
ADAMW_ASSERT_(sizeof(adamw_quantize_options) == 80 && offsetof(adamw_quantize_options, numel) == 32, adamw_assert_quantize_size);
ADAMW_ASSERT_(offsetof(adamw_step_options, pager) == 136 && offsetof(adamw_step_options, grad_factor) == 152, adamw_assert_step_end);
ADAMW_ASSERT_(sizeof(adamw_gradient) == 24 && sizeof(adamw_norm_options) == 24, adamw_assert_norm_size);
ADAMW_ASSERT_(sizeof(adamw_clip_options) == 40 && offsetof(adamw_clip_options, device) == 24, adamw_assert_clip_size);
ADAMW_ASSERT_(sizeof(adamw_split_options) == 64 && offsetof(adamw_split_options, numel) == 24, adamw_assert_split_size);
ADAMW_ASSERT_(sizeof(adamw_pager_options) == 48 && offsetof(adamw_pager_options, resident_bytes) == 16, adamw_assert_pager_size);
ADAMW_ASSERT_(sizeof(adamw_pager_statistics) == 96 && offsetof(adamw_pager_statistics, bytes_in) == 64, adamw_assert_statistics);
#undef ADAMW_ASSERT_
#endif

#endif /* ADAMW_H */
