// Owns the second opinion: which statuses adamw.h allows for a call. Written from the header alone, in 128-bit
// integers; knows nothing of the library's own checks.
#pragma once

#include <cstdint>
#include <vector>

#include "../../include/adamw.h"

using Statuses = unsigned;  // a set: bit s is status s
constexpr Statuses only(adamw_status status) { return 1u << status; }
constexpr Statuses ok = only(ADAMW_OK), invalid = only(ADAMW_ERROR_INVALID_ARGUMENT),
                   version = only(ADAMW_ERROR_VERSION), unsupported = only(ADAMW_ERROR_UNSUPPORTED),
                   no_memory = only(ADAMW_ERROR_OUT_OF_MEMORY), no_storage = only(ADAMW_ERROR_STORAGE);
// Where the header leaves open whether a call is right.
constexpr Statuses either = ok | invalid;

// What went wrong, of which the call may name any; if nothing did it must be OK.
inline Statuses allowed(Statuses errors) { return errors == 0 ? ok : errors; }

__extension__ typedef __int128 Wide;
constexpr std::int64_t max_numel = std::int64_t{1} << 58, max_index = std::int64_t{1} << 62;

struct Layout {
  Wide moment_bytes, scales, blocks_per_row, remainder_bytes, total_bytes;  // scales: as many as floors
};
// Of a right tensor of numel elements.
Layout layout_of(std::int32_t format, std::int64_t numel, std::int64_t row_length, bool amsgrad,
                 std::int32_t remainder_bits = 0);
Statuses layout_errors(std::int32_t format, std::int64_t numel, std::int64_t row_length, std::int32_t remainder_bits,
                       const void *layout);

// A buffer of a pager that moves: state in it must end in it. (What is used where it lies is ordinary memory.)
struct PagerBuffer {
  const std::uint8_t *at;
  std::int64_t bytes;
};

struct StepCall {
  const adamw_step_options *options;
  const adamw_tensor *tensors;
  std::size_t tensor_size;
  std::int64_t count;
  std::vector<PagerBuffer> paged;  // of options->pager
  bool kernel_missing = false;     // ADAMW_CPU names none that there is
  bool unknown = false;            // bytes beyond the known fields of options or rows are not 0
};
// A stretch of memory that a call uses.
struct Stretch {
  Wide begin, end;
  bool written;
};
// `used`: what the call uses, if it is right.
Statuses step_errors(const StepCall &call, std::vector<Stretch> *used);

// floats, codes, scales and floors of adamw_quantize() or, with `floats_written`, adamw_dequantize().
struct QuantizeCall {
  const adamw_quantize_options *options;
  const void *floats, *codes, *absmax, *floor;
  bool floats_written, kernel_missing = false, unknown = false;
};
Statuses quantize_errors(const QuantizeCall &call);

// Buffers of adamw_split_weights() or, with `weights_written`, adamw_join_weights().
struct SplitCall {
  const adamw_split_options *options;
  const void *weights, *param, *remainder;
  bool weights_written, kernel_missing = false, unknown = false;
};
Statuses split_errors(const SplitCall &call);

// Of adamw_norm(). gradient_size: as passed; gradients: as today's header has them.
struct NormCall {
  const adamw_norm_options *options;
  const adamw_gradient *gradients;
  std::size_t gradient_size;
  std::int64_t count;
  const void *squares;
  bool kernel_missing = false, unknown = false;
};
Statuses norm_errors(const NormCall &call);

// Of adamw_clip_factor().
struct ClipCall {
  const adamw_clip_options *options;
  const void *squares;
  std::int64_t count;
  const void *norm, *factor;
  bool unknown = false;
};
Statuses clip_errors(const ClipCall &call);

// Of a struct or row of which a caller has `size` bytes, and must have `least`.
Statuses size_errors(std::size_t size, std::size_t least);

Statuses pager_create_errors(const adamw_pager_options *options, const void *pager);

std::size_t dtype_bytes(std::int32_t dtype);
