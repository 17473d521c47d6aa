// Owns the checks of what a caller passes but for the rows of a step, which are rows.cpp's. Nothing below it
// checks again; nothing here writes a caller's memory.
#include "check.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>

#include "../devices.h"
#include "../formats.h"
#include "../pager/pager.h"
#include "../status.h"
#include "sizes.h"

namespace adamw {
namespace {

constexpr uint32_t known_flags =
    ADAMW_STEP_AMSGRAD | ADAMW_STEP_MAXIMIZE | ADAMW_STEP_STOCHASTIC_ROUNDING | ADAMW_STEP_SKIP_ZEROS;

adamw_status invalid(const char *function, const char *field, double value, const char *need) {
  return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.%s = %.17g: must be %s", function, field, value, need);
}

bool is_finite_at_least_zero(double x) { return x >= 0.0 && std::isfinite(x); }

// Where a call computes.
adamw_status check_place(const char *function, int32_t device, int32_t threads) {
  if (device < -1) return invalid(function, "device", device, "-1 (CPU) or a CUDA device number");
  if (adamw_status s = check_device(function, device)) return s;
  if (threads < 0) return invalid(function, "num_threads", threads, "0 (the default) or a number of threads");
  return ADAMW_OK;
}

// The key of stochastic rounding, for elements from `offset` on.
adamw_status check_key(const char *function, int64_t step, int64_t offset, int64_t numel) {
  if (step < 0) return invalid(function, "step", static_cast<double>(step), "at least 0");
  if (offset < 0 || offset > max_bytes - numel)
    return invalid(function, "global_offset", static_cast<double>(offset), "in 0 ... 2^62 - numel");
  return ADAMW_OK;
}

}  // namespace

adamw_status check_device(const char *function, int32_t device) {
  const Backend *backend = backend_of(device);
  if (backend != nullptr) return backend->check_device(function, device);
  return fail(ADAMW_ERROR_UNSUPPORTED,
              "%s: options.device = %d, but this library is the CPU build: load libadamw_cuda12 or libadamw_cuda13, or "
              "pass -1 and host memory",
              function, device);
}

adamw_status check_step_options(const adamw_step_options *options, adamw_step_options &o) {
  if (adamw_status s = read_options(step_name, options, ADAMW_STEP_OPTIONS_INIT, o)) return s;
  const auto bad = [](const char *field, double value, const char *need) {
    return invalid(step_name, field, value, need);
  };
  if (!is_finite_at_least_zero(o.lr)) return bad("lr", o.lr, "finite and at least 0");
  if (!(o.beta1 >= 0.0 && o.beta1 < 1.0)) return bad("beta1", o.beta1, "in [0, 1)");
  if (!(o.beta2 >= 0.0 && o.beta2 < 1.0)) return bad("beta2", o.beta2, "in [0, 1)");
  if (!is_finite_at_least_zero(o.eps)) return bad("eps", o.eps, "finite and at least 0");
  if (!is_finite_at_least_zero(o.weight_decay)) return bad("weight_decay", o.weight_decay, "finite and at least 0");
  if (!is_finite_at_least_zero(o.max_unorm)) return bad("max_unorm", o.max_unorm, "0 (off) or finite and above 0");
  if (!is_dtype(o.param_dtype)) return bad("param_dtype", o.param_dtype, "an adamw_dtype");
  if (!is_dtype(o.grad_dtype)) return bad("grad_dtype", o.grad_dtype, "an adamw_dtype");
  if (!is_state_format(o.state_format)) {
    return bad("state_format", o.state_format, "an adamw_state_format");
  }
  if ((o.flags & ~known_flags) != 0) return bad("flags", o.flags, "adamw_step_flags, or-ed");
  if (o.percentile_clipping < 1 || o.percentile_clipping > 100) {
    return bad("percentile_clipping", o.percentile_clipping, "in 1 ... 100 (100 is off)");
  }
  if (!is_remainder(o.remainder_bits)) return bad("remainder_bits", o.remainder_bits, "0 (off), 8 or 16");
  if (o.remainder_bits != 0 && o.param_dtype != ADAMW_BFLOAT16) {
    return bad("remainder_bits", o.remainder_bits, "0 unless param_dtype is ADAMW_BFLOAT16");
  }
  if (adamw_status s = check_place(step_name, o.device, o.num_threads)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.grad_scale", o.grad_scale, 0, 4)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.found_inf", o.found_inf, 0, 4)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.skipped", o.skipped, 0, 8)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.lr_tensor", o.lr_tensor, 0, 4)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.rows_stepped", o.rows_stepped, 0, 8)) return s;
  if (adamw_status s = check_buffer(step_name, -1, "options.grad_factor", o.grad_factor, 0, 4)) return s;
  if (o.pager != nullptr && o.pager->options().device != o.device) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: options.device = %d, but options.pager is for device %d: steps take a pager of their own device",
                step_name, o.device, o.pager->options().device);
  }
  if (o.device >= 0) return ADAMW_OK;  // the host cannot read what these point to
  if (o.lr_tensor != nullptr && !is_finite_at_least_zero(static_cast<double>(*o.lr_tensor))) {
    return bad("lr_tensor[0]", static_cast<double>(*o.lr_tensor), "finite and at least 0");
  }
  if (o.grad_scale != nullptr && !(*o.grad_scale > 0.0f && std::isfinite(*o.grad_scale))) {
    return bad("grad_scale[0]", *o.grad_scale, "finite and above 0");
  }
  if (o.grad_factor != nullptr && (*o.grad_factor < 0.0f || std::isinf(*o.grad_factor))) {
    return bad("grad_factor[0]", *o.grad_factor, "finite and at least 0, or a NaN");
  }
  return ADAMW_OK;
}

