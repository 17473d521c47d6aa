// Owns master weights without a step: splitting and joining them, element by element.
#pragma once

#include "params.h"

namespace adamw {
namespace gpu {
namespace {

// body(i) for every element, neighbours by neighbours.
template <class Body>
ADAMW_DEVICE void over_elements(std::int64_t numel, const Body &body) {
  const std::int64_t threads = block_threads(), all = threads * block_count();
  for (std::int64_t i = threads * block_id() + thread_id(); i < numel; i += all) body(i);
}

ADAMW_DEVICE void split_weights(const SplitTable &t) {
  over_elements(t.numel, [&](std::int64_t i) {
    const std::uint32_t noise =
        t.stochastic ? noise_of_24_bits(random_word(t.key, static_cast<std::uint64_t>(t.global_offset + i)))
                     : nearest_of_24_bits;
#define ADAMW_CASE(bits) \
  if (t.remainder_bits == bits) store_weight<bits>(t.weights[i], noise, t.param, t.remainder, i);
    ADAMW_KERNEL_REMAINDERS(ADAMW_CASE)
#undef ADAMW_CASE
  });
}

ADAMW_DEVICE void join_weights(const SplitTable &t) {
  over_elements(t.numel, [&](std::int64_t i) {
#define ADAMW_CASE(bits) \
  if (t.remainder_bits == bits) t.weights[i] = load_weight<bits>(t.param, t.remainder, i);
    ADAMW_KERNEL_REMAINDERS(ADAMW_CASE)
#undef ADAMW_CASE
  });
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
