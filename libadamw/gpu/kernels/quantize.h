// Owns quantization without a step, for the public functions and for state that changes its width.
#pragma once

#include "step.h"

namespace adamw {
namespace gpu {
namespace {

// NaN and infinities, and of second moments what is negative, count as zero.
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

ADAMW_DEVICE void find_extremes(const QuantizeTable &q) {
  const unsigned lane = lane_id();
  ExtremeBits seen;
  over_blocks(q.blocks, [&](std::int64_t, std::int64_t begin, int n) {
    float x[each];
    load_sanitized(x, q, begin, n, lane);
    seen.see(x, n, lane);
  });
  seen = seen.of_warp();
  if (lane == 0) {
    atomic_max(&q.found->largest, seen.largest);
    atomic_max(&q.found->smallest_inverted, ~seen.smallest);
  }
}

ADAMW_DEVICE void quantize_blocks(const QuantizeTable &q) {
  const unsigned lane = lane_id();
  over_blocks(q.blocks, [&](std::int64_t block, std::int64_t begin, int n) {
    float x[each];
    load_sanitized(x, q, begin, n, lane);
    ExtremeBits seen;
    if (q.tensorwise) {
      seen = {q.found->largest, ~q.found->smallest_inverted};
    } else {
      seen.see(x, n, lane);
      seen = seen.of_warp();
    }
    const Scale scale = RootCodes::scale_one(q.is_signed, seen.extremes());
    if (lane == 0 && (!q.tensorwise || block == 0)) q.scales.put(block, scale);
    std::uint32_t codes[each], words[each];
    if (q.stochastic)
      Words{q.key, group_key(q.key, 0)}.template fill<Singles>(
          words, static_cast<std::uint64_t>(q.global_offset + begin), lane);
    for (int j = 0; j < each; ++j) {
      const std::uint32_t noise = q.stochastic ? noise_of(words[j]) : 0u;
      // A scale of zero stands for a block whose numbers are too small to keep: they must not become code 1.
      codes[j] = RootCodes::encode_one(q.is_signed, scale.absmax > 0.0f ? x[j] : 0.0f, scale, noise);
    }
    store_codes<Singles>(codes, first_of<std::uint8_t, Singles>(q.codes, begin, lane), n, lane);
  });
}

ADAMW_DEVICE void dequantize_blocks(const QuantizeTable &q) {
  const unsigned lane = lane_id();
  over_blocks(q.blocks, [&](std::int64_t block, std::int64_t begin, int n) {
    const StoredScale scale = q.scales.at(q.tensorwise ? 0 : block);
    for (int j = 0; j < each; ++j) {
      const int i = Singles::index(lane, j);
      if (i < n) {
        const std::uint32_t code = q.codes[begin + i];
        q.floats[begin + i] = RootCodes::decode_one<float>(q.is_signed, code, scale.floor) * scale.absmax;
      }
    }
  });
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
