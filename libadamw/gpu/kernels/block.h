// Owns what a warp needs for one block besides its elements: shared memory, where the block lies, its codes and scales.
// Knows no arithmetic on moments.
#pragma once

#include "row_iteration.h"

namespace adamw {
namespace gpu {
namespace {

// All that a kernel has in shared memory. Codes: its state is kept so.
template <bool Codes, int Warps>
struct Shared {
  WarpRow rows[Warps];
};
template <int Warps>
struct Shared<true, Warps> {
  WarpRow rows[Warps];
  Fetch fetches[Warps];  // only of warps that go side by side
};

// ---- codes ----

// A lane's eight codes of each moment, as they lie in memory.
using RawCodes = PerMoment<std::uint32_t[2]>;

template <bool Amsgrad>
ADAMW_DEVICE RawCodes load_codes(const AllBuffers &at, std::int64_t begin, int n, unsigned lane) {
  RawCodes raw{};
  for_each_moment(
      Amsgrad,
      [&](std::uint32_t (&words)[2], const void *base, std::uint8_t zero) {
        load_codes(words, base, begin, n, lane, zero);
      },
      raw, at.moments(), RootCodes::zero);
  return raw;
}

// Of a block: what its codes are read with.
struct OldScales {
  PerMoment<StoredScale> stored;
  PerMoment<CodeLine> lines;
};
template <bool Amsgrad>
ADAMW_DEVICE OldScales old_scales(const PerMoment<StoredScale> &stored) {
  return {stored, map_moments(Amsgrad, [](const StoredScale &one) { return code_line(one.floor); }, stored)};
}

// The values of the j-th of a lane's codes, in units of their scales.
template <bool Amsgrad>
ADAMW_DEVICE PerMoment<float> decode(const RawCodes &raw, int j, const OldScales &old) {
  const auto code = [j](const std::uint32_t (&words)[2]) { return code_at(words, j); };
  return RootCodes::decode<float>(Amsgrad, map_moments(Amsgrad, code, raw), old.lines);
}

// The largest and smallest of some magnitudes as bits, which order as the numbers do, with infinities and NaN on top.
struct ExtremeBits {
  std::uint32_t largest = 0, smallest = 0x7FFFFFFF;

  ADAMW_DEVICE void see(std::uint32_t b) {
    largest = larger(largest, b);
    smallest = smaller(smallest, b);
  }
  // A lane's part of a block, element by element: what is beyond n is no number of it.
  ADAMW_DEVICE void see(const float *x, int n, unsigned lane) {
    for (int j = 0; j < each; ++j)
      if (Singles::index(lane, j) < n) see(bits(absolute(x[j])));
  }
  ADAMW_DEVICE ExtremeBits of_warp() const { return {warp_max(largest), warp_min(smallest)}; }
  ADAMW_DEVICE Extremes extremes() const { return {from_bits(largest), from_bits(smallest)}; }
};

// ---- a block and its scales ----

// A block of a row, and what its step needs besides the elements.
struct Block {
  const LaunchHead &head;
  const LaunchRow &row;
  const AllBuffers &at;
  int number;  // of the row
  std::int64_t block, begin;
  int n;
  unsigned lane;

  // The index of its first element in the unsharded tensor. Runs: the row's elements lie there in runs.
  template <bool Runs>
  ADAMW_DEVICE std::uint64_t start() const {
    return static_cast<std::uint64_t>(Runs ? global_index(row.global_offset, head.runs[row.runs], begin)
                                           : row.global_offset + begin);
  }

  ADAMW_DEVICE bool amsgrad() const { return at.max_exp_avg_sq != nullptr; }

  ADAMW_DEVICE PerMoment<StoredScale> stored_scales(bool tensorwise) const {
    if (tensorwise) return head.results[number].old_scales;
    return map_moments(amsgrad(), [this](const ScaleArrays &all) { return all.at(block); }, at.scales());
  }

  // The scales of the new moments from their extremes in this block; written where this block is to.
  template <bool Amsgrad>
  ADAMW_DEVICE PerMoment<Scale> new_scales(bool tensorwise, const PerMoment<Extremes> &found) const {
    const PerMoment<Scale> s = tensorwise ? head.results[number].scales : RootCodes::scales(Amsgrad, found);
    // A tensor's one scale is written with its first block: nothing else of this launch reads it.
    if (lane == 0 && (!tensorwise || block == 0)) {
      for_each_moment(
          Amsgrad, [this](const ScaleArrays &to, const Scale &scale) { to.put(block, scale); }, at.scales(), s);
    }
    return s;
  }
};

template <class Row>
ADAMW_DEVICE Block make_block(const LaunchHead &head, const Row *rows, int number, std::int64_t block,
                              const AllBuffers &at, const BlockLayout::Place &place, unsigned lane) {
  return {head, rows[number], at, number, block, place.begin, place.length, lane};
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
