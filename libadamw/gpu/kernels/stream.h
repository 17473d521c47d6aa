// Owns the common path of 8-bit state: whole aligned blocks of a row, of which a warp reads the next while it steps
// one. Knows nothing of launches.
//
// The way of one block through the headers of this folder:
//   kernels.cu          names the kernel, for its dtypes, and how many threads share a multiprocessor. The launch's
//                       table (../table.h) holds all tensors: nothing has been uploaded before.
//   row_iteration.h     over_items() gives the warp its blocks of a tensor; WarpRow.enter() derives the tensor's
//                       coefficients once (coefficients.h, factors8() of math.h) and keeps them in shared memory.
//                       WarpRow.run() says how many of the blocks the common path may take together.
//   Stream8.stream()    goes through such a run. Each lane has eight elements of a block (elements.h), read in vectors:
//     read_state(), read_param()  loads, which device.h spells for the machine; those of the next block are on their
//                       way while this one is computed
//     moments()         codes to values (quick_codes.h), then update_moments8() (math.h)
//     finish()          the largest and smallest numbers of the warp, which say whether the block is in range, and
//                       whether it has zeros
//     go_on()           roots and the parameter (math.h, with the division of fast_div_sqrt.h); the parameters are
//                       stored, rounded stochastically by words of a hash (Words of elements.h) if so asked; the scales
//                       follow from the extremes; encode() (step.h, root_codes.h) rounds the moments; scales and codes
//                       are stored. It is there twice: blocks with zeros cost some instructions more.
//   any_block8()        (step.h) takes a block that finish() refuses before it has written anything: numbers that are
//                       not finite, or beyond what fast_div_sqrt.h divides exactly; and those that are short,
//                       misaligned, or of a dtype known at run time only.
#pragma once

#include "quick_codes.h"
#include "step.h"

namespace adamw {
namespace gpu {
namespace {

template <class P, class G, bool Amsgrad, int Warps, class Table>
struct Stream8 {
  using Share = typename Widest<P::size == 2 && G::size == 2>::Share;
  static constexpr int scales = Amsgrad ? 5 : 3;  // numbers that a block has beside its codes
  static constexpr bool side_by_side = Warps > warps, has_remainder = P::remainder_bits != 0;
  static constexpr int rest_size = P::remainder_bits / 8;

  const Table &table;
  WarpRow &mine;
  Fetch &fetch;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.template enter<true, has_remainder>(table.head, table.rows[row], row); }

  ADAMW_DEVICE void items(std::uint32_t block, std::uint32_t count, std::uint32_t stride) {
    while (count != 0) {
      Run run = mine.run(block, count, stride, table.rows[mine.number].global_offset);
      if (run.count > 1) run.count = reach(block, run, stride);
      std::uint32_t done = 0;
      bool stopped = run.count == 0;
      if (stopped) meet(stride);
      if (run.count != 0) {
        const std::uint32_t left = stream(block, count, run, stride);
        block = mine.block, count = mine.count, done = mine.run_count - left;  // registers are for the elements
        stopped = left != 0;
      }
      if (stopped) any_block8<AnyLike<P>, Amsgrad, false, Warps>(table, mine.number, block + done++ * stride);
      block += done * stride;
      count -= done;
    }
  }

 private:
  // Once a block, where the warps of the block of threads are side by side. Nothing depends on it, but without it they
  // drift apart, and what they read at the same time lies apart.
  static ADAMW_DEVICE void meet(std::uint32_t stride) {
    if (side_by_side) barrier_if(stride > Warps);
  }

  // Where a block's first element of this lane lies, and one of the block's scales: lanes 0, 1 and 2 have exp_avg's
  // absmax, exp_avg_sq's and its floor, lanes 3 and 4 those of its maximum. All others have the last one, too: that
  // they read and write the same is cheaper than to ask whose it is.
  struct StatePlace {
    unsigned char *param, *remainder;
    PerMoment<unsigned char *> codes;
    float *scale;
    std::uint32_t group;

