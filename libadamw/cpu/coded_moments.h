// Owns the moments that are kept as codes of one byte with scales: first all of a block's new moments, then, knowing
// their scales, its parameters and codes. Knows the codes only by decode(), encode(), scales() and zero.
#pragma once

#include <algorithm>

#include "../formats.h"
#include "../numerics/codes.h"
#include "operands.h"

namespace adamw {
namespace {

// A block's new moments before they are rounded, which elements are stepped (Masked only: 1 or 0), and the largest and
// smallest magnitudes, as bits, which order as floats do, with infinities and NaN on top.
struct NewMoments {
  struct Floats {
    alignas(64) float at[ADAMW_BLOCK_SIZE];
  };
  PerMoment<Floats> moments;
  Floats root;  // of exp_avg_sq or of its maximum, by which the parameter is stepped
  Floats steps;
  PerMoment<std::uint32_t> largest, smallest;  // smallest: of exp_avg_sq and its maximum only
  int skipped;
};

// The codes of a block in reach, and the scales that they have.
struct OldMoments {
  PerMoment<Staged<std::uint8_t>> codes;
  PerMoment<StoredScale> scales;
};

// The largest or the smallest of n numbers that are not negative, as bits.
template <class Extreme>
ADAMW_INLINE std::uint32_t extreme_of(const float *x, int n) {
  Extreme extreme;
  int i = 0;
  for (; i + lanes <= n; i += lanes) extreme.see(bits(load(x + i)));
  std::uint32_t found = extreme.value();
  for (; i < n; ++i) found = Extreme::pick(found, bits(x[i]));
  return found;
}

// Masked = false: the arithmetic alone. Masked = true leaves the moments of elements that are not stepped as they are.
template <class Codes, bool Amsgrad, bool Masked, class Type>
ADAMW_INLINE void update_moments(Type type, NewMoments &fresh, const Operands &o, const OldMoments &was,
                                 const Factors8 &f, bool skip_zeros) {
  const OldFactors old = old_factors(f, was.scales.exp_avg.absmax, was.scales.exp_avg_sq.absmax);
  const PerMoment<CodeLine> lines =
      map_moments(Amsgrad, [](const StoredScale &scale) { return code_line(scale.floor); }, was.scales);
  PerMoment<Largest> largest;
  PerMoment<Smallest> smallest;
  fresh.skipped = Masked ? o.padded : 0;
  for (int i = 0; i < o.padded; i += lanes) {
    const PerMoment<V> values = Codes::template decode<V>(
        Amsgrad,
        map_moments(Amsgrad, [i](const Staged<std::uint8_t> &codes) { return load(codes.at + i); }, was.codes), lines);
    const V raw = o.grad.floats(type, i);
    if (!Masked) {
      o.grad.prefetch(type, i);
      // A line holds two vectors of codes.
      prefetch_ahead((i / lanes % 2 == 0 ? was.codes.exp_avg : was.codes.exp_avg_sq).at, i, 1);
    }
    const Moments<V> next = update_moments8(values.exp_avg, values.exp_avg_sq, raw, f, old);
    const V old_max = Amsgrad ? values.max_exp_avg_sq * V(was.scales.max_exp_avg_sq.absmax) : V(0.0f);
    PerMoment<V> now;
    now.exp_avg = next.exp_avg;
    now.exp_avg_sq = next.exp_avg_sq;
    if (Amsgrad) now.max_exp_avg_sq = maximum(old_max, now.exp_avg_sq);
    if (Masked) {
      fresh.skipped -= count(less_equal(next.exp_avg_sq, V(largest_float)));
      const M steps = steps8(next.exp_avg_sq, raw, skip_zeros);
      now.exp_avg = select(steps, now.exp_avg, values.exp_avg * V(was.scales.exp_avg.absmax));
      now.exp_avg_sq = select(steps, now.exp_avg_sq, values.exp_avg_sq * V(was.scales.exp_avg_sq.absmax));
      if (Amsgrad) now.max_exp_avg_sq = select(steps, now.max_exp_avg_sq, old_max);
      store(fresh.steps.at + i, select(steps, V(1.0f), V(0.0f)));
    }
    store(fresh.moments.exp_avg.at + i, now.exp_avg);
    store(fresh.moments.exp_avg_sq.at + i, now.exp_avg_sq);
    store(fresh.root.at + i, sqrt(Amsgrad ? now.max_exp_avg_sq : now.exp_avg_sq));
    largest.exp_avg.see(bits(now.exp_avg) & 0x7FFFFFFFu);
    largest.exp_avg_sq.see(bits(now.exp_avg_sq));
    smallest.exp_avg_sq.see(bits(now.exp_avg_sq));
    if (Amsgrad) {
      store(fresh.moments.max_exp_avg_sq.at + i, now.max_exp_avg_sq);
      largest.max_exp_avg_sq.see(bits(now.max_exp_avg_sq));
      smallest.max_exp_avg_sq.see(bits(now.max_exp_avg_sq));
    }
  }
  // Zeros that pad a block are skipped where all of it is, by a factor that is infinite.
  if (Masked) fresh.skipped = std::min(fresh.skipped, o.n);
  fresh.largest = map_moments(true, [](const Largest &one) { return one.value(); }, largest);
  fresh.smallest = map_moments(true, [](const Smallest &one) { return one.value(); }, smallest);
  if (o.n != o.padded) {  // what pads a block is no number of it
    fresh.smallest.exp_avg_sq = extreme_of<Smallest>(fresh.moments.exp_avg_sq.at, o.n);
    if (Amsgrad) fresh.smallest.max_exp_avg_sq = extreme_of<Smallest>(fresh.moments.max_exp_avg_sq.at, o.n);
    // It has the smallest of the old numbers, so it is the largest only where it does not decay and they do.
    if (Masked) fresh.largest.exp_avg_sq = extreme_of<Largest>(fresh.moments.exp_avg_sq.at, o.n);
    if (Masked && Amsgrad) fresh.largest.max_exp_avg_sq = extreme_of<Largest>(fresh.moments.max_exp_avg_sq.at, o.n);
  }
}

// Few blocks need masks.
template <class Codes, bool Amsgrad>
ADAMW_ONCE void update_masked_moments(NewMoments &fresh, const Operands &o, const OldMoments &was, const Factors8 &f,
                                      bool skip_zeros) {
  update_moments<Codes, Amsgrad, true>(AnyDtype{}, fresh, o, was, f, skip_zeros);
}

// Steps the parameters and encodes the moments. Common: none is zero, and groups of random words begin with the block.
template <class Codes, bool Amsgrad, bool Masked, bool Common, class Type>
ADAMW_INLINE void finish(Type type, Operands &o, OldMoments &was, const NewMoments &fresh, const Factors8 &f,
                         const PerMoment<Scale> &scales, const Words &words) {
  for (int i = 0; i < o.padded; i += lanes) {
    if (Common) o.params.prefetch(type, i);
    PerMoment<V> x;
    x.exp_avg = load(fresh.moments.exp_avg.at + i);
    x.exp_avg_sq = load(fresh.moments.exp_avg_sq.at + i);
    if (Amsgrad) x.max_exp_avg_sq = load(fresh.moments.max_exp_avg_sq.at + i);
    const V p = o.params.floats(type, i), next = update_param8(p, x.exp_avg, load(fresh.root.at + i), f);
    const I word = Common ? words.of_groups(i) : words.of_any(i);
    o.params.set(type, i, Masked ? select(not_equal(load(fresh.steps.at + i), V(0.0f)), next, p) : next,
                 [&]() ADAMW_ALWAYS { return word; });
    const PerMoment<I> codes = Codes::template encode<!Common>(Amsgrad, x, scales, noise_of(word));
    for_each_moment(
        Amsgrad, [i](Staged<std::uint8_t> &to, const I &code) { store_codes(to.at + i, code); }, was.codes, codes);
  }
}

// Any block: fewer have zeros than have none, and masks are rare.
template <class Codes, bool Amsgrad, bool Masked>
ADAMW_ONCE void finish_any(Operands &o, OldMoments &was, const NewMoments &fresh, const Factors8 &f,
                           const PerMoment<Scale> &scales, const Words &words) {
  finish<Codes, Amsgrad, Masked, false>(AnyDtype{}, o, was, fresh, f, scales, words);
}

template <class Codes, bool Amsgrad>
class BlockMoments {
 public:
  BlockMoments(const StepKind &kind, const Row &row)
      : kind_(kind), row_(row), format_(traits(kind.state_format)), f_(factors8(row.coefficients)) {}

