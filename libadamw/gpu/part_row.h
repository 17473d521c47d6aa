// Owns how a part of a row becomes a row, which is all that kernels know. Knows no launches and no windows.
#pragma once

#include <type_traits>

#include "../backend.h"

namespace adamw {
namespace gpu {

// A part of a row as a row of its own. Parts of layouts that follow rows are some whole rows, or lie in one.
inline Row part_row(const StepKind &kind, const Part &part) {
  const Row &from = *part.row;
  Row row = from;
  adamw_tensor &t = row.tensor;
  const BlockLayout &blocks = from.blocks;
  const std::int64_t begin = blocks.place(part.first).begin,
                     end = part.last == blocks.count ? t.numel : blocks.place(part.last).begin;
  const auto advance = [](auto *&p, std::int64_t bytes) {
    using P = std::remove_reference_t<decltype(p)>;
    if (p != nullptr) p = reinterpret_cast<P>(reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(bytes));
  };
  const auto bytes_of = [](adamw_dtype dtype) { return dtype == ADAMW_FLOAT32 ? 4 : 2; };
  const std::int64_t unit = kind.state_format == ADAMW_STATE_FLOAT32 ? 4 : 1;
  advance(t.param, begin * bytes_of(kind.param_dtype));
  advance(t.grad, begin * bytes_of(kind.grad_dtype));
  for (void **moment : {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq}) advance(*moment, begin * unit);
  for (float **scales : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax})
    advance(*scales, part.first * 4);
  t.numel = end - begin;
  t.row_length = blocks.blocks_per_row > 0 && t.numel > blocks.row_length ? blocks.row_length : t.numel;
  // Element 0 is in the middle of a run, as a rule; a part of one alone is none.
  t.global_offset = from.index(begin);
  if (from.runs.length != 0) {
    const std::int64_t in_run = (from.runs.begin + begin) % from.runs.length;
    if (in_run + t.numel <= from.runs.length) {
      row.runs = {};
    } else {
      t.global_offset -= in_run;
      row.runs.begin = in_run;
    }
  }
  row.blocks = block_layout(t.numel, t.row_length);
  return row;
}

}  // namespace gpu
}  // namespace adamw
