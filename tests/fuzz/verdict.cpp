// Owns the second opinion on steps and quantization, see verdict.h. It reads a call's table and scalars, never tensors.
#include "verdict.h"

#include <algorithm>
#include <cmath>

namespace {

// A scalar of a call that is there, and can be read.
bool readable(const float *p) { return p != nullptr && reinterpret_cast<std::uintptr_t>(p) % alignof(float) == 0; }
bool at_least_zero(double x) { return std::isfinite(x) && x >= 0; }

// Collects what a call uses, and what is wrong with each.
class Stretches {
 public:
  Statuses errors = 0;
  std::vector<Stretch> all;

  void use(const void *pointer, Wide number, std::int64_t size, bool written) {
    if (number == 0) return;
    const auto address = reinterpret_cast<std::uintptr_t>(pointer);
    const Wide end = Wide{address} + number * size;
    if (pointer == nullptr || address % static_cast<std::uintptr_t>(size) != 0 || end > Wide{UINTPTR_MAX})
      errors |= invalid;
    all.push_back({Wide{address}, end, written});
  }
  void use_if_given(const void *pointer, std::int64_t size, bool written) {
    if (pointer != nullptr) use(pointer, 1, size, written);
  }
  void judge() {
    std::sort(all.begin(), all.end(), [](const Stretch &a, const Stretch &b) { return a.begin < b.begin; });
    Wide written_to = -1, used_to = -1;
    for (const Stretch &s : all) {
      if (s.begin < written_to || (s.written && s.begin < used_to)) errors |= invalid;
      used_to = std::max(used_to, s.end);
      if (s.written) written_to = std::max(written_to, s.end);
    }
  }
};

bool blocks_follow_rows(std::int64_t numel, std::int64_t row_length) {
  return row_length >= 64 && row_length % ADAMW_BLOCK_SIZE != 0 && row_length < numel;
}

bool row_length_is_right(std::int64_t numel, std::int64_t row_length) {
  return numel == 0 || (row_length > 0 && numel % row_length == 0);
}

Statuses run_errors(const adamw_tensor &t) {
  if (t.run_length == 0) return t.run_stride == 0 ? 0 : invalid;
  if (t.run_length < 0 || t.run_stride < t.run_length) return invalid;
  if (t.numel == 0) return 0;
  if (t.run_length > t.numel || t.numel % t.run_length != 0) return invalid;
  const Wide runs = t.numel / t.run_length;
  if (Wide{t.global_offset} + (runs - 1) * t.run_stride + t.run_length > Wide{max_index}) return invalid;
  if (t.run_length == t.numel || !row_length_is_right(t.numel, t.row_length)) return 0;
  const std::int64_t unit = blocks_follow_rows(t.numel, t.row_length) ? t.row_length : ADAMW_BLOCK_SIZE;
  return t.run_length % unit == 0 ? 0 : invalid;
}

Statuses option_errors(const adamw_step_options &o) {
  Statuses errors = 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  need(at_least_zero(o.lr));
  need(o.beta1 >= 0 && o.beta1 < 1);
  need(o.beta2 >= 0 && o.beta2 < 1);
  need(at_least_zero(o.eps));
  need(at_least_zero(o.weight_decay));
  need(at_least_zero(o.max_unorm));
  need(o.param_dtype >= 0 && o.param_dtype <= 2 && o.grad_dtype >= 0 && o.grad_dtype <= 2);
  need(o.state_format >= 0 && o.state_format <= 3);
  need(o.flags < 16);
  need(o.percentile_clipping >= 1 && o.percentile_clipping <= 100);
  need(o.device >= -1);
  need(o.num_threads >= 0);
  need(o.remainder_bits == 0 || ((o.remainder_bits == 8 || o.remainder_bits == 16) && o.param_dtype == ADAMW_BFLOAT16));
  if (o.device >= 0) errors |= unsupported | (o.pager != nullptr ? invalid : 0);
  const auto read = [](const float *pointer) { return static_cast<double>(*pointer); };
  if (readable(o.lr_tensor)) need(at_least_zero(read(o.lr_tensor)));
  if (readable(o.grad_scale)) need(std::isfinite(read(o.grad_scale)) && read(o.grad_scale) > 0);
  if (readable(o.grad_factor)) need(std::isnan(*o.grad_factor) || at_least_zero(read(o.grad_factor)));
  return errors;
}

// Also collects the row's stretches. `o` is right where it says how large things are.
Statuses row_errors(const adamw_step_options &o, const adamw_tensor &t, const StepCall &call, Stretches &used) {
  Statuses errors = 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  if (t.step_tensor != nullptr) {
    used.use(t.step_tensor, 1, 4, false);
    if (reinterpret_cast<std::uintptr_t>(t.step_tensor) % 4 == 0) need(*t.step_tensor >= 1 && *t.step_tensor < 9e18f);
  } else {
    need(t.step >= 1);
  }
  need(t.numel >= 0 && t.numel <= max_numel);
  need(t.global_offset >= 0 && Wide{t.global_offset} + std::max<std::int64_t>(t.numel, 0) <= Wide{max_index});
  if (errors != 0) return errors;
  errors |= run_errors(t);
  if (t.numel == 0) return errors;
  need(row_length_is_right(t.numel, t.row_length));
  if (errors != 0) return errors;
  const bool amsgrad = (o.flags & ADAMW_STEP_AMSGRAD) != 0;
  const Layout l = layout_of(o.state_format, t.numel, t.row_length, amsgrad);
  const auto size = static_cast<std::int64_t>(l.moment_bytes / t.numel), rest = std::int64_t{o.remainder_bits} / 8;
  used.use(t.param, t.numel, static_cast<std::int64_t>(dtype_bytes(o.param_dtype)), true);
  used.use(t.grad, t.numel, static_cast<std::int64_t>(dtype_bytes(o.grad_dtype)), false);
  if (o.percentile_clipping < 100) used.use(t.gnorm_history, ADAMW_GNORM_HISTORY, 4, true);
  const auto state = [&](const void *pointer, Wide number, std::int64_t bytes) {
    used.use(pointer, number, bytes, true);
    const auto *p = static_cast<const std::uint8_t *>(pointer);
    for (const PagerBuffer &b : call.paged)
      if (p >= b.at && p < b.at + b.bytes) need(number * bytes <= Wide{b.at + b.bytes - p});
  };
  if (rest != 0) state(t.param_remainder, t.numel, rest);
  state(t.exp_avg, t.numel, size);
  state(t.exp_avg_sq, t.numel, size);
  state(t.exp_avg_absmax, l.scales, 4);
  state(t.exp_avg_sq_absmax, l.scales, 4);
  state(t.exp_avg_sq_floor, l.scales, 4);
  if (amsgrad) state(t.max_exp_avg_sq, t.numel, size);
  if (amsgrad) state(t.max_exp_avg_sq_absmax, l.scales, 4);
  if (amsgrad) state(t.max_exp_avg_sq_floor, l.scales, 4);
  return errors;
}

}  // namespace

