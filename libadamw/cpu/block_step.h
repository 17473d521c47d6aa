// Owns the step of a run of blocks, and what is measured before it: one flow for every format of the state, written
// once against a vector type. Knows nothing of threads, of what lies beyond its row, or of how arguments were checked.
#pragma once

#include "coded_moments.h"
#include "kernels.h"
#include "number_moments.h"

namespace adamw {
namespace {

template <class Coding, bool Amsgrad>
std::int64_t step_blocks(const StepKind &kind, const Row &row, const PerMoment<Scale> *scales, std::int64_t first,
                         std::int64_t last) {
  const Coefficients &c = row.coefficients;
  Words words;
  Operands o;
  BlockMoments<Coding, Amsgrad> moments(kind, row);
  std::int64_t skipped = 0;
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    o.load(kind, row);
    moments.load(o, block);
    const std::int64_t index = row.index(o.begin);
    skipped += moments.step(o, block, scales, [&]() -> const Words & {
      words.fill(c.state_key, index, o.padded);
      return words;
    });
    o.params.commit(c, index, words);
    moments.commit();
  }
  return skipped;
}

template <class Coding, bool Amsgrad>
Measures measure_blocks(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  Measures all{0.0, 0.0, {nothing_found, nothing_found, nothing_found}};
  Operands o;
  BlockMoments<Coding, Amsgrad> moments(kind, row);
  for (std::int64_t block = first; block < last; ++block) {
    o.place(row, block);
    o.load(kind, row);
    moments.load(o, block);
    Squares squares;
    moments.directions(o, all, squares);
    squares.add_to(all);
  }
  return all;
}

std::int64_t step(const StepKind &kind, const Row &row, const PerMoment<Scale> *scales, std::int64_t first,
                  std::int64_t last) {
  return dispatch_format(kind.state_format, [&](auto coding) {
    using Coding = typename decltype(coding)::Type;
    return kind.amsgrad ? step_blocks<Coding, true>(kind, row, scales, first, last)
                        : step_blocks<Coding, false>(kind, row, scales, first, last);
  });
}

Measures measure(const StepKind &kind, const Row &row, std::int64_t first, std::int64_t last) {
  return dispatch_format(kind.state_format, [&](auto coding) {
    using Coding = typename decltype(coding)::Type;
    return kind.amsgrad ? measure_blocks<Coding, true>(kind, row, first, last)
                        : measure_blocks<Coding, false>(kind, row, first, last);
  });
}

}  // namespace
}  // namespace adamw
