// Owns the checks of the rows of a step: each row alone, then that no two of their buffers overlap. Knows no device and
// writes no caller's memory.
#include <cinttypes>
#include <utility>
#include <vector>

#include "../formats.h"
#include "../numerics/layout.h"
#include "../status.h"
#include "overlap_cache.h"

namespace adamw {
namespace {

// How the elements lie in the unsharded tensor. bad(field, value, need) refuses. `global_offset` is right.
template <class Bad>
adamw_status check_runs(const adamw_tensor &t, const Bad &bad) {
  const int64_t length = t.run_length, stride = t.run_stride;
  if (length == 0) return stride == 0 ? ADAMW_OK : bad("run_stride", stride, "0 where run_length is 0");
  if (length < 0 || t.numel % length != 0) return bad("run_length", length, "0 or a divisor of numel");
  if (stride < length) return bad("run_stride", stride, "at least run_length");
  const int64_t others = t.numel / length - 1;
  if (others > 0 && stride > (max_bytes - t.global_offset - length) / others)
    return bad("run_stride", stride, "such that the last index is below 2^62");
  return ADAMW_OK;
}

// No block lies in two runs: each has one index from which the others follow. The row has elements and a right
// row_length.
template <class Bad>
adamw_status check_blocks_of_runs(const adamw_tensor &t, const Bad &bad) {
  const BlockLayout blocks = block_layout(t.numel, t.row_length);
  const int64_t unit = blocks.blocks_per_row > 0 ? blocks.row_length : block_size;
  if (t.run_length == t.numel || t.run_length % unit == 0) return ADAMW_OK;
  return bad("run_length", t.run_length,
             unit == block_size ? "numel or a multiple of 256: no block may lie in two runs"
                                : "a multiple of row_length: no block may lie in two runs");
}

// Checks every field of every row, and hands each stretch of memory that the call uses to take.written(row, field,
// begin, end) or take.read(...), always in the same order. Ends early, with nothing said, where take.ends() asks for
// it.
template <class Take>
adamw_status over_stretches(const adamw_step_options &options, const adamw_tensor *tensors, int64_t count, Take &take) {
  const FormatTraits format = traits(static_cast<adamw_state_format>(options.state_format));
  const bool amsgrad = (options.flags & ADAMW_STEP_AMSGRAD) != 0;
  const int64_t param_size = traits(static_cast<adamw_dtype>(options.param_dtype)).bytes,
                grad_size = traits(static_cast<adamw_dtype>(options.grad_dtype)).bytes;
  const int64_t remainder = options.remainder_bits / 8;
  const int64_t history = options.percentile_clipping < 100 ? ADAMW_GNORM_HISTORY : 0;
  const std::pair<const void *, const char *> counters[] = {{options.skipped, "options.skipped"},
                                                            {options.rows_stepped, "options.rows_stepped"}};
  for (const auto &[pointer, field] : counters) {
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
    if (pointer != nullptr) take.written(-1, field, begin, begin + 8);
  }
  for (int64_t i = 0; i < count && !take.ends(); ++i) {
    const adamw_tensor &t = tensors[i];
    const auto bad = [i](const char *field, int64_t value, const char *need) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: tensor %" PRId64 ": %s = %" PRId64 ": must be %s", step_name, i,
                  field, value, need);
    };
    if (t.numel < 0 || t.numel > max_bytes / 16) return bad("numel", t.numel, "in 0 ... 2^58");
    if (t.step_tensor != nullptr) {
      if (adamw_status s = check_buffer(step_name, i, "step_tensor", t.step_tensor, 4, 4)) return s;
      if (options.device < 0 && !(*t.step_tensor >= 1.0f && *t.step_tensor < 9e18f)) {
        return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                    "%s: tensor %" PRId64 ": step_tensor[0] = %.9g: must be at least 1, the first step, and below 9e18",
                    step_name, i, static_cast<double>(*t.step_tensor));
      }
      const auto begin = reinterpret_cast<std::uintptr_t>(t.step_tensor);
      take.read(i, "step_tensor", begin, begin + 4);
    } else if (t.step < 1) {
      return bad("step", t.step, "at least 1, the first step");
    }
    if (t.global_offset < 0 || t.global_offset > max_bytes - t.numel)
      return bad("global_offset", t.global_offset, "in 0 ... 2^62 - numel");
    if ((t.run_length | t.run_stride) != 0) {
      if (adamw_status s = check_runs(t, bad)) return s;
    }
    if (t.numel == 0) continue;
    if (t.row_length != t.numel && (t.row_length < 1 || t.row_length > t.numel || t.numel % t.row_length != 0)) {
      return bad("row_length", t.row_length, "a divisor of numel (numel / size(0), or numel for one dimension)");
    }
    if (t.run_length != 0) {
      if (adamw_status s = check_blocks_of_runs(t, bad)) return s;
    }
    const int64_t scales = format.has_scales() ? format.scales(block_layout(t.numel, t.row_length)) : 0;
    const auto checked = [i](const char *field, const void *pointer, int64_t bytes, int64_t size) {
      return check_buffer(step_name, i, field, pointer, bytes, static_cast<size_t>(size));
    };
    const auto written = [&](const char *field, const void *pointer, int64_t number, int64_t size) {
      if (number == 0) return ADAMW_OK;  // none is needed
      if (adamw_status s = checked(field, pointer, number * size, size)) return s;
      const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
      take.written(i, field, begin, begin + static_cast<std::uintptr_t>(number * size));
      return ADAMW_OK;
    };
    if (adamw_status s = written("param", t.param, t.numel, param_size)) return s;
    if (adamw_status s = checked("grad", t.grad, t.numel * grad_size, grad_size)) return s;
    const auto grad = reinterpret_cast<std::uintptr_t>(t.grad);
    take.read(i, "grad", grad, grad + static_cast<std::uintptr_t>(t.numel * grad_size));
    adamw_status state = ADAMW_OK;
    for_each_moment(
        amsgrad,
        [&](const char *name, const void *moment) {
          if (state == ADAMW_OK) state = written(name, moment, t.numel, format.bytes);
        },
        moment_names, moments_of(t));
    for_each_scale(amsgrad, [&](const char *name, ScaleField field) {
      if (state == ADAMW_OK) state = written(name, t.*field, scales, 4);
    });
    if (state != ADAMW_OK) return state;
    if (remainder != 0) {
      if (adamw_status s = written("param_remainder", t.param_remainder, t.numel, remainder)) return s;
    }
    if (adamw_status s = written("gnorm_history", t.gnorm_history, history, 4)) return s;
  }
  const std::pair<const void *, const char *> scalars[] = {{options.grad_scale, "options.grad_scale"},
                                                           {options.found_inf, "options.found_inf"},
                                                           {options.lr_tensor, "options.lr_tensor"},
                                                           {options.grad_factor, "options.grad_factor"}};
  for (const auto &[pointer, field] : scalars) {
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
    if (pointer != nullptr) take.read(-1, field, begin, begin + 4);
  }
  return ADAMW_OK;
}

