// Owns which function an input calls, see target.h; libFuzzer calls LLVMFuzzerTestOneInput(), main.cpp run_input().
#include "target.h"

#include <cstdlib>

#include "finding.h"
#include "other_calls.h"
#include "step_run.h"

void run_input(const std::uint8_t *data, std::size_t size) {
  static Memory memory;
  static const bool missing = [] {
    const char *name;
    return kernel_missing = adamw_cpu_kernel(&name) == ADAMW_ERROR_UNSUPPORTED;
  }();
  static_cast<void>(missing);
  Choices choices(data, size);
  memory.clear();
  const int what = choices.below(64);
  if (what < 42) {
    StepInput input = make_step(choices, memory, nullptr);
    if (choices.below(16) >= 9) spoil(input, choices, memory);
    run_step(input, choices, memory);
  } else if (what < 44) {
    fuzz_table(choices, memory);
  } else if (what < 48) {
    fuzz_quantize(choices, memory);
  } else if (what < 51) {
    fuzz_split(choices, memory);
  } else if (what < 54) {
    fuzz_norm(choices, memory);
  } else if (what < 56) {
    fuzz_clip(choices, memory);
  } else if (what < 58) {
    fuzz_layout(choices, memory);
  } else if (what < 59) {
    fuzz_process(choices);
  } else if (what < 60) {
    fuzz_inits(choices, memory);
  } else if (what < 62) {
    fuzz_describe(choices, memory);
  } else if (!kernel_missing) {
    fuzz_pager(choices, memory);
  }
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
  run_input(data, size);
  return 0;
}
