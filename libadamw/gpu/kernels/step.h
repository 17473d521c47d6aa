// Owns the step of a block by a warp: every byte is read once and written once. Knows nothing of launches.
#pragma once

#include "block.h"

namespace adamw {
namespace gpu {
namespace {

// ---- 8-bit state ----

// A lane's new moments before they are rounded.
using NewMoments = PerMoment<float[each]>;

ADAMW_DEVICE std::uint32_t warp_sum(std::uint32_t x) {
  for (unsigned mask = 16; mask != 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// A lane's new codes, where pack_codes() finds them.
using Codes = PerMoment<std::uint32_t[each]>;

// `words`: random ones, one an element. Zeros: some moments may be zero.
template <bool Amsgrad, bool Zeros>
ADAMW_DEVICE Codes encode(const NewMoments &fresh, const PerMoment<Scale> &scales, const std::uint32_t *words) {
  Codes codes;
  for (int j = 0; j < each; ++j) {
    const auto one = [j](const float (&x)[each]) { return x[j]; };
    const PerMoment<std::uint32_t> code =
        RootCodes::encode<Zeros>(Amsgrad, map_moments(Amsgrad, one, fresh), scales, noise_of(words[j]));
    for_each_moment(Amsgrad, [j](std::uint32_t (&to)[each], std::uint32_t from) { to[j] = from; }, codes, code);
  }
  return codes;
}

// Any block: short, misaligned, with elements to skip. One function for all dtypes, and not the common case. Runs: of a
// row in runs.
template <bool Amsgrad, bool Runs, int Warps, class Table>
ADAMW_NOINLINE void any_block8(const Table &table, int number, std::uint32_t block) {
  const LaunchHead &head = table.head;
  const auto *rows = table.rows;
  const unsigned lane = lane_id();
  const Coefficients c = row_coefficients(head, rows[number], number);
  const Factors8 f = factors8(c);
  const AllBuffers at = buffers_of(rows[number]);
  const Block b = make_block(head, rows, number, block, at, rows[number].blocks().place(block), lane);
  const OldScales was = old_scales<Amsgrad>(b.stored_scales(head.tensorwise));
  const PerMoment<StoredScale> &scale = was.stored;
  const OldFactors old = old_factors(f, scale.exp_avg.absmax, scale.exp_avg_sq.absmax);
  float p[each], g[each];
  load_any(p, b.at.param, head.param_dtype, b.begin, b.n, lane);
  load_any(g, b.at.grad, head.grad_dtype, b.begin, b.n, lane);
  const RawCodes raw = load_codes<Amsgrad>(b.at, b.begin, b.n, lane);
  NewMoments fresh;
  std::uint32_t skipped = 0;
  for (int j = 0; j < each; ++j) {
    const PerMoment<float> values = decode<Amsgrad>(raw, j, was);
    const float old_max = Amsgrad ? values.max_exp_avg_sq * scale.max_exp_avg_sq.absmax : 0.0f;
    const Moments<float> next = update_moments8(values.exp_avg, values.exp_avg_sq, g[j], f, old);
    const bool is_there = Singles::index(lane, j) < b.n;
    skipped += !is_there || next.exp_avg_sq <= largest_float ? 0u : 1u;
    if (steps8(next.exp_avg_sq, g[j], head.skip_zeros)) {
      fresh.exp_avg[j] = next.exp_avg;
      fresh.exp_avg_sq[j] = next.exp_avg_sq;
      fresh.max_exp_avg_sq[j] = Amsgrad ? maximum(old_max, next.exp_avg_sq) : next.exp_avg_sq;
      p[j] = update_param8(p[j], next.exp_avg, sqrt(fresh.max_exp_avg_sq[j]), f);
    } else {
      fresh.exp_avg[j] = values.exp_avg * scale.exp_avg.absmax;
      fresh.exp_avg_sq[j] = values.exp_avg_sq * scale.exp_avg_sq.absmax;
      fresh.max_exp_avg_sq[j] = old_max;
    }
  }
  skipped = warp_sum(skipped);
  if (lane == 0 && skipped != 0 && head.skipped != nullptr) atomic_add(head.skipped, std::uint64_t{skipped});
  store_any(p, b.at.param, head.param_dtype, b.begin, b.n, lane, head.stochastic_rounding, c.param_key,
            b.template start<Runs>());
  const auto extremes = [&](const float (&x)[each]) {
    ExtremeBits seen;
    seen.see(x, b.n, lane);
    return seen.of_warp().extremes();
  };
  const PerMoment<Scale> scales =
      b.template new_scales<Amsgrad>(head.tensorwise, map_moments(Amsgrad, extremes, fresh));
  std::uint32_t words[each];
  Words{c.state_key, group_key(c.state_key, 0)}.template fill<Singles>(words, b.template start<Runs>(), lane);
  const Codes codes = encode<Amsgrad, true>(fresh, scales, words);
  for_each_moment(
      Amsgrad,
      [&](const std::uint32_t (&code)[each], void *base) {
        store_codes<Singles>(code, first_of<std::uint8_t, Singles>(base, b.begin, lane), b.n, lane);
      },
      codes, at.moments());
}

// ---- 32-bit state ----

template <class V, class P, class G, class Share, bool Amsgrad, bool Runs>
ADAMW_DEVICE bool step_block32(const Block &b, const Coefficients &c) {
  constexpr bool any_dtype = Share::run == 1, quick = !any_dtype;
  float p[each], g[each];
  if constexpr (any_dtype) {
    load_any(p, b.at.param, b.head.param_dtype, b.begin, b.n, b.lane);
    load_any(g, b.at.grad, b.head.grad_dtype, b.begin, b.n, b.lane);
  } else {
    load_floats<P, Share>(p, b.at.param, b.begin, b.n, b.lane);
    load_floats<G, Share>(g, b.at.grad, b.begin, b.n, b.lane);
  }
  const auto load = [&](float (&to)[each], const void *base) {
    load_floats<Float32, Share>(to, base, b.begin, b.n, b.lane);
  };
  PerMoment<float[each]> s;
  for_each_moment(Amsgrad, load, s, b.at.moments());
  InRange32 range;
  for (int j = 0; j < each; ++j) {
    const Stepped<V> next = step_element32<Amsgrad, V>(p[j], g[j], s.exp_avg[j], s.exp_avg_sq[j],
                                                       Amsgrad ? s.max_exp_avg_sq[j] : 0.0f, c, b.head.skip_zeros);
    p[j] = as_float(next.param);
    s.exp_avg[j] = as_float(next.exp_avg);
    s.exp_avg_sq[j] = as_float(next.exp_avg_sq);
    if (Amsgrad) s.max_exp_avg_sq[j] = as_float(next.max_exp_avg_sq);
    if (quick) range.see(s.exp_avg[j], Amsgrad ? s.max_exp_avg_sq[j] : s.exp_avg_sq[j]);
  }
  if (quick && any(!range.all())) return false;
  if constexpr (any_dtype) {
    store_any(p, b.at.param, b.head.param_dtype, b.begin, b.n, b.lane, b.head.stochastic_rounding, c.param_key,
              b.template start<Runs>());
  } else {
    store_params<P, Share>(p, first_of<typename P::Stored, Share>(b.at.param, b.begin, b.lane), b.n, b.lane,
                           b.head.stochastic_rounding, c.param_key, b.template start<Runs>());
  }
  for_each_moment(
      Amsgrad,
      [&](const float (&from)[each], void *base) {
        store_float32<Share>(from, first_of<float, Share>(base, b.begin, b.lane), b.n, b.lane);
      },
      s, b.at.moments());
  return true;
}

template <bool Amsgrad, bool Runs, class Table>
ADAMW_NOINLINE void any_block32(const Table &table, int number, std::uint32_t block) {
  const LaunchHead &head = table.head;
  const auto *rows = table.rows;
  const AllBuffers at = buffers_of(rows[number]);
  const Block b = make_block(head, rows, number, block, at, rows[number].blocks().place(block), lane_id());
  step_block32<float, Float32, Float32, Singles, Amsgrad, Runs>(b, row_coefficients(head, rows[number], number));
}

template <class P, class G, bool Amsgrad, class Table>
struct Step32 {
  const Table &table;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.template enter<false>(table.head, table.rows[row], row); }

  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) item(first);
  }