  ADAMW_INLINE void load(const Operands &o, std::int64_t block) {
    const std::int64_t scale = format_.scale_of(block);
    for_each_moment(
        Amsgrad,
        [&](Staged<std::uint8_t> &at, StoredScale &old, void *base, const ScaleArrays &scales, std::uint8_t zero) {
          at.load(static_cast<std::uint8_t *>(base) + o.begin, o.n, o.padded, zero);
          old = scales.at(scale);
        },
        was_.codes, was_.scales, moments_of(row_.tensor), scales_of(row_.tensor), Codes::zero);
  }

  template <class Random>
  ADAMW_INLINE std::int64_t step(Operands &o, std::int64_t block, const PerMoment<Scale> *given, const Random &random) {
    const bool masked = update(o);
    PerMoment<Scale> scales;
    if (given != nullptr) {
      scales = *given;
    } else {
      scales = Codes::scales(Amsgrad, found());
      for_each_moment(
          Amsgrad, [block](const ScaleArrays &to, const Scale &scale) { to.put(block, scale); }, scales_of(row_.tensor),
          scales);
    }
    const Words &words = random();
    if (masked) {
      finish_any<Codes, Amsgrad, true>(o, was_, fresh_, f_, scales, words);
    } else if (Codes::zeros(Amsgrad, scales) || !words.grouped) {
      finish_any<Codes, Amsgrad, false>(o, was_, fresh_, f_, scales, words);
    } else {
      o.params.dispatch([&](auto type) ADAMW_ALWAYS {
        finish<Codes, Amsgrad, false, true>(type, o, was_, fresh_, f_, scales, words);
      });
    }
    return fresh_.skipped;
  }

