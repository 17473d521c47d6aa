// Owns what is done with blocks beside the step: the sums and extremes that a step may need first, in the order that
// sums.h fixes. Not the common case: one element at a time, dtypes chosen at run time.
#pragma once

#include "step.h"

namespace adamw {
namespace gpu {
namespace {

// sums.h's halves(), by all lanes.
ADAMW_DEVICE double warp_halves(double x) {
  for (unsigned mask = 16; mask != 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// sums.h's ordered_sum(), by all lanes, over what other warps have written.
template <class Get>
ADAMW_DEVICE double warp_sum(std::int64_t count, unsigned lane, const Get &get) {
  double sum = 0.0;
  for (std::int64_t i = lane; i < count; i += 32) sum += get(i);
  return warp_halves(sum);
}

// Whether this warp is the last of `count` to arrive; what the others wrote before is visible to it then.
ADAMW_DEVICE bool last_to_arrive(std::uint32_t *arrived, std::int64_t count, unsigned lane) {
  std::uint32_t before = 0;
  if (lane == 0) {
    fence();
    before = atomic_add(arrived, 1u);
  }
  before = shuffle(before, 0);
  if (static_cast<std::int64_t>(before) + 1 != count) return false;
  fence();
  return true;
}

// ---- what a step needs to know of a whole tensor ----

template <class State, bool Amsgrad, class Row>
struct Measure {
  const LaunchHead &head;
  const Row *rows;
  unsigned lane;
  int number = 0;
  Coefficients c{};
  BlockLayout blocks{};
  Segments segments{};

  ADAMW_DEVICE void enter(int row) {
    number = row;
    c = row_coefficients(head, rows[row], row);
    blocks = rows[row].blocks();
    segments = segments_of(blocks.count);
  }

  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) item(first);
  }

 private:
  ADAMW_DEVICE void item(std::uint32_t segment) {
    Measures *mine = head.measures + (number == 0 ? 0 : rows[number - 1].end);
    double directions = 0.0, params = 0.0;
    PerMoment<ExtremeBits> seen;
    for (std::int64_t block = segments.begin(segment); block < segments.begin(segment + 1); ++block) {
      add_block(block, directions, params, seen);
    }
    PerMoment<Extremes> all{};  // of numbers nobody asks
    if constexpr (State::codes) all = of_warp(seen);
    if (lane == 0) mine[segment] = {directions, params, all};
    if (last_to_arrive(&head.results[number].arrived, segments.count, lane)) finish(mine);
  }

  static ADAMW_DEVICE PerMoment<Extremes> of_warp(const PerMoment<ExtremeBits> &seen) {
    return map_moments(Amsgrad, [](const ExtremeBits &one) { return one.of_warp().extremes(); }, seen);
  }

  ADAMW_DEVICE void add_block(std::int64_t block, double &directions, double &params, PerMoment<ExtremeBits> &seen) {
    const Row &row = rows[number];
    const BlockLayout::Place place = blocks.place(block);
    const std::int64_t begin = place.begin;
    const int n = place.length;
    const AllBuffers at = buffers_of(row);
    float p[each], g[each], direction_sum = 0.0f, param_sum = 0.0f;
    if (head.remainder_bits == 0) {
      AnyDtype::load(p, head, at, begin, n, lane);
    } else {
      AnyWeights::load(p, head, at, begin, n, lane);
    }
    load_any(g, row.grad, head.grad_dtype, begin, n, lane);
    float direction[each];
    if constexpr (State::codes) {
      const std::int64_t number = head.tensorwise ? 0 : block;
      const OldScales was = old_scales<Amsgrad>(
          map_moments(Amsgrad, [&](const ScaleArrays &all) { return all.at(number); }, at.scales()));
      const PerMoment<StoredScale> &scale = was.stored;
      const RawCodes raw = load_codes<Amsgrad>(at, begin, n, lane);
      const Factors8 f = direction_factors8(c);
      const OldFactors old = old_factors(f, scale.exp_avg.absmax, scale.exp_avg_sq.absmax);
      for (int j = 0; j < each; ++j) {
        const PerMoment<float> values = decode<Amsgrad>(raw, j, was);
        const float old_max = Amsgrad ? values.max_exp_avg_sq * scale.max_exp_avg_sq.absmax : 0.0f;
        const Moments<float> next = update_moments8(values.exp_avg, values.exp_avg_sq, g[j], f, old);
        PerMoment<float> now{values.exp_avg * scale.exp_avg.absmax, values.exp_avg_sq * scale.exp_avg_sq.absmax,
                             old_max};
        direction[j] = 0.0f;
        if (steps8(next.exp_avg_sq, g[j], head.skip_zeros)) {
          now.exp_avg = next.exp_avg;
          now.exp_avg_sq = next.exp_avg_sq;
          now.max_exp_avg_sq = Amsgrad ? maximum(old_max, now.exp_avg_sq) : now.exp_avg_sq;
          direction[j] = change8(now.exp_avg, sqrt(now.max_exp_avg_sq), f);
        }
        if (Singles::index(lane, j) < n) {
          for_each_moment(Amsgrad, [](ExtremeBits &to, float x) { to.see(bits(absolute(x))); }, seen, now);
        }
      }
    } else {
      PerMoment<float[each]> s{};
      for_each_moment(
          Amsgrad,
          [&](float (&to)[each], const void *base) {
            load_floats<typename State::Moment, Singles>(to, base, begin, n, lane);
          },
          s, at.moments());
      for (int j = 0; j < each; ++j) {
        direction[j] =
            step_element32<Amsgrad>(p[j], g[j], s.exp_avg[j], s.exp_avg_sq[j], s.max_exp_avg_sq[j], c, head.skip_zeros)
                .direction;
      }
    }
    for (int j = 0; j < each; ++j) {
      // 0 / 0 where eps is 0 and an element never had a gradient, as the padding has none: it does not count.
      const float d = direction[j] == direction[j] ? direction[j] : 0.0f;
      direction_sum = fma(d, d, direction_sum);
      param_sum = fma(p[j], p[j], param_sum);
    }
    directions += warp_halves(static_cast<double>(direction_sum));
    params += warp_halves(static_cast<double>(param_sum));
  }

  ADAMW_DEVICE void finish(const Measures *mine) {
    Measures all{};
    const std::int64_t count = segments.count;
    all.direction_squares =
        warp_sum(count, lane, [&](std::int64_t i) { return load_fresh(&mine[i].direction_squares); });
    all.param_squares = warp_sum(count, lane, [&](std::int64_t i) { return load_fresh(&mine[i].param_squares); });
    PerMoment<ExtremeBits> seen;
    for (std::int64_t i = lane; State::codes && i < count; i += 32) {
      for_each_moment(
          Amsgrad,
          [](ExtremeBits &to, const Extremes &part) {
            to.see(bits(load_fresh(&part.largest)));
            to.see(bits(load_fresh(&part.smallest)));
          },
          seen, mine[i].found);
    }
    PerMoment<Extremes> found{};
    if constexpr (State::codes) found = of_warp(seen);
    if (lane != 0) return;
    const Row &row = rows[number];
    RowResult &result = head.results[number];
    result.unorm = unorm_factor(all, c.bc1, head.max_unorm);
    if constexpr (State::codes) {
      if (head.tensorwise) {
        result.scales = RootCodes::scales(Amsgrad, found);
        result.old_scales =
            map_moments(Amsgrad, [](const ScaleArrays &all) { return all.at(0); }, buffers_of(row).scales());
      }
    }
  }
};

template <class State, bool Amsgrad, class Table>
ADAMW_DEVICE void measure(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  Measure<State, Amsgrad, typename Table::RowType> body{table.head, table.rows, lane_id()};
  Span span{};
  over_items<warps>(table.head.items, 1, table.rows, table.head.rows, span, body);
}

// ---- percentile clipping ----

struct Norms {
  const NormHead &head;
  const NormRow *rows;
  unsigned lane;
  int number = 0;
  float scale = 1.0f;
  BlockLayout blocks{};
  Segments segments{};