adamw_status check_norm_options(const adamw_norm_options *options, adamw_norm_options &o) {
  if (adamw_status s = read_options(norm_name, options, ADAMW_NORM_OPTIONS_INIT, o)) return s;
  return check_place(norm_name, o.device, o.num_threads);
}

adamw_status check_clip_options(const adamw_clip_options *options, adamw_clip_options &o) {
  if (adamw_status s = read_options(clip_name, options, ADAMW_CLIP_OPTIONS_INIT, o)) return s;
  if (!(o.max_norm >= 0.0)) return invalid(clip_name, "max_norm", o.max_norm, "at least 0");
  if (o.reserved != 0) return invalid(clip_name, "reserved", o.reserved, "0");
  if (adamw_status s = check_place(clip_name, o.device, 0)) return s;
  if (adamw_status s = check_buffer(clip_name, -1, "options.grad_scale", o.grad_scale, 0, 4)) return s;
  if (o.device < 0 && o.grad_scale != nullptr && !(*o.grad_scale > 0.0f && std::isfinite(*o.grad_scale))) {
    return invalid(clip_name, "grad_scale[0]", *o.grad_scale, "finite and above 0");
  }
  return ADAMW_OK;
}

adamw_status refuse_buffer(const char *function, int64_t row, const char *field, const void *pointer, int64_t bytes,
                           size_t alignment) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  char where[32] = "";
  if (row >= 0) std::snprintf(where, sizeof where, "tensor %" PRId64 ": ", row);
  if (pointer == nullptr && bytes > 0) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s%s is NULL: must point to %" PRId64 " bytes", function, where,
                field, bytes);
  }
  if ((address & (alignment - 1)) != 0) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s%s = %p is misaligned: must be a multiple of %zu bytes", function,
                where, field, pointer, alignment);
  }
  return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s%s = %p: the %" PRId64 " bytes from there pass the end of memory",
              function, where, field, pointer, bytes);
}

adamw_status check_layout(const char *function, int64_t numel, int64_t row_length) {
  if (numel < 0 || numel > max_bytes / 16) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: numel = %" PRId64 ": must be in 0 ... 2^58", function, numel);
  }
  if (numel == 0) return ADAMW_OK;
  if (row_length < 1 || row_length > numel || numel % row_length != 0) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: row_length = %" PRId64 ": must divide numel = %" PRId64
                " (numel / size(0), or numel for one dimension)",
                function, row_length, numel);
  }
  return ADAMW_OK;
}

adamw_status check_quantize_options(const char *function, const adamw_quantize_options *options,
                                    adamw_quantize_options &o) {
  if (adamw_status s = read_options(function, options, ADAMW_QUANTIZE_OPTIONS_INIT, o)) return s;
  const auto bad = [=](const char *field, double value, const char *need) {
    return invalid(function, field, value, need);
  };
  if (o.moment != ADAMW_MOMENT_EXP_AVG && o.moment != ADAMW_MOMENT_EXP_AVG_SQ)
    return bad("moment", o.moment, "an adamw_moment");
  if (!is_state_format(o.state_format) || !traits(static_cast<adamw_state_format>(o.state_format)).has_scales()) {
    return bad("state_format", o.state_format, "ADAMW_STATE_BLOCK8 or ADAMW_STATE_TENSOR8");
  }
  if (o.rounding != ADAMW_ROUND_NEAREST && o.rounding != ADAMW_ROUND_STOCHASTIC)
    return bad("rounding", o.rounding, "an adamw_rounding");
  if (adamw_status s = check_place(function, o.device, o.num_threads)) return s;
  if (o.reserved != 0) return bad("reserved", o.reserved, "0");
  if (adamw_status s = check_layout(function, o.numel, o.row_length)) return s;
  return check_key(function, o.step, o.global_offset, o.numel);
}

adamw_status check_split_options(const char *function, const adamw_split_options *options, adamw_split_options &o) {
  if (adamw_status s = read_options(function, options, ADAMW_SPLIT_OPTIONS_INIT, o)) return s;
  if (o.remainder_bits == 0 || !is_remainder(o.remainder_bits))
    return invalid(function, "remainder_bits", o.remainder_bits, "8 or 16");
  if (o.rounding != ADAMW_ROUND_NEAREST && o.rounding != ADAMW_ROUND_STOCHASTIC)
    return invalid(function, "rounding", o.rounding, "an adamw_rounding");
  if (adamw_status s = check_place(function, o.device, o.num_threads)) return s;
  if (adamw_status s = check_layout(function, o.numel, o.numel)) return s;
  return check_key(function, o.step, o.global_offset, o.numel);
}

}  // namespace adamw