    ADAMW_DEVICE void advance(std::uint32_t stride) {
      const std::uint32_t elements = stride * block_size;
      group += elements / 8;
      param = ahead(param, elements * P::size);
      if constexpr (has_remainder) remainder = ahead(remainder, elements * rest_size);
      for_each_moment(Amsgrad, [elements](unsigned char *&p) { p = ahead(p, elements); }, codes);
      scale = ahead(scale, stride * 4);
    }
  };
  struct Place : StatePlace {
    const unsigned char *grad;

    ADAMW_DEVICE void advance(std::uint32_t stride) {
      StatePlace::advance(stride);
      grad = ahead(grad, stride * (block_size * G::size));
    }
  };

  ADAMW_DEVICE Place place(std::uint32_t block, std::int64_t begin) const {
    const AllBuffers &at = mine.at;
    const std::int64_t first = begin + Share::index(lane, 0);
    float *scale = lane == 0 ? at.exp_avg_absmax : lane == 1 ? at.exp_avg_sq_absmax : at.exp_avg_sq_floor;
    if (Amsgrad && lane >= 3) scale = lane == 3 ? at.max_exp_avg_sq_absmax : at.max_exp_avg_sq_floor;
    return {{static_cast<unsigned char *>(at.param) + first * P::size,
             has_remainder ? first_remainder<P, Share>(at, begin, lane) : nullptr,
             map_moments(
                 Amsgrad, [first](void *base) { return static_cast<unsigned char *>(base) + first; }, at.moments()),
             scale + block, 0},
            static_cast<const unsigned char *>(at.grad) + first * G::size};
  }

  // How many of `count` blocks a pointer into `base` comes to before its upper half changes, which ahead() does not do;
  // at least the first. `begin`: bytes before that.
  static ADAMW_DEVICE std::uint32_t reach(std::uint32_t count, std::uint32_t stride, const void *base,
                                          std::int64_t begin, std::uint32_t bytes) {
    const std::uint64_t first = reinterpret_cast<std::uintptr_t>(base) + static_cast<std::uint64_t>(begin),
                        step = std::uint64_t{stride} * bytes, last = first + (count - 1) * step + (bytes - 1);
    if (((first ^ last) >> 32) == 0) return count;
    const std::uint32_t behind = ~static_cast<std::uint32_t>(first);  // bytes behind the first one
    return behind < bytes ? 1 : smaller(count, 1 + (behind - (bytes - 1)) / static_cast<std::uint32_t>(step));
  }
  ADAMW_DEVICE std::uint32_t reach(std::uint32_t block, const Run &run, std::uint32_t stride) const {
    const AllBuffers &at = mine.at;
    std::uint32_t count = reach(run.count, stride, at.param, run.begin * P::size, block_size * P::size);
    if (has_remainder) count = reach(count, stride, at.param_remainder, run.begin * rest_size, block_size * rest_size);
    count = reach(count, stride, at.grad, run.begin * G::size, block_size * G::size);
    for_each_moment(
        Amsgrad,
        [&](const void *codes, const ScaleArrays &scale) {
          count = reach(count, stride, codes, run.begin, block_size);
          count = reach(count, stride, scale.absmax, std::int64_t{block} * 4, 4);
          if (scale.floor != nullptr) count = reach(count, stride, scale.floor, std::int64_t{block} * 4, 4);
        },
        at.moments(), at.scales());
    return count;
  }

  // The group of eight elements that the lane's first is in, counted in its block.
  ADAMW_DEVICE std::uint32_t first_group() const { return static_cast<std::uint32_t>(Share::index(lane, 0)) / 8; }

