// Owns quantization without a step, for the public functions and for state that changes its width.
#pragma once

#include "step.h"

namespace adamw {
namespace gpu {
namespace {

// NaN and infinities, and for the unsigned map what is negative, count as zero.
ADAMW_DEVICE float sanitized(float x, bool is_signed) { return is_finite(x) && (is_signed || x > 0.0f) ? x : 0.0f; }

template <class Body>
ADAMW_DEVICE void over_blocks(const BlockLayout &blocks, const Body &body) {
  for (std::int64_t block = static_cast<std::int64_t>(block_id()) * warps + warp_id(); block < blocks.count;
       block += static_cast<std::int64_t>(block_count()) * warps) {
    const BlockLayout::Place place = blocks.place(block);
    body(block, place.begin, place.length);
  }
}

ADAMW_DEVICE void load_sanitized(float *x, const QuantizeTable &q, std::int64_t begin, int n, unsigned lane) {
  load_floats<Float32, Singles>(x, q.floats, begin, n, lane);
  for (int j = 0; j < each; ++j) x[j] = sanitized(x[j], q.is_signed);
}

ADAMW_DEVICE void find_largest(const QuantizeTable &q) {
  const unsigned lane = lane_id();
  std::uint32_t largest = 0;
  over_blocks(q.blocks, [&](std::int64_t, std::int64_t begin, int n) {
    float x[each];
    load_sanitized(x, q, begin, n, lane);
    const std::uint32_t b = largest_bits(x);
    largest = b > largest ? b : largest;
  });
  if (lane == 0) atomic_max(q.largest, largest);
}

ADAMW_DEVICE void quantize_blocks(const QuantizeTable &q) {
  const Tables &t = filled(shared<Tables>());
  const unsigned lane = lane_id();
  over_blocks(q.blocks, [&](std::int64_t block, std::int64_t begin, int n) {
    float x[each];
    load_sanitized(x, q, begin, n, lane);
    const Scale scale = block_scale(from_bits(q.tensorwise ? *q.largest : largest_bits(x)));
    if (lane == 0 && (!q.tensorwise || block == 0)) q.absmax[block] = scale.absmax;
    std::uint32_t codes[each], words[each];
    if (q.stochastic)
      Words{q.key, group_key(q.key, 0)}.template fill<Singles>(
          words, static_cast<std::uint64_t>(q.global_offset + begin), lane);
    for (int j = 0; j < each; ++j) {
      const std::uint32_t noise = q.stochastic ? noise_of(words[j]) : 0u;
      codes[j] = q.is_signed ? encode_signed(x[j], scale.inverse, noise, t.signed_lines)
                             : encode_unsigned(x[j], scale.inverse, noise, t.unsigned_lines);
    }
    store_codes<Singles>(codes, first_of<std::uint8_t, Singles>(q.codes, begin, lane), n, lane);
  });
}

ADAMW_DEVICE void dequantize_blocks(const QuantizeTable &q) {
  const Tables &t = filled(shared<Tables>());
  const unsigned lane = lane_id();
  const float *values = q.is_signed ? t.signed_value : t.unsigned_value;
  over_blocks(q.blocks, [&](std::int64_t block, std::int64_t begin, int n) {
    const float scale = q.absmax[q.tensorwise ? 0 : block];
    for (int j = 0; j < each; ++j) {
      const int i = Singles::index(lane, j);
      if (i < n) q.floats[begin + i] = values[q.codes[begin + i]] * scale;
    }
  });
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
