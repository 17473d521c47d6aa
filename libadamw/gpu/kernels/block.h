// Owns what a warp needs for one block besides its elements: the tables in shared memory, where the block lies, its
// scales. Knows no arithmetic on moments.
#pragma once

#include "row_iteration.h"

namespace adamw {
namespace gpu {
namespace {

// ---- tables in shared memory ----

struct Tables {
  LineMap signed_lines, unsigned_lines;
  float signed_value[256], unsigned_value[256], unsigned_square[256];
};

// All that a kernel has in shared memory.
template <int Warps>
struct Shared8 {
  Tables tables;
  WarpRow rows[Warps];
  Fetch fetches[Warps];  // only of warps that go side by side
};
template <int Warps>
struct Shared32 {
  WarpRow rows[Warps];
};

// All threads of the block together. `zero`: the position of 0.
ADAMW_DEVICE void fill(LineMap &map, const MapTables &from, float zero) {
  for (unsigned i = thread_id(); i < 128; i += block_threads()) {
    const std::uint32_t c = line_class(from_bits(i << 23));
    map.by_exponent[i] = {from.slope[c], from.offset[c], from.gap_offset[c], next_offset(from.gap_offset[c])};
    if (i == 0) map.by_exponent[i] = {0.0f, zero, from.gap_offset[7], next_offset(from.gap_offset[7])};
  }
}

// All threads of the block together.
ADAMW_DEVICE const Tables &filled(Tables &t) {
  for (unsigned i = thread_id(); i < 256; i += block_threads()) {
    const float value = unsigned_values[i];
    t.signed_value[i] = signed_values[i];
    t.unsigned_value[i] = value;
    t.unsigned_square[i] = value * value;
  }
  fill(t.signed_lines, signed_map, 0.0f);
  fill(t.unsigned_lines, unsigned_map, encode_start);
  barrier();
  return t;
}

// The value of the j-th of eight codes. The code's place in the word becomes a byte offset in two instructions.
ADAMW_DEVICE float value_at(const float *values, const std::uint32_t *codes, int j) {
  const std::uint32_t word = codes[j / 4];
  const std::uint32_t offset = (j % 4 == 0 ? word << 2 : word >> (8 * (j % 4) - 2)) & 0x3FCu;
  return *reinterpret_cast<const float *>(reinterpret_cast<const char *>(values) + offset);
}

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
      raw, at.moments(), DynamicCodes::zero);
  return raw;
}

// The values of the j-th of them, in units of their scales.
template <bool Amsgrad>
ADAMW_DEVICE PerMoment<float> decode(const RawCodes &raw, int j, const Tables &t) {
  return {value_at(t.signed_value, raw.exp_avg, j), value_at(t.unsigned_value, raw.exp_avg_sq, j),
          Amsgrad ? value_at(t.unsigned_value, raw.max_exp_avg_sq, j) : 0.0f};
}

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

  ADAMW_DEVICE PerMoment<float> old_scales(bool tensorwise) const {
    if (tensorwise) return head.results[number].old_scales;
    return map_moments(amsgrad(), [this](const float *scales) { return scales[block]; }, at.scales());
  }

  // The scales of the new moments from the bits of their largest magnitudes; written where this block is to.
  ADAMW_DEVICE PerMoment<Scale> new_scales(bool tensorwise, const PerMoment<std::uint32_t> &largest) const {
    PerMoment<Scale> s;
    if (tensorwise) {
      s = head.results[number].scales;
    } else {
      s = map_moments(amsgrad(), [](std::uint32_t b) { return block_scale(from_bits(b)); }, largest);
    }
    // A tensor's one scale is written with its first block: nothing else of this launch reads it.
    if (lane == 0 && (!tensorwise || block == 0)) {
      for_each_moment(amsgrad(), [this](float *to, const Scale &scale) { to[block] = scale.absmax; }, at.scales(), s);
    }
    return s;
  }
};

template <class Row>
ADAMW_DEVICE Block make_block(const LaunchHead &head, const Row *rows, int number, std::int64_t block,
                              const AllBuffers &at, const BlockLayout::Place &place, unsigned lane) {
  return {head, rows[number], at, number, block, place.begin, place.length, lane};
}

// The bits of the largest magnitude among a warp's numbers; above those of largest_float where one is NaN or infinite.
ADAMW_DEVICE std::uint32_t largest_bits(const float *x) {
  std::uint32_t largest = 0;
  for (int j = 0; j < each; ++j) {
    const std::uint32_t b = bits(x[j]) & 0x7FFFFFFFu;
    largest = b > largest ? b : largest;
  }
  return warp_max(largest);
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
