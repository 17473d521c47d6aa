// Owns how the warps of a launch go through the rows of its table, and what they derive when they enter one.
#pragma once

#include "elements.h"
#include "quick.h"

namespace adamw {
namespace gpu {
namespace {

ADAMW_DEVICE unsigned warp_id() { return thread_id() / 32; }

// The items of the row that a warp is in.
struct Span {
  std::int64_t first, end;
};

// Calls body.enter(row) when a warp comes to another row, then body.item(k) for each of the row's items that are its
// own. Blocks of threads take chunks of 8 << shift neighbouring items and their warps every eighth of them, so that
// what is read together lies together. `span` may lie in shared memory; it is empty at first.
template <class Row, class Body>
ADAMW_DEVICE void over_items(std::int64_t items, int shift, const Row *rows, int row_count, Span &span, Body &body) {
  for (unsigned turn = 0;; ++turn) {
    const std::int64_t chunk = block_id() + static_cast<std::int64_t>(turn >> shift) * block_count();
    const std::int64_t item = (((chunk << shift) + (turn & ((1u << shift) - 1))) * warps) + warp_id();
    if (item >= items) return;  // they only grow
    if (item >= span.end || item < span.first) {
      int low = 0, high = row_count - 1;  // the first row that ends beyond the item
      while (low < high) {
        const int middle = (low + high) / 2;
        if (rows[middle].end <= item) {
          low = middle + 1;
        } else {
          high = middle;
        }
      }
      warp_barrier();  // all lanes have read the span: they may share one
      span = {low == 0 ? 0 : rows[low - 1].end, rows[low].end};
      warp_barrier();
      body.enter(low);
    }
    body.item(item - span.first);
  }
}

ADAMW_DEVICE bool found_inf(const float *flag) { return flag != nullptr && *flag != 0.0f; }

ADAMW_DEVICE std::int64_t step_number(const float *step) {
  const float number = *step;
  return number >= 1.0f ? static_cast<std::int64_t>(number) : 1;
}

ADAMW_NOINLINE Coefficients derived_coefficients(const LaunchHead &head, const LaunchRow &row) {
  Coefficients c = row.step != nullptr ? coefficients(head.hyperparameters, step_number(row.step)) : head.sets[row.set];
  if (head.lr != nullptr) set_lr(c, static_cast<double>(*head.lr), head.hyperparameters.weight_decay);
  return c;
}

// The coefficients of a row, with all factors that only the device knows.
ADAMW_DEVICE Coefficients row_coefficients(const LaunchHead &head, const LaunchRow &row, int number) {
  Coefficients c = head.on_device ? derived_coefficients(head, row) : head.sets[row.set];
  if (head.grad_scale != nullptr) c.gradient_scale = c.gradient_scale / *head.grad_scale;
  if (head.clipped) c.gradient_scale *= head.results[number].clip;
  if (head.measured) c.negative_step_size *= head.results[number].unorm;
  return c;
}

// What a warp knows of the row that it is in, in shared memory: registers are for the elements.
struct WarpRow {
  Span span;
  Coefficients c;
  BlockLayout blocks;
  std::int64_t plain_blocks;  // so many of a flat row, from its first, are whole, aligned and in quick.h's range
  int number;                 // of the row
  bool plain;                 // the row is aligned and in quick.h's range
  std::uint32_t state_group;  // Words' of c.state_key

  // By all lanes of the warp that `this` belongs to.
  ADAMW_DEVICE void enter(const LaunchHead &head, const LaunchRow &row, int number) {
    const Coefficients fresh = row_coefficients(head, row, number);
    warp_barrier();
    if (lane_id() == 0) {
      c = fresh;
      blocks = row.blocks();
      this->number = number;
      plain = row.aligned != 0 && !head.skip_zeros && quick_range(fresh);
      plain_blocks = plain && blocks.blocks_per_row == 0 ? row.numel / block_size : 0;
      state_group = group_key(fresh.state_key, 0);
    }
    warp_barrier();
  }

  // Whether the common path can take a block, and where it begins then.
  ADAMW_DEVICE bool common(std::int64_t block, std::int64_t *begin) const {
    if (block < plain_blocks) {
      *begin = block * block_size;
      return true;
    }
    const BlockLayout::Place place = blocks.place(block);
    *begin = place.begin;
    return plain && place.length == block_size;
  }
};

}  // namespace
}  // namespace gpu
}  // namespace adamw
