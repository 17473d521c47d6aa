// Owns fuzzed calls of adamw_quantize() and adamw_dequantize(): their verdicts, and every code and number against
// root codes by their definition.
#include <algorithm>
#include <cmath>
#include <string>

#include "../cpp/codes.h"
#include "finding.h"
#include "kept.h"
#include "other_calls.h"
#include "resize.h"
#include "step_run.h"

namespace {

struct Call {
  adamw_quantize_options o;
  float *floats, *absmax, *floor;
  bool is_signed() const { return o.moment == ADAMW_MOMENT_EXP_AVG; }
  float floor_at(std::int64_t block) const { return is_signed() ? 0.0f : floor[block]; }
  std::uint8_t *codes;
};

void spoil(Call &c, const adamw_quantize_options *&options, Choices &choices) {
  adamw_quantize_options &o = c.o;
  std::int32_t *const enums[] = {&o.moment, &o.state_format, &o.rounding, &o.device, &o.num_threads, &o.reserved};
  std::int64_t *const numbers[] = {&o.numel, &o.row_length, &o.step, &o.global_offset};
  const auto beside = [](void *p, int by) { return static_cast<char *>(p) + by; };
  switch (choices.below(7)) {
    case 0: {
      std::int32_t &field = *enums[choices.below(6)];
      field = static_cast<std::int32_t>(choices.hostile_integer());
      if (&field == &o.num_threads) field = -1 - (field & INT32_MAX);
      break;
    }
    case 1:
      *numbers[choices.below(4)] = choices.hostile_integer();
      break;
    case 2:
      *numbers[choices.below(4)] += choices.of({1, -1, 256});
      break;
    case 3:
      o.size = choices.of<std::size_t>({0, 64, sizeof o + 4, 4104, SIZE_MAX});
      break;
    case 4:
      options = nullptr;
      break;
    case 5:
      if (choices.below(3) == 0) c.floats = nullptr;
      if (choices.below(3) == 0) c.codes = nullptr;
      if (choices.below(3) == 0) c.absmax = nullptr;
      if (choices.below(3) == 0) c.floor = nullptr;
      break;
    default: {
      const int by = choices.of({1, 2, -1, 4});
      if (choices.below(2) == 0) c.floats = reinterpret_cast<float *>(beside(c.floats, by));
      if (choices.below(2) == 0) c.absmax = reinterpret_cast<float *>(beside(c.absmax, by));
      if (choices.below(2) == 0) c.floor = reinterpret_cast<float *>(beside(c.floor, by));
      if (choices.below(4) == 0) c.floor = c.absmax;
      if (choices.below(3) == 0) c.codes = reinterpret_cast<std::uint8_t *>(c.floats) + choices.below(8);
      break;
    }
  }
}

std::int64_t block_of(const adamw_quantize_options &o, std::int64_t i) {
  if (o.state_format == ADAMW_STATE_TENSOR8) return 0;
  const Layout l = layout_of(o.state_format, o.numel, o.row_length, false);
  if (l.blocks_per_row == 0) return i / ADAMW_BLOCK_SIZE;
  return i / o.row_length * static_cast<std::int64_t>(l.blocks_per_row) + i % o.row_length / ADAMW_BLOCK_SIZE;
}

// x is what counts of a number, absmax is the block's.
void compare_code(const Call &c, std::int64_t i, float x, float absmax, float floor) {
  const bool is_signed = c.is_signed();
  const float scaled = absmax == 0 ? 0.0f : std::fabs(x) * (1.0f / absmax);
  const bool nearest = c.o.rounding == ADAMW_ROUND_NEAREST || (is_signed && scaled >= 0.0625f);
  double position = is_signed ? std::copysign(exp_avg_position(scaled), double{x})
                              : std::clamp(exp_avg_sq_position(scaled, floor), 0.0, 255.0);
  if (!is_signed && floor == floor_of_zeros) position = std::max(position, 1.0);
  const bool is_zero = absmax == 0 || x == 0;
  const int code = c.codes[i] - (is_signed ? 128 : 0);
  if (is_zero ? code != 0 : !(std::fabs(code - position) <= (nearest ? 0.5 : 1.0) + position_error))
    finding("element %lld: %.9g of absmax %.9g and floor %.9g has code %d, but lies at %.9g", static_cast<long long>(i),
            double{c.floats[i]}, double{absmax}, double{floor}, c.codes[i], position);
}

void compare_codes(const Call &c) {
  const adamw_quantize_options &o = c.o;
  const auto number = [&](std::int64_t i) {
    const float x = c.floats[i];
    return std::isfinite(x) && (c.is_signed() || x > 0) ? x : 0.0f;
  };
  for (std::int64_t first = 0; first < o.numel;) {
    const std::int64_t block = block_of(o, first);
    std::int64_t end = first;
    float most = 0, least = INFINITY;
    for (; end < o.numel && block_of(o, end) == block; ++end) {
      most = std::max(most, std::fabs(number(end)));
      least = std::min(least, std::fabs(number(end)));
    }
    if (most < 0x1p-126f) most = 0;
    const float root = most == 0 ? floor_of_zeros : floor_of(least * (1.0f / most));
    const float scale = c.absmax[block], floor = c.floor_at(block);
    if (scale != most || (!c.is_signed() && floor != root))
      finding("absmax and floor %lld are %.9g and %.9g, must be %.9g and %.9g", static_cast<long long>(block),
              double{scale}, double{floor}, double{most}, double{root});
    for (std::int64_t i = first; i < end; ++i) compare_code(c, i, number(i), scale, floor);
    first = end;
  }
}

void compare_numbers(const Call &c) {
  for (std::int64_t i = 0; i < c.o.numel; ++i) {
    const std::int64_t block = block_of(c.o, i);
    const float x = decoded(c.is_signed(), c.codes[i], c.absmax[block], c.floor_at(block)), is = c.floats[i];
    if (!(bits_of(x) == bits_of(is) || (x != x && is != is)))
      finding("element %lld: code %d is %.9g, must be %.9g", static_cast<long long>(i), c.codes[i], double{is},
              double{x});
  }
}

}  // namespace

