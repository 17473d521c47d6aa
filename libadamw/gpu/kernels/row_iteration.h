// Owns how the warps of a launch go through the rows of its table, and what they derive when they enter one.
#pragma once

#include "fast_div_sqrt.h"
#include "params.h"

namespace adamw {
namespace gpu {
namespace {

ADAMW_DEVICE unsigned warp_id() { return thread_id() / 32; }

// The items of the row that a warp is in. A launch has no more than max_items: counting them takes one register.
struct Span {
  std::uint32_t first, count;
  std::uint32_t start, stop, next;  // of the items that it goes through now
  std::int32_t row;                 // and of those after it are the next items
};

template <class Row, class Body>
ADAMW_DEVICE void enter_row(std::uint32_t item, const Row *rows, int row_count, Span &span, Body &body) {
  // The first row that ends beyond the item: as a rule the next, and never one before.
  int low = span.row, high = row_count - 1;
  if (rows[low].end <= item && ++low < high && rows[low].end <= item) {
    while (low < high) {
      const int middle = (low + high) / 2;
      if (rows[middle].end <= item) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
  }
  warp_barrier();  // all lanes have read the span: they may share one
  const std::uint32_t first = low == 0 ? 0u : static_cast<std::uint32_t>(rows[low - 1].end);
  span.first = first;
  span.count = static_cast<std::uint32_t>(rows[low].end) - first;
  span.row = low;
  warp_barrier();
  body.enter(low);
}

// Calls body.enter(row) when a warp comes to another row, then body.items(first, count, stride) for those of the row's
// items that are its own: first, first + stride, ... `span` may lie in shared memory; it is empty at first.
//
// `rounds` is 0: each warp takes one item of as many neighbours as the launch has warps, and then the next of as many.
// What is read at the same time lies together: with neighbours for each block of threads, fp32 with 8-bit state took 6
// to 13% longer on an H200 (tests/bench/results). But then every warp comes to nearly every row. Else a block of
// threads takes `rounds` times as many neighbours as it has warps, and is in fewer rows.
//
// With more Warps than most kernels have, the warps of a block go through a long row side by side: all have the same
// count. Where the block is in two rows at once, each warp goes alone: its stride is Warps then, with a count of 1.
template <int Warps, class Row, class Body>
ADAMW_DEVICE void over_items(std::int64_t items, int rounds, const Row *rows, int row_count, Span &span, Body &body) {
  const bool neighbours_of_all = rounds == 0, side_by_side = Warps > warps && neighbours_of_all;
  const std::uint32_t all = static_cast<std::uint32_t>(items), mine = static_cast<std::uint32_t>(Warps),
                      stride = neighbours_of_all ? block_count() * mine : mine,
                      chunk = mine * static_cast<std::uint32_t>(rounds);
  for (std::uint32_t start = block_id() * (neighbours_of_all ? mine : chunk); start < all;
       start = neighbours_of_all ? all : span.start + block_count() * chunk) {
    warp_barrier();  // all lanes have read the span: they may share one
    span.start = start;
    span.stop = neighbours_of_all || all - start < chunk ? all : start + chunk;
    warp_barrier();
    for (std::uint32_t item = start + warp_id(); item < span.stop;) {
      if (item - span.first >= span.count) enter_row(item, rows, row_count, span, body);
      const std::uint32_t end = smaller(span.stop, span.first + span.count), first = item - warp_id();
      const bool alone = side_by_side && (first < span.first || end - first < mine);
      const std::uint32_t left = end - (side_by_side ? first + mine - 1 : item),
                          count = alone || left <= stride ? 1 : (left + stride - 1) / stride;
      warp_barrier();
      span.next = item + count * stride;  // registers are for the elements
      warp_barrier();
      body.items(item - span.first, count, alone ? mine : stride);
      item = span.next;
    }
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
  if (head.grad_factor != nullptr) c.gradient_scale *= *head.grad_factor;
  if (head.clipped) c.gradient_scale *= head.results[number].clip;
  if (head.measured) c.negative_step_size *= head.results[number].unorm;
  return c;
}

// Blocks that are stepped one after the other.
struct Run {
  std::int64_t begin;  // of the first: its first element in the row
  std::uint32_t count;
  std::uint32_t group, group_high;  // the number of its first group of eight elements; all have the same upper bits
};

// What a warp brings into L2 while a run's blocks are stepped, before it is read: a stretch for each round.
struct alignas(16) Fetch {
  const unsigned char *end;  // where that of no block left would begin
  std::int32_t step;         // bytes from a stretch to the next, negative
  std::uint32_t bytes;       // 0: none

  // By all lanes of the warp: for two rounds later. Not for a run's last, in which other warps may have no whole block.
  ADAMW_DEVICE void ask(std::uint32_t left) const {
    const Fetch f = *this;
    fetch_if(f.bytes != 0 && left > 3, f.end + std::int64_t{static_cast<std::int32_t>(left)} * f.step, f.bytes);
  }
};

// What a warp knows of the row that it is in, in shared memory: registers are for the elements. First what every item
// asks for, in one wide load.
struct alignas(16) WarpRow {
  Span span;
  std::uint32_t
      plain_blocks;  // so many of a flat row, from its first, are whole, aligned and in fast_div_sqrt.h's range
  int number;        // of the row
  Factors8 f;
  AllBuffers at;
  Coefficients c;
  BlockLayout blocks;
  // Of the run: its first block, how many it has, and with those that the warp goes through after it; the upper bits of
  // all groups, and Words' group of these (without runs: of upper bits that are 0).
  std::uint32_t block, run_count, count, group_high, state_group;
  bool plain;  // the row is aligned and in fast_div_sqrt.h's range

  // By all lanes of the warp that `this` belongs to. Numbers: of a number, the factors must make one.
  template <bool Eight, bool Numbers, class Row>
  ADAMW_DEVICE void enter(const LaunchHead &head, const Row &row, int row_number) {
    const Coefficients fresh = row_coefficients(head, row, row_number);
    const Factors8 factors = factors8(fresh);
    warp_barrier();
    if (lane_id() == 0) {
      c = fresh;
      at = buffers_of(row);
      f = factors;
      blocks = row.blocks();
      number = row_number;
      state_group = group_key(fresh.state_key, 0);
      const bool numbers = !Numbers || (finite(factors.decay) && factors.decay != 0.0f);
      plain = row.aligned != 0 && !head.skip_zeros && (Eight ? quick_range(factors) : quick_range(fresh)) && numbers;
      plain_blocks = plain && blocks.blocks_per_row == 0 ? static_cast<std::uint32_t>(row.numel / block_size) : 0u;
    }
    warp_barrier();
  }

  // The longest run of `count` blocks from `block` on, each `stride` after the one before, that the common path may
  // take together; of none if it may not take the first. `global_offset`: the row's.
  ADAMW_DEVICE Run run(std::uint32_t block, std::uint32_t count, std::uint32_t stride,
                       std::int64_t global_offset) const {
    Run run{static_cast<std::int64_t>(static_cast<std::uint64_t>(block) * block_size), count, 0, 0};
    if (block >= plain_blocks) {
      const BlockLayout::Place place = blocks.place(block);
      run.begin = place.begin;
      run.count = plain && place.length == block_size ? 1 : 0;
    } else if (block + (count - 1) * stride >= plain_blocks) {
      --run.count;  // only the last block of a flat row may be short
    }
    constexpr std::uint64_t groups = block_size / 8;
    const std::uint64_t group = static_cast<std::uint64_t>(global_offset + run.begin) / 8;
    const auto high_after = [&](std::uint32_t blocks) {
      return static_cast<std::uint32_t>((group + (blocks - 1) * (stride * groups) + groups - 1) >> 32);
    };
    run.group = static_cast<std::uint32_t>(group);
    run.group_high = static_cast<std::uint32_t>(group >> 32);
    if (run.count > 1 && high_after(run.count) != run.group_high) run.count = 1;
    if (run.count == 1 && high_after(1) != run.group_high) run.count = 0;
    return run;
  }

  // Calls common(begin), where the block begins, if the common path may take it, and rare() if not, or if that says so.
  template <class Common, class Rare>
  ADAMW_DEVICE void item(std::uint32_t block, const Common &common, const Rare &rare) const {
    std::int64_t begin = static_cast<std::int64_t>(static_cast<std::uint64_t>(block) * block_size);
    if (block >= plain_blocks) {
      const BlockLayout::Place place = blocks.place(block);
      begin = place.begin;
      if (!plain || place.length != block_size) return rare();
    }
    if (!common(begin)) rare();
  }
};

}  // namespace
}  // namespace gpu
}  // namespace adamw
