// Owns a fuzzed call of adamw_step(): its options, its table and their buffers, mostly right and often not. Knows
// nothing of what the call should do.
#pragma once

#include <functional>

#include "../cpp/inputs.h"
#include "choices.h"
#include "memory.h"

struct StepInput {
  adamw_step_options *options;  // NULL if mutated so
  adamw_tensor *tensors;
  std::size_t tensor_size;
  std::int64_t count;  // as passed
  std::int64_t rows;   // that there are
  bool comparable;     // no NaN can arise, whose bits kernels may choose
  // What is passed in the place of the options and of the table, if these have the size of another version.
  const adamw_step_options *passed_options;
  const adamw_tensor *passed_tensors;
  bool unknown;  // they ask for what today's header does not know
};

// Where state lies: memory of `bytes`, or NULL for ordinary memory.
using StateMemory = std::function<void *(std::size_t bytes)>;

// A right call, in `memory`.
StepInput make_step(Choices &choices, Memory &memory, const StateMemory &state);
// One thing about it becomes what a careless or hostile caller passes.
void spoil(StepInput &input, Choices &choices, Memory &memory);
