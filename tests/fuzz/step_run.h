// Owns what becomes of a fuzzed step: the call, its verdict, what it wrote, and the same table row by row.
#pragma once

#include <vector>

#include "step_input.h"
#include "verdict.h"

// Makes the call and checks it. `paged`: the buffers of options.pager; `broken`: errors that the call has beside those
// of its arguments (a pager that is lent).
void run_step(StepInput &input, Choices &choices, Memory &memory, const std::vector<PagerBuffer> &paged = {},
              Statuses broken = 0);

extern bool kernel_missing;  // ADAMW_CPU names no kernel
