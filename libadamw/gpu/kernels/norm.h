// Owns the norm of all gradients: their sum of squares, in the order that sums.h fixes, and the factor that follows.
#pragma once

#include "passes.h"

namespace adamw {
namespace gpu {
namespace {

// A block's elements as floats, each where Share says. Element by element, if the memory is not aligned or the block is
// short; what is beyond n is 0.
template <class Dtype, class Share>
ADAMW_DEVICE void load_positions(float *x, const void *base, std::int64_t begin, int n, unsigned lane, bool aligned) {
  if (aligned && n == block_size) return load_floats<Dtype, Share>(x, base, begin, n, lane);
  for (int j = 0; j < each; ++j) {
    const int i = Share::index(lane, j);
    if constexpr (Dtype::size == 4) {
      x[j] = i < n ? *at<float>(base, begin + i) : 0.0f;
    } else {
      x[j] = i < n ? Dtype::low(*at<std::uint16_t>(base, begin + i)) : 0.0f;
    }
  }
}

// sums.h's sum_of_positions(), of those that all lanes have. A lane of Fours has two positions that are half a block
// apart, one of Eights has neighbours only.
template <class Share>
ADAMW_DEVICE double sum_of_positions(double (&sums)[each]) {
  int own = each;
  if (Share::run == 4) {
    for (int j = 0; j < 4; ++j) sums[j] += sums[j + 4];
    own = 4;
  }
  for (unsigned mask = 16; mask != 0; mask /= 2) {
    for (int j = 0; j < own; ++j) sums[j] += shuffle_xor(sums[j], mask);
  }
  for (int width = own / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) sums[j] += sums[j + width];
  }
  return sums[0];
}

struct Squares {
  const SquaresHead &head;
  const SquaresRow *rows;
  unsigned lane;
  int number = 0;
  Segments segments{};

  ADAMW_DEVICE void enter(int row) {
    number = row;
    segments = segments_of(blocks_in(rows[row].numel));
  }

  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) item(first);
  }

 private:
  template <class Dtype>
  ADAMW_DEVICE double sum(std::uint32_t segment) const {
    using Share = typename Widest<Dtype::size == 2>::Share;
    const SquaresRow &row = rows[number];
    double sums[each] = {};
    for (std::int64_t block = segments.begin(segment); block < segments.begin(segment + 1); ++block) {
      const std::int64_t begin = block * block_size, rest = row.numel - begin;
      float x[each];
      load_positions<Dtype, Share>(x, row.grad, begin, static_cast<int>(rest < block_size ? rest : block_size), lane,
                                   row.aligned != 0);
      for (int j = 0; j < each; ++j) {
        const double wide = static_cast<double>(x[j]);
        sums[j] += wide * wide;  // the product is exact
      }
    }
    return sum_of_positions<Share>(sums);
  }

  ADAMW_DEVICE void item(std::uint32_t segment) {
    double *mine = head.parts + (number == 0 ? 0 : rows[number - 1].end);
    double all = 0.0;
#define ADAMW_CASE(value, Dtype) \
  if (rows[number].dtype == value) all = sum<Dtype>(segment);
    ADAMW_KERNEL_DTYPES(ADAMW_CASE)
#undef ADAMW_CASE
    if (lane == 0) mine[segment] = all;
    if (!last_to_arrive(&head.arrived[number], segments.count, lane)) return;
    const double of_row = warp_sum(segments.count, lane, [&](std::int64_t i) { return load_fresh(&mine[i]); });
    if (lane == 0) head.rows_before[number] = of_row;
    if (!last_to_arrive(head.rows_arrived, head.all_rows, lane)) return;
    const double *sums = head.sums;
    const double total = warp_sum(head.count, lane, [&](std::int64_t i) { return load_fresh(&sums[i]); });
    if (lane == 0) *head.squares = total;
  }
};

ADAMW_DEVICE void squares(const SquaresTable &table) {
  if (table.head.all_rows == 0) {
    *table.head.squares = 0.0;
    return;
  }
  Squares body{table.head, table.rows, lane_id()};
  Span span{};
  over_items<warps>(table.head.items, 1, table.rows, table.head.rows, span, body);
}

ADAMW_DEVICE void clip(const ClipTable &t) {
  if (block_id() != 0 || thread_id() != 0) return;
  double all = 0.0;
  for (std::int32_t i = 0; i < t.count; ++i) all += t.squares[i];
  const Clip clip = clip_of(all, t.grad_scale != nullptr ? static_cast<double>(*t.grad_scale) : 1.0, t.max_norm);
  if (t.norm != nullptr) *t.norm = clip.norm;
  *t.factor = clip.factor;
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