  // What this warp asks for on behalf of its block of threads: warp 0 for the parameters of all of them, warp 1 for the
  // gradients, and so on. One request for a long stretch reads memory faster than many for short ones.
  ADAMW_DEVICE Fetch first_fetch(std::uint32_t count, std::uint32_t stride, std::int64_t begin) const {
    const unsigned warp = warp_id();
    const AllBuffers &at = mine.at;
    const void *from = warp == 0 ? at.param : warp == 1 ? at.grad : warp == 2 ? at.exp_avg : at.exp_avg_sq;
    if (Amsgrad && warp == 4) from = at.max_exp_avg_sq;
    const std::uint32_t size = warp == 0 ? P::size : warp == 1 ? G::size : 1, bytes = size * block_size;
    const bool wanted = stride > Warps && warp < (Amsgrad ? 5 : 4);
    const std::int64_t behind_last = begin / block_size - warp + std::int64_t{count + 2} * stride;
    return {static_cast<const unsigned char *>(from) + behind_last * bytes, -static_cast<std::int32_t>(stride * bytes),
            wanted ? bytes * Warps : 0};
  }

  // A block as it lies in memory: this lane's part.
  struct Raw : RawParams<P> {
    RawCodes codes;
    std::uint32_t grad[2 * G::size];
    float scale;
  };

  template <int size>
  static ADAMW_DEVICE void read(std::uint32_t *words, const unsigned char *from, bool wanted) {
    for (int j = 0; j < each; j += Share::run)
      load_words_if<Share::run * size / 4>(wanted, from + 32 * j * size, words + j * size / 4);
  }
  ADAMW_DEVICE void read_state(Raw &raw, const Place &at, bool wanted) const {
    for_each_moment(
        Amsgrad, [wanted](std::uint32_t (&to)[2], const unsigned char *from) { read<1>(to, from, wanted); }, raw.codes,
        at.codes);
    read<G::size>(raw.grad, at.grad, wanted);
    load_float_if(wanted, at.scale, &raw.scale);
  }
  ADAMW_DEVICE void read_param(Raw &raw, const Place &at, bool wanted) const {
    read<P::size>(raw.param, at.param, wanted);
    if constexpr (has_remainder) read<rest_size>(raw.remainder, at.remainder, wanted);
  }

  // What the state of a block has become.
  struct Stepped8 {
    NewMoments fresh;
    bool odd;  // its scales are none that a step leaves
  };

  ADAMW_DEVICE Stepped8 moments(const Raw &raw) const {
    Stepped8 s;
    float g[each];
    unpack<G>(g, raw.grad);
    const Factors8 f = mine.f;
    const StoredScale v{shuffle(raw.scale, 1), shuffle(raw.scale, 2)},
        x{Amsgrad ? shuffle(raw.scale, 3) : 0.0f, Amsgrad ? shuffle(raw.scale, 4) : 0.0f};
    OldFactors old = old_factors(f, shuffle(raw.scale, 0), v.absmax);
    old.exp_avg *= 8.0f;  // quick_exp_avg()
    const QuickLine line = quick_line(v.floor), max_line = quick_line(x.floor);
    s.odd = !has_quick_line(v) || (Amsgrad && !has_quick_line(x));
    for (int j = 0; j < each; ++j) {
      const Moments<float> next = update_moments8(quick_exp_avg(raw.codes.exp_avg, j),
                                                  quick_exp_avg_sq(raw.codes.exp_avg_sq, j, line), g[j], f, old);
      s.fresh.exp_avg[j] = next.exp_avg;
      s.fresh.exp_avg_sq[j] = next.exp_avg_sq;
      if (Amsgrad)
        s.fresh.max_exp_avg_sq[j] =
            maximum(quick_exp_avg_sq(raw.codes.max_exp_avg_sq, j, max_line) * x.absmax, next.exp_avg_sq);
    }
    return s;
  }