std::size_t dtype_bytes(std::int32_t dtype) { return dtype == ADAMW_FLOAT32 ? 4 : 2; }

Layout layout_of(std::int32_t format, std::int64_t numel, std::int64_t row_length, bool amsgrad,
                 std::int32_t remainder_bits) {
  Layout l{};
  const bool block8 = format == ADAMW_STATE_BLOCK8, follow = blocks_follow_rows(numel, row_length);
  const auto blocks = [](Wide elements) { return (elements + ADAMW_BLOCK_SIZE - 1) / ADAMW_BLOCK_SIZE; };
  l.moment_bytes = Wide{numel} * (format == ADAMW_STATE_FLOAT32 ? 4 : format == ADAMW_STATE_BFLOAT16 ? 2 : 1);
  l.remainder_bytes = Wide{numel} * remainder_bits / 8;
  if (block8) l.scales = follow ? numel / row_length * blocks(row_length) : blocks(numel);
  if (format == ADAMW_STATE_TENSOR8) l.scales = numel > 0 ? 1 : 0;
  l.blocks_per_row = block8 && follow ? blocks(row_length) : 0;
  l.total_bytes =
      (l.moment_bytes + 4 * l.scales) * (amsgrad ? 3 : 2) + 4 * l.scales * (amsgrad ? 2 : 1) + l.remainder_bytes;
  return l;
}

Statuses layout_errors(std::int32_t format, std::int64_t numel, std::int64_t row_length, std::int32_t remainder_bits,
                       const void *layout) {
  const bool right = layout != nullptr && format >= 0 && format <= 3 && numel >= 0 && numel <= max_numel &&
                     row_length_is_right(numel, row_length);
  return right && (remainder_bits == 0 || remainder_bits == 8 || remainder_bits == 16) ? 0 : invalid;
}