  ADAMW_INLINE void commit() const {
    for_each_moment(Amsgrad, [](const Staged<std::uint8_t> &at) { at.commit(); }, was_.codes);
  }

  ADAMW_INLINE void directions(const Operands &o, Measures &all, Squares &squares) {
    const Factors8 f = direction_factors8(row_.coefficients);
    update_masked_moments<Codes, Amsgrad>(fresh_, o, was_, f, kind_.skip_zeros);
    for_each_moment(Amsgrad, [](Extremes &seen, const Extremes &now) { seen = both(seen, now); }, all.found, found());
    for (int i = 0; i < o.padded; i += lanes) {
      const V root = adamw::load(fresh_.root.at + i);
      const M steps = not_equal(adamw::load(fresh_.steps.at + i), V(0.0f));
      squares.add(select(steps, change8(adamw::load(fresh_.moments.exp_avg.at + i), root, f), V(0.0f)),
                  o.params.floats(AnyDtype{}, i));
    }
  }

 private:
  // With masks where the block needs them; returns whether it did.
  ADAMW_INLINE bool update(const Operands &o) {
    if (!kind_.skip_zeros) {
      o.grad.dispatch([&](auto type)
                          ADAMW_ALWAYS { update_moments<Codes, Amsgrad, false>(type, fresh_, o, was_, f_, false); });
      if (fresh_.largest.exp_avg_sq <= 0x7F7FFFFFu) return false;
    }
    update_masked_moments<Codes, Amsgrad>(fresh_, o, was_, f_, kind_.skip_zeros);
    return true;
  }

  ADAMW_INLINE PerMoment<Extremes> found() const {
    return map_moments(
        Amsgrad,
        [](std::uint32_t largest, std::uint32_t smallest) { return Extremes{from_bits(largest), from_bits(smallest)}; },
        fresh_.largest, fresh_.smallest);
  }

  const StepKind &kind_;
  const Row &row_;
  const FormatTraits format_;
  const Factors8 f_;
  OldMoments was_;
  NewMoments fresh_;
};

}  // namespace
}  // namespace adamw
