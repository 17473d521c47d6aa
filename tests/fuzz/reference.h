// Owns the step in double precision as adamw.h says it, and the comparison of what the library left with it. Knows
// nothing of the library's order of operations.
#pragma once

#include <cstdint>

#include "../../include/adamw.h"

// The memory of one row before or after a step.
struct RowBytes {
  const void *param, *remainder, *grad, *moments[3];
  const float *scales[3], *floors[3], *history;  // floors[0]: null
};

// Ends in a finding where they differ by more than the roundings explain. Adds to the range in which the number of
// elements that 8-bit state skipped must lie.
struct SkippedRange {
  std::int64_t min, max;
};
void compare_step(const adamw_step_options &o, const adamw_tensor &t, std::int64_t number, const RowBytes &before,
                  const RowBytes &after, SkippedRange &skipped);

double element(const void *memory, std::int32_t dtype, std::int64_t i);