// All stretches of a call, with their names.
struct Listed {
  std::vector<Interval> &all_written, &all_read;
  static constexpr bool ends() { return false; }
  void written(int64_t row, const char *field, std::uintptr_t begin, std::uintptr_t end) {
    all_written.push_back({begin, end, row, field});
  }
  void read(int64_t row, const char *field, std::uintptr_t begin, std::uintptr_t end) {
    all_read.push_back({begin, end, row, field});
  }
};

// Whether a call is right because one before it was. No name is looked at.
struct Recognized {
  OverlapCache::Comparison comparison;
  bool ends() const { return !comparison.valid_so_far(); }
  void written(int64_t, const char *, std::uintptr_t begin, std::uintptr_t end) { comparison.written(begin, end); }
  void read(int64_t, const char *, std::uintptr_t begin, std::uintptr_t end) { comparison.read(begin, end); }
};

}  // namespace

adamw_status check_rows(const adamw_step_options &options, const adamw_tensor *tensors, int64_t count,
                        CheckMemory &memory) {
  if (count == 0) return ADAMW_OK;
  OverlapCache *const seen = memory.tables.find(tensors[0].param, count);
  if (seen != nullptr) {
    Recognized recognized{seen->compare()};
    if (adamw_status s = over_stretches(options, tensors, count, recognized)) return s;
    if (recognized.comparison.valid()) return ADAMW_OK;
  }
  Listed listed{memory.written, memory.read};
  const std::vector<Interval> &written = listed.all_written, &read = listed.all_read;
  listed.all_written.clear();
  listed.all_read.clear();
  if (adamw_status s = over_stretches(options, tensors, count, listed)) return s;
  const std::vector<Interval> sorted = by_address(written.data(), written.size());
  if (adamw_status s = check_overlap(step_name, sorted, by_address(read.data(), read.size()))) return s;
  if (seen == nullptr) return ADAMW_OK;
  seen->take(written, sorted);
  memory.tables.make_room(seen);
  return ADAMW_OK;
}

}  // namespace adamw
