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

// Any block: short, misaligned, with elements to skip. One function for all dtypes, and not the common case. Any: what
// it must know of parameters. Runs: of a row in runs.
template <class Any, bool Amsgrad, bool Runs, int Warps, class Table>
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
  Any::load(p, head, b.at, b.begin, b.n, lane);
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
  Any::store(p, head, b.at, b.begin, b.n, lane, c, b.template start<Runs>());
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

// ---- state in numbers ----

// M, P, G: the dtypes of moments, parameters and gradients. `state_group`: Words' group of the random words of moments.
template <class V, class M, class P, class G, class Share, bool Amsgrad, bool Runs>
ADAMW_DEVICE bool step_numbers_of(const Block &b, const Coefficients &c, std::uint32_t state_group) {
  constexpr bool any_dtype = Share::run == 1, quick = !any_dtype, rounds = M::size == 2;
  float p[each], g[each];
  if constexpr (any_dtype) {
    P::load(p, b.head, b.at, b.begin, b.n, b.lane);
    load_any(g, b.at.grad, b.head.grad_dtype, b.begin, b.n, b.lane);
  } else {
    load_params<P, Share>(p, b.at, b.begin, b.lane);
    load_floats<G, Share>(g, b.at.grad, b.begin, b.n, b.lane);
  }
  const auto load = [&](float (&to)[each], const void *base) { load_floats<M, Share>(to, base, b.begin, b.n, b.lane); };
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
  if (quick) {
    bool refused = !range.all();
    if (P::remainder_bits != 0) refused |= has_nan(p);  // as a weight that is none leaves it
    if (any(refused)) return false;
  }
  std::uint32_t words[each];
  const auto start = [&b] { return b.template start<Runs>(); };
  if (rounds || P::remainder_bits == 8) Words{c.state_key, state_group}.template fill<Share>(words, start(), b.lane);
  if constexpr (any_dtype) {
    P::store(p, b.head, b.at, b.begin, b.n, b.lane, c, start());
  } else if constexpr (P::remainder_bits != 0) {
    store_weights<P::remainder_bits, Share>(p, words, first_of<std::uint16_t, Share>(b.at.param, b.begin, b.lane),
                                            first_remainder<P, Share>(b.at, b.begin, b.lane));
  } else {
    store_params<P, Share>(p, first_of<typename P::Stored, Share>(b.at.param, b.begin, b.lane), b.n, b.lane,
                           b.head.stochastic_rounding, c.param_key, start());
  }
  const auto first = [&](void *base) { return first_of<typename M::Stored, Share>(base, b.begin, b.lane); };
  const auto store = [&](const float (&from)[each], void *base) {
    store_rounded<M, Share>(from, first(base), b.n, b.lane);
  };
  store(s.exp_avg, b.at.exp_avg);
  if constexpr (rounds) {  // an average of squares, which nearest rounding would stall
    store_stochastically<M, Share, quick>(s.exp_avg_sq, words, first(b.at.exp_avg_sq), b.n, b.lane);
  } else {
    store(s.exp_avg_sq, b.at.exp_avg_sq);
  }
  if (Amsgrad) store(s.max_exp_avg_sq, b.at.max_exp_avg_sq);
  return true;
}

template <class M, class Any, bool Amsgrad, bool Runs, class Table>
ADAMW_NOINLINE void any_block_of_numbers(const Table &table, int number, std::uint32_t block) {
  const LaunchHead &head = table.head;
  const auto *rows = table.rows;
  const AllBuffers at = buffers_of(rows[number]);
  const Block b = make_block(head, rows, number, block, at, rows[number].blocks().place(block), lane_id());
  const Coefficients c = row_coefficients(head, rows[number], number);
  step_numbers_of<float, M, Any, Any, Singles, Amsgrad, Runs>(b, c, group_key(c.state_key, 0));
}

template <class M, class P, class G, bool Amsgrad, class Table>
struct StepNumbers {
  using Share = typename Widest<M::size == 2 && P::size == 2 && G::size == 2>::Share;

  const Table &table;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.template enter<false, false>(table.head, table.rows[row], row); }

  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) item(first);
  }

 private:
  ADAMW_DEVICE void item(std::uint32_t block) {
    mine.item(
        block,
        [&](std::int64_t begin) {
          return step_numbers_of<Quick, M, P, G, Share, Amsgrad, false>(
              make_block(table.head, table.rows, mine.number, block, mine.at, {begin, block_size}, lane), mine.c,
              mine.state_group);
        },
        [&] { any_block_of_numbers<M, AnyLike<P>, Amsgrad, false>(table, mine.number, block); });
  }
};

// ---- kernels ----

// How the moments of a state are kept: as numbers of a dtype (elements.h), or as root codes.
template <class M>
struct Numbers {
  static constexpr bool codes = false;
  using Moment = M;
};
struct Codes8 {
  static constexpr bool codes = true;
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
template <class State, bool Amsgrad, bool Runs, int Warps, class Table>
struct StepAny {
  const Table &table;
  int number = 0;

  ADAMW_DEVICE void enter(int row) { number = row; }
  ADAMW_DEVICE void items(std::uint32_t first, std::uint32_t count, std::uint32_t stride) {
    for (; count != 0; --count, first += stride) {
      table.head.remainder_bits == 0 ? item<AnyDtype>(first) : item<AnyWeights>(first);
    }
  }

 private:
  template <class Any>
  ADAMW_DEVICE void item(std::uint32_t block) {
    if constexpr (State::codes) {
      any_block8<Any, Amsgrad, Runs, Warps>(table, number, block);
    } else {
      any_block_of_numbers<typename State::Moment, Any, Amsgrad, Runs>(table, number, block);
    }
  }
};

}  // namespace
}  // namespace gpu
}  // namespace adamw