 private:
  ADAMW_DEVICE void item(std::uint32_t block) {
    mine.item(
        block,
        [&](std::int64_t begin) {
          return step_block32<Quick, P, G, Fours, Amsgrad, false>(
              make_block(table.head, table.rows, mine.number, block, mine.at, {begin, block_size}, lane), mine.c);
        },
        [&] { any_block32<Amsgrad, false>(table, mine.number, block); });
  }
};

template <class A, class B>
struct Same {
  static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
  static constexpr bool value = true;
};

// For kernels that know no dtypes.
template <bool Amsgrad, bool Runs, bool Eight, int Warps, class Table>
struct StepAny {
  const Table &table;
  int number = 0;

  ADAMW_DEVICE void enter(int row) { number = row; }
  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) {
      if constexpr (Eight) {
        any_block8<Amsgrad, Runs, Warps>(table, number, first);
      } else {
        any_block32<Amsgrad, Runs>(table, number, first);
      }
    }
  }
};

template <class P, class G, bool Amsgrad, int Warps, class Table>
ADAMW_DEVICE void step32(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  WarpRow &mine = shared<Shared32<Warps>>().rows[warp_id()];
  mine.span = {};
  if constexpr (Same<P, RuntimeDtype>::value || Same<P, RuntimeDtypeInRuns>::value) {
    StepAny<Amsgrad, Same<P, RuntimeDtypeInRuns>::value, false, Warps, Table> body{table};
    over_items<Warps>(table.head.items, table.head.rounds, table.rows, table.head.rows, mine.span, body);
  } else {
    Step32<P, G, Amsgrad, Table> body{table, mine, lane_id()};
    over_items<Warps>(table.head.items, table.head.rounds, table.rows, table.head.rows, mine.span, body);
  }
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