  // How many blocks it has left: from the first with an element that must be skipped or is out of fast_div_sqrt.h's
  // range. While a block is stepped, the next is read.
  ADAMW_DEVICE std::uint32_t stream(std::uint32_t block, std::uint32_t count, const Run &run, std::uint32_t stride) {
    Place at = place(block, run.begin);
    warp_barrier();
    if (lane == 0) {
      mine.block = block, mine.count = count, mine.run_count = run.count;
      mine.group_high = run.group_high;
      mine.state_group = group_key(mine.c.state_key, run.group_high);
      if (side_by_side) fetch = first_fetch(run.count, stride, run.begin);
    }
    warp_barrier();
    std::uint32_t left = run.count;
    Raw raw;
    read_state(raw, at, true);
    read_param(raw, at, true);
    Stepped8 now = moments(raw);
    StatePlace to = at;
    to.group = run.group + first_group();
    for (;;) {
      at.advance(stride);
      meet(stride);
      read_state(raw, at, left > 1);
      if (!finish(at, to, stride, left, now, raw) || --left == 0) break;
      now = moments(raw);
    }
    return left;
  }

  // The bits of it. Pairs first: a maximum of magnitudes takes two numbers, one of integers, which have none, three.
  static ADAMW_DEVICE std::uint32_t largest_magnitude(const float (&x)[each]) {
    std::uint32_t largest = 0;
    for (int j = 0; j < each; j += 2) largest = larger(largest, bits(max(absolute(x[j]), absolute(x[j + 1]))));
    return largest;
  }
  static ADAMW_DEVICE ExtremeBits of_warp(const float (&x)[each]) {
    ExtremeBits seen;
    for (int j = 0; j < each; ++j) seen.see(bits(x[j]));
    return seen.of_warp();
  }

  // False, with nothing written, if an element must be skipped or is out of fast_div_sqrt.h's range, or if a weight is
  // no number. (If none is, nor is what a step makes of it: enter() of WarpRow sees to the factors.)
  // `to`: where the block lies; `at`: where the next does.
  ADAMW_DEVICE bool finish(const Place &at, StatePlace &to, std::uint32_t stride, std::uint32_t left,
                           const Stepped8 &now, Raw &raw) const {
    const NewMoments &fresh = now.fresh;
    const float (&maxima)[each] = Amsgrad ? fresh.max_exp_avg_sq : fresh.exp_avg_sq;
    float inverse_roots[each];
    for (int j = 0; j < each; ++j) inverse_roots[j] = approximate_inverse_root(maxima[j]);
    std::uint32_t common = ~0u;
    for (int j = 0; j < each; ++j) common &= bits(fresh.exp_avg[j]);
    bool refused = false;
    if constexpr (has_remainder) {
      float weights[each];
      raw.floats(weights);
      refused = has_nan(weights);
    }
    const bool small = any(((common & common_bit) == 0) | refused);
    const PerMoment<ExtremeBits> found{{warp_max(largest_magnitude(fresh.exp_avg)), 0u},
                                       of_warp(fresh.exp_avg_sq),
                                       Amsgrad ? of_warp(fresh.max_exp_avg_sq) : ExtremeBits{}};
    const std::uint32_t most = (Amsgrad ? found.max_exp_avg_sq : found.exp_avg_sq).largest;
    bool quick = !now.odd & in_range8(found.exp_avg.largest, most) & has_quick_inverse(found.exp_avg.largest) &
                 has_quick_inverse(found.exp_avg_sq.largest);
    if (Amsgrad) quick &= has_quick_inverse(found.max_exp_avg_sq.largest);
    if (quick & !small & (found.exp_avg_sq.smallest >= bits(0x1p-100f))) {
      ADAMW_ASSUME(from_bits(found.exp_avg.largest) >= smallest_scale);
      ADAMW_ASSUME(from_bits(found.exp_avg_sq.largest) >= smallest_scale);
      if (Amsgrad) ADAMW_ASSUME(from_bits(found.max_exp_avg_sq.largest) >= smallest_scale);
      go_on<false>(at, to, stride, left, fresh, inverse_roots, found, raw);
      return true;
    }
    if (!quick || !careful_range(now, refused)) return false;
    go_on<true>(at, to, stride, left, fresh, inverse_roots, found, raw);
    return true;
  }