Statuses step_errors(const StepCall &call, std::vector<Stretch> *stretches) {
  Statuses errors = size_errors(call.tensor_size, 128) | (call.unknown ? version : 0);
  if (call.options == nullptr) return errors | invalid;
  const adamw_step_options &o = *call.options;
  if (o.size != sizeof o) return errors | version;
  errors |= option_errors(o);
  if (call.count < 0 || call.count > std::int64_t{1} << 54 || (call.count > 0 && call.tensors == nullptr))
    errors |= invalid;
  if (reinterpret_cast<std::uintptr_t>(call.tensors) % alignof(adamw_tensor) != 0)
    errors |= call.count > 0 ? invalid : either;
  Stretches used;
  used.use_if_given(o.grad_scale, 4, false);
  used.use_if_given(o.found_inf, 4, false);
  used.use_if_given(o.lr_tensor, 4, false);
  used.use_if_given(o.grad_factor, 4, false);
  used.use_if_given(o.skipped, 8, true);
  used.use_if_given(o.rows_stepped, 8, true);
  if (errors == 0) {  // else the table may be anything
    bool work = false;
    for (std::int64_t i = 0; i < call.count; ++i) {
      errors |= row_errors(o, call.tensors[i], call, used);
      work = work || call.tensors[i].numel > 0;
    }
    const bool norms = o.max_unorm > 0 || o.state_format == ADAMW_STATE_TENSOR8;
    if (norms && !call.paged.empty()) errors |= unsupported | ok;  // all tensors are small; so are all windows
    if (call.kernel_missing) errors |= work ? unsupported : unsupported | ok;
  }
  used.judge();
  if (used.errors != 0) errors |= call.count == 0 ? either : used.errors;  // a call that does nothing
  *stretches = used.all;
  return errors;
}

Statuses size_errors(std::size_t size, std::size_t least) {
  return size % 8 == 0 && size >= least && size <= 4096 ? 0 : version;
}

Statuses quantize_errors(const QuantizeCall &call) {
  if (call.options == nullptr) return invalid;
  const adamw_quantize_options &o = *call.options;
  if (o.size != sizeof o) return version;
  Statuses errors = call.unknown ? version : 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  need(o.moment == ADAMW_MOMENT_EXP_AVG || o.moment == ADAMW_MOMENT_EXP_AVG_SQ);
  need(o.state_format == ADAMW_STATE_BLOCK8 || o.state_format == ADAMW_STATE_TENSOR8);
  need(o.rounding == ADAMW_ROUND_NEAREST || o.rounding == ADAMW_ROUND_STOCHASTIC);
  need(o.device >= -1);
  if (o.device >= 0) errors |= unsupported;
  need(o.num_threads >= 0);
  need(o.reserved == 0);
  need(o.step >= 0);
  need(o.numel >= 0 && o.numel <= max_numel);
  // There are no runs here: the last index is below 2^62.
  need(o.global_offset >= 0 && Wide{o.global_offset} + std::max<std::int64_t>(o.numel, 0) <= Wide{max_index});
  need(row_length_is_right(o.numel, o.row_length));
  if (call.kernel_missing) errors |= o.numel > 0 ? unsupported : unsupported | ok;
  if (o.numel <= 0 || (errors & (invalid | version)) != 0) return errors;
  const Layout l = layout_of(o.state_format, o.numel, o.row_length, false);
  Stretches used;
  used.use(call.floats, o.numel, 4, call.floats_written);
  used.use(call.codes, o.numel, 1, !call.floats_written);
  used.use(call.absmax, l.scales, 4, !call.floats_written);
  if (o.moment == ADAMW_MOMENT_EXP_AVG_SQ) used.use(call.floor, l.scales, 4, !call.floats_written);
  used.judge();
  return errors | used.errors;
}

Statuses split_errors(const SplitCall &call) {
  if (call.options == nullptr) return invalid;
  const adamw_split_options &o = *call.options;
  if (o.size != sizeof o) return version;
  Statuses errors = call.unknown ? version : 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  need(o.remainder_bits == 8 || o.remainder_bits == 16);
  need(o.rounding == ADAMW_ROUND_NEAREST || o.rounding == ADAMW_ROUND_STOCHASTIC);
  need(o.device >= -1);
  if (o.device >= 0) errors |= unsupported;
  need(o.num_threads >= 0);
  need(o.step >= 0);
  need(o.numel >= 0 && o.numel <= max_numel);
  need(o.global_offset >= 0 && Wide{o.global_offset} + std::max<std::int64_t>(o.numel, 0) <= Wide{max_index});
  if (call.kernel_missing) errors |= o.numel > 0 ? unsupported : unsupported | ok;
  if (o.numel <= 0 || (errors & (invalid | version)) != 0) return errors;
  Stretches used;
  used.use(call.weights, o.numel, 4, call.weights_written);
  used.use(call.param, o.numel, 2, !call.weights_written);
  used.use(call.remainder, o.numel, o.remainder_bits / 8, !call.weights_written);
  used.judge();
  return errors | used.errors;
}

