// Owns where the blocks of a tensor lie (see adamw_state_format). Knows no dtype and no device.
#pragma once

#include "types.h"

namespace adamw {

constexpr int block_size = 256;

// a / b and the rest, for a >= 0, b > 0. GPUs have no 64-bit division: where both fit in 32 bits the short one will do.
struct Quotient {
  std::int64_t quotient, rest;
};
ADAMW_INLINE Quotient divide(std::int64_t a, std::int64_t b) {
#if defined(__CUDACC__)
  if (((a | b) >> 32) == 0) {
    const std::uint32_t x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b), q = x / y;
    return {q, x - q * y};
  }
#endif
  return {a / b, a % b};
}

ADAMW_INLINE std::int64_t blocks_in(std::int64_t elements) {
  return elements / block_size + (elements % block_size != 0);
}

// How a row's elements lie in the unsharded tensor: see adamw_tensor.run_length. `begin`: where element 0 lies in its
// run; not 0 only in a part of a row.
struct IndexRuns {
  std::int64_t length, stride, begin;
};

// The index of element i there. `offset`: that of the first element of element 0's run.
ADAMW_INLINE std::int64_t global_index(std::int64_t offset, const IndexRuns &runs, std::int64_t i) {
  if (runs.length == 0) return offset + i;
  const Quotient q = divide(runs.begin + i, runs.length);
  return offset + q.quotient * runs.stride + q.rest;
}

struct BlockLayout {
  std::int64_t numel, row_length, blocks_per_row, count;  // blocks_per_row = 0: flat

  struct Place {
    std::int64_t begin;
    int length;
  };
  ADAMW_INLINE Place place(std::int64_t block) const {
    if (blocks_per_row == 0) return at(0, block, numel);
    const Quotient q = divide(block, blocks_per_row);
    return at(q.quotient * row_length, q.rest, row_length);
  }

 private:
  static ADAMW_INLINE Place at(std::int64_t row, std::int64_t block, std::int64_t elements) {
    const std::int64_t rest = elements - block * block_size;
    return {row + block * block_size, static_cast<int>(rest < block_size ? rest : block_size)};
  }
};

// Rows shorter than this share flat blocks: a scale each would eat the saving.
constexpr std::int64_t shortest_block_row = 64;

ADAMW_INLINE BlockLayout block_layout(std::int64_t numel, std::int64_t row_length) {
  const bool rows = row_length >= shortest_block_row && row_length % block_size != 0 && row_length < numel;
  if (!rows) return {numel, numel, 0, blocks_in(numel)};
  return {numel, row_length, blocks_in(row_length), numel / row_length * blocks_in(row_length)};
}

}  // namespace adamw