  // Of blocks with zeros, or almost; and of those with parameters that are refused.
  ADAMW_DEVICE bool careful_range(const Stepped8 &now, bool refused) const {
    InRange8 range;
    for (int j = 0; j < each; ++j) {
      range.m.see(now.fresh.exp_avg[j]), range.v.see(now.fresh.exp_avg_sq[j]);
      if (Amsgrad) range.v.see(now.fresh.max_exp_avg_sq[j]);
    }
    return !any(!range.all() | refused);
  }

  // Everything else, of a block in range.
  template <bool Zeros>
  ADAMW_DEVICE void go_on(const Place &at, StatePlace &to, std::uint32_t stride, std::uint32_t left,
                          const NewMoments &fresh, const float (&inverse_roots)[each],
                          const PerMoment<ExtremeBits> &found, Raw &raw) const {
    const Factors8 f = mine.f;
    const float (&maxima)[each] = Amsgrad ? fresh.max_exp_avg_sq : fresh.exp_avg_sq;
    float p[each];
    raw.floats(p);
    for (int j = 0; j < each; ++j) {
      p[j] = update_param8(Quick(p[j]), Quick(fresh.exp_avg[j]), root_from<Zeros>(maxima[j], inverse_roots[j]), f).x;
    }
    read_param(raw, at, left > 1);
    const std::uint32_t key = mine.state_group, group = to.group - first_group();
    std::uint32_t words[each];
    const auto draw = [&] {
      Words::spread<Share>(words, lane, [&](std::uint32_t g) { return mix32((group + g) ^ key); });
    };
    if constexpr (has_remainder) {
      if (P::remainder_bits == 8) draw();
      store_weights<P::remainder_bits, Share>(p, words, to.param, to.remainder);
    } else {
      store_params<P, Share>(p, to.param, block_size, lane, table.head.stochastic_rounding, mine.c.param_key,
                             (std::uint64_t{mine.group_high} << 32 | group) * 8);
    }
    if (side_by_side) {
      fetch.ask(left);
      fetch_word_if(left > 2 && lane < scales, ahead(at.scale, stride * 4));
    }
    const PerMoment<Scale> s = RootCodes::scales<Quick>(
        Amsgrad, map_moments(Amsgrad, [](const ExtremeBits &one) { return one.extremes(); }, found));
    if (P::remainder_bits != 8) draw();
    const Codes codes = encode<Amsgrad, Zeros>(fresh, s, words);
    float scale = lane == 0 ? s.exp_avg.absmax : lane == 1 ? s.exp_avg_sq.absmax : s.exp_avg_sq.floor;
    if (Amsgrad && lane >= 3) scale = lane == 3 ? s.max_exp_avg_sq.absmax : s.max_exp_avg_sq.floor;
    store_float(to.scale, scale);
    for_each_moment(
        Amsgrad, [](const std::uint32_t (&code)[each], unsigned char *first) { store_codes<Share>(code, first); },
        codes, to.codes);
    to.advance(stride);
  }
};

template <int Warps, class Table, class Body>
ADAMW_DEVICE void over_rows(const Table &table, Span &span, Body body) {
  over_items<Warps>(table.head.items, table.head.rounds, table.rows, table.head.rows, span, body);
}

// A kernel of a step: of a State, and dtypes of parameters and gradients.
template <class State, class P, class G, bool Amsgrad, int Warps, class Table>
ADAMW_DEVICE void step(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  auto &own = shared<Shared<State::codes, Warps>>();
  WarpRow &mine = own.rows[warp_id()];
  mine.span = {};
  constexpr bool in_runs = Same<P, RuntimeDtypeInRuns>::value;
  if constexpr (in_runs || Same<P, RuntimeDtype>::value) {
    over_rows<Warps>(table, mine.span, StepAny<State, Amsgrad, in_runs, Warps, Table>{table});
  } else if constexpr (State::codes) {
    over_rows<Warps>(table, mine.span,
                     Stream8<P, G, Amsgrad, Warps, Table>{table, mine, own.fetches[warp_id()], lane_id()});
  } else {
    over_rows<Warps>(table, mine.span,
                     StepNumbers<typename State::Moment, P, G, Amsgrad, Table>{table, mine, lane_id()});
  }
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