Statuses norm_errors(const NormCall &call) {
  Statuses errors = size_errors(call.gradient_size, 24) | (call.unknown ? version : 0);
  if (call.options == nullptr) return errors | invalid;
  const adamw_norm_options &o = *call.options;
  if (o.size != sizeof o) return errors | version;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  need(o.device >= -1);
  if (o.device >= 0) errors |= unsupported;
  need(o.num_threads >= 0);
  need(call.count >= 0 && call.count <= std::int64_t{1} << 54 && (call.count == 0 || call.gradients != nullptr));
  Stretches used;
  used.use(call.squares, 1, 8, true);
  bool work = false;
  for (std::int64_t i = 0; errors == 0 && i < call.count; ++i) {
    const adamw_gradient &g = call.gradients[i];
    need(g.numel >= 0 && g.numel <= max_numel);
    need(g.dtype >= 0 && g.dtype <= 2);
    need(g.reserved == 0);
    if (errors != 0) break;
    const auto size = static_cast<std::int64_t>(dtype_bytes(g.dtype));
    used.use(g.grad, g.numel, size, false);
    const bool aligned = reinterpret_cast<std::uintptr_t>(g.grad) % static_cast<std::uintptr_t>(size) == 0;
    need(aligned);  // even if nothing is read there
    work = work || g.numel > 0;
  }
  used.judge();
  errors |= used.errors;
  if (call.kernel_missing) errors |= work || errors != 0 ? unsupported : unsupported | ok;
  return errors;
}

Statuses clip_errors(const ClipCall &call) {
  if (call.options == nullptr) return invalid;
  const adamw_clip_options &o = *call.options;
  if (o.size != sizeof o) return version;
  Statuses errors = call.unknown ? version : 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  need(o.max_norm >= 0);
  need(o.reserved == 0);
  need(o.device >= -1);
  if (o.device >= 0) errors |= unsupported;
  need(call.count >= 1 && call.count <= 4096);
  if (readable(o.grad_scale)) need(std::isfinite(*o.grad_scale) && *o.grad_scale > 0);
  Stretches used;
  used.use(call.squares, std::clamp<std::int64_t>(call.count, 1, 4096), 8, false);
  used.use_if_given(o.grad_scale, 4, false);
  used.use_if_given(call.norm, 4, true);
  used.use(call.factor, 1, 4, true);
  used.judge();
  return errors | used.errors;
}

Statuses pager_create_errors(const adamw_pager_options *options, const void *pager) {
  if (pager == nullptr || options == nullptr) return invalid;
  const adamw_pager_options &o = *options;
  if (o.size != sizeof o) return version;
  Statuses errors = 0;
  const auto need = [&](bool right) { errors |= right ? 0 : invalid; };
  const bool file = o.backing == ADAMW_PLACE_FILE, on_cpu = file || o.backing == ADAMW_PLACE_HOST;
  need(o.backing >= ADAMW_PLACE_HOST && o.backing <= ADAMW_PLACE_MANAGED);
  need(o.device >= -1 && (o.device == -1) == on_cpu);
  if (o.device >= 0) errors |= unsupported;
  need(o.resident_bytes >= 0);
  need(o.chunk_bytes == 0 || (o.chunk_bytes >= 65536 && o.chunk_bytes <= std::int64_t{1} << 40));
  need(o.reserve_bytes >= 0 && (file || o.reserve_bytes == 0));
  need(file || o.directory == nullptr);
  if (errors == 0 && file) {
    const Wide chunk = (Wide{o.chunk_bytes == 0 ? 65536 : o.chunk_bytes} + 4095) / 4096 * 4096;
    need(o.resident_bytes == 0 || o.resident_bytes >= 4 * chunk);
    // More than a disk has, or than a file can be.
    if (o.reserve_bytes > std::int64_t{1} << 36)
      errors |= no_storage | (o.reserve_bytes > std::int64_t{1} << 60 ? invalid : 0);
  }
  return errors;
}