void fuzz_quantize(Choices &choices, Memory &memory) {
  static constexpr std::int64_t lengths[] = {1, 63, 64, 100, 255, 256, 257, 300, 512, 700};
  Call c{ADAMW_QUANTIZE_OPTIONS_INIT, nullptr, nullptr, nullptr, nullptr};
  adamw_quantize_options &o = c.o;
  o.moment = choices.below(2), o.state_format = 1 + choices.below(2), o.rounding = choices.below(2);
  o.num_threads = choices.of({1, 0, 3});
  o.row_length = lengths[choices.below(10)];
  o.numel = o.row_length * choices.below(5);
  if (choices.below(3) == 0) o.row_length = o.numel;
  o.step = static_cast<std::int64_t>(choices.bits(2)), o.seed = choices.bits(2);
  o.global_offset = static_cast<std::int64_t>(choices.bits(4));
  if (choices.one_in(16)) o.stream = &o;
  Random random(choices.bits(4));
  const bool back = choices.below(2) == 1, ordinary = choices.below(3) != 0;
  const auto n = static_cast<std::size_t>(o.numel);
  const auto scales = static_cast<std::size_t>(layout_of(o.state_format, o.numel, o.row_length, false).scales);
  c.floats = reinterpret_cast<float *>(memory.take(n * 4, choices.below(2) == 0).at);
  c.codes = memory.take(n, choices.below(2) == 0).at;
  c.absmax = reinterpret_cast<float *>(memory.take(scales * 4, choices.below(2) == 0).at);
  c.floor = reinterpret_cast<float *>(memory.take(scales * 4, choices.below(2) == 0).at);
  fill(c.floats, ADAMW_FLOAT32, o.numel, random, !ordinary);
  for (std::size_t i = 0; i < n; ++i) c.codes[i] = static_cast<std::uint8_t>(random.bits());
  for (std::size_t i = 0; i < scales; ++i) c.absmax[i] = ordinary ? random.uniform() : random.any_float();
  for (std::size_t i = 0; i < scales; ++i) {
    const float valid = random.below(4) == 0 ? floor_of_zeros : floor_of_zeros + static_cast<float>(random.unit());
    c.floor[i] = ordinary ? std::min(valid, 1.0f) : random.any_float();
  }
  if (c.is_signed() && choices.below(2) == 0) c.floor = nullptr;
  const adamw_quantize_options *options = &o;
  if (choices.one_in(3)) spoil(c, options, choices);
  const adamw_quantize_options *passed = options;
  bool unknown = false;
  if (options != nullptr && o.size == sizeof o && choices.one_in(4)) {
    const auto r = resized_options(o, ADAMW_QUANTIZE_OPTIONS_INIT, 72, choices, memory);
    passed = r.at, unknown = r.unknown;
  }
  memory.remember();
  const QuantizeCall call{options, c.floats, c.codes, c.absmax, c.floor, back, kernel_missing, unknown};
  const Statuses errors = quantize_errors(call);
  if ((allowed(errors) & ok) != 0 && o.numel > 0) {  // its buffers must be there
    const auto holds = [&](const void *p, Wide bytes) {
      const Buffer *const b = memory.containing(p);
      return b != nullptr && bytes <= Wide{b->at + b->bytes - static_cast<const std::uint8_t *>(p)};
    };
    const Layout l = layout_of(o.state_format, o.numel, o.row_length, false);
    if (!holds(c.floats, Wide{o.numel} * 4) || !holds(c.codes, o.numel) || !holds(c.absmax, l.scales * 4)) return;
    if (!c.is_signed() && !holds(c.floor, l.scales * 4)) return;
  }
  const Telling telling([&] {
    return std::string(back ? "adamw_dequantize" : "adamw_quantize") + " moment " + std::to_string(o.moment) +
           " format " + std::to_string(o.state_format) + " rounding " + std::to_string(o.rounding) + " numel " +
           std::to_string(o.numel) + " row_length " + std::to_string(o.row_length) + " step " + std::to_string(o.step) +
           " global_offset " + std::to_string(o.global_offset) + " device " + std::to_string(o.device) + " size " +
           std::to_string(passed != nullptr ? passed->size : 0) + (unknown ? " with unknown bytes" : "");
  });
  const adamw_status status = back ? adamw_dequantize(passed, c.codes, c.absmax, c.floor, c.floats)
                                   : adamw_quantize(passed, c.floats, c.codes, c.absmax, c.floor);
  ++tally.quantized;
  if ((allowed(errors) & only(status)) == 0)
    finding("status %d '%s', allowed: set %#x", status, adamw_last_error(), allowed(errors));
  if (!memory.canaries_live()) finding("bytes beside a buffer were written");
  if (status != ADAMW_OK) {
    if (memory.changed() != nullptr) finding("refused, but a buffer was written");
    return;
  }
  for (std::size_t k = 0; k < memory.count(); ++k) {
    const bool written = back ? memory[k].at == reinterpret_cast<std::uint8_t *>(c.floats)
                              : memory[k].at == c.codes || memory[k].at == reinterpret_cast<std::uint8_t *>(c.absmax) ||
                                    (!c.is_signed() && memory[k].at == reinterpret_cast<std::uint8_t *>(c.floor));
    if (memory.is_changed(memory[k]) && !written && memory.containing(c.codes) != &memory[k])
      finding("what is read was written");
  }
  if (!back) add_to_digest(c.codes, static_cast<std::size_t>(std::max<std::int64_t>(o.numel, 0)));
  back ? compare_numbers(c) : compare_codes(c);
}
