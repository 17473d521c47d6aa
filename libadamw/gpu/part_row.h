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
  advance(t.param, begin * traits(kind.param_dtype).bytes);
  if (kind.remainder_bits != 0) advance(t.param_remainder, begin * kind.remainder_bytes());
  advance(t.grad, begin * traits(kind.grad_dtype).bytes);
  for_each_moment(
      kind.amsgrad, [&](auto moment) { advance(t.*moment, begin * traits(kind.state_format).bytes); }, moment_fields);
  for_each_scale(kind.amsgrad, [&](const char *, ScaleField scales) { advance(t.*scales, part.first * 4); });
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