  ADAMW_DEVICE void enter(int row) {
    number = row;
    blocks = block_layout(rows[row].numel, rows[row].row_length);
    segments = segments_of(blocks.count);
    scale = head.grad_scale != nullptr ? 1.0f / *head.grad_scale : 1.0f;  // the sign does not matter to a square
    if (head.grad_factor != nullptr) scale *= *head.grad_factor;
  }

  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) item(first);
  }

 private:
  ADAMW_DEVICE void item(std::uint32_t segment) {
    double *mine = head.squares + (number == 0 ? 0 : rows[number - 1].end);
    double sum = 0.0;
    for (std::int64_t block = segments.begin(segment); block < segments.begin(segment + 1); ++block) {
      const BlockLayout::Place place = blocks.place(block);
      float g[each], squares = 0.0f;
      load_any(g, rows[number].grad, head.grad_dtype, place.begin, place.length, lane);
      for (int j = 0; j < each; ++j) {
        const float scaled = g[j] * scale;
        squares = fma(scaled, scaled, squares);
      }
      sum += warp_halves(static_cast<double>(squares));
    }
    if (lane == 0) mine[segment] = sum;
    if (last_to_arrive(&head.results[number].arrived, segments.count, lane)) {
      record(static_cast<float>(warp_sum(segments.count, lane, [&](std::int64_t i) { return load_fresh(&mine[i]); })));
    }
  }

  static constexpr int entries = 100;  // ADAMW_GNORM_HISTORY

  // Records the squared norm and finds the factor that the gradient is scaled by.
  ADAMW_DEVICE void record(float squares) {
    RowResult &result = head.results[number];
    if (lane == 0) {
      result.clip = 1.0f;
      result.arrived = 0;
    }
    warp_barrier();  // the lane that finds the factor writes after this
    if (!is_finite(squares)) return;
    const NormRow &row = rows[number];
    const std::int64_t step = row.step != nullptr ? step_number(row.step) : row.step_number;
    float history[4];
    bool used = false;
    for (int k = 0; k < 4; ++k) {
      const int i = k * 32 + static_cast<int>(lane);
      history[k] = i < entries ? row.history[i] : 0.0f;
      used = used || history[k] != 0.0f;
    }
    const bool fill = !any(used) || step == 1;
    for (int k = 0; k < 4; ++k) {
      const int i = k * 32 + static_cast<int>(lane);
      if (i < entries && (fill || i == static_cast<int>(step % entries))) {
        history[k] = squares;
        row.history[i] = squares;
      }
    }
    // The entry that as many are below as the percentile says, ties in order.
    for (int k = 0; k < 4; ++k) {
      const int i = k * 32 + static_cast<int>(lane);
      int below = 0;
      for (int other = 0; other < 4; ++other) {
        for (unsigned l = 0; l < 32; ++l) {
          const int o = other * 32 + static_cast<int>(l);
          const float x = shuffle(history[other], l);
          if (o < entries && (x < history[k] || (x == history[k] && o < i))) ++below;
        }
      }
      if (i < entries && below == head.percentile) result.clip = clip_factor(squares, history[k]);
    }
  }
};

ADAMW_DEVICE void norms(const NormTable &table) {
  if (found_inf(table.head.found_inf)) return;
  Norms body{table.head, table.rows, lane_id()};
  Span span{};
  over_items<warps>(table.head.items, 1, table.rows, table.head.rows, span, body);
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
