// Owns the fuzzed calls beside adamw_step(): layouts, quantization, master weights, norms, threads, texts, descriptions
// of tensors, pagers.
#pragma once

#include "choices.h"
#include "memory.h"

void fuzz_layout(Choices &choices, Memory &memory);
void fuzz_quantize(Choices &choices, Memory &memory);
void fuzz_split(Choices &choices, Memory &memory);
void fuzz_norm(Choices &choices, Memory &memory);
void fuzz_clip(Choices &choices, Memory &memory);
void fuzz_process(Choices &choices);  // threads, kernels, versions, texts
void fuzz_inits(Choices &choices, Memory &memory);
void fuzz_describe(Choices &choices, Memory &memory);
void fuzz_table(Choices &choices, Memory &memory);
// The life of one pager: made, used by steps and by hand, and given back.
void fuzz_pager(Choices &choices, Memory &memory);
