// Owns fuzzed calls of adamw_split_weights() and adamw_join_weights(): their verdicts, and every bit by its definition.
#include <algorithm>
#include <string>

#include "../cpp/weights.h"
#include "../cpp/words.h"
#include "finding.h"
#include "other_calls.h"
#include "resize.h"
#include "step_run.h"

namespace {

struct Call {
  adamw_split_options o;
  float *weights;
  std::uint16_t *param;
  void *remainder;

  int rest(std::int64_t i) const {
    return o.remainder_bits == 8 ? static_cast<const std::int8_t *>(remainder)[i]
                                 : static_cast<const std::int16_t *>(remainder)[i];
  }
};

template <class T>
T *beside(T *pointer, std::int64_t by) {
  return reinterpret_cast<T *>(reinterpret_cast<std::uintptr_t>(pointer) + static_cast<std::uintptr_t>(by));
}

void spoil(Call &c, const adamw_split_options *&options, Choices &choices) {
  adamw_split_options &o = c.o;
  std::int32_t *const enums[] = {&o.remainder_bits, &o.rounding, &o.device, &o.num_threads};
  std::int64_t *const numbers[] = {&o.numel, &o.step, &o.global_offset};
  switch (choices.below(7)) {
    case 0: {
      std::int32_t &field = *enums[choices.below(4)];
      field = static_cast<std::int32_t>(choices.hostile_integer());
      if (&field == &o.num_threads) field = -1 - (field & INT32_MAX);
      break;
    }
    case 1:
      *numbers[choices.below(3)] = choices.hostile_integer();
      break;
    case 2:
      *enums[choices.below(3)] += choices.of({1, -1, 8, -8, 16});
      break;
    case 3:
      o.size = choices.of<std::size_t>({0, 48, sizeof o + 4, 4104, SIZE_MAX});
      break;
    case 4:
      options = nullptr;
      break;
    case 5:
      if (choices.below(3) == 0) c.weights = nullptr;
      if (choices.below(3) == 0) c.param = nullptr;
      if (choices.below(3) == 0) c.remainder = nullptr;
      break;
    default: {
      const int by = choices.of({1, 2, -1, 4});
      if (choices.below(2) == 0) c.weights = beside(c.weights, by);
      if (choices.below(2) == 0) c.param = beside(c.param, by);
      if (choices.below(2) == 0) c.remainder = beside(c.remainder, by);
      if (choices.below(3) == 0) c.remainder = c.param;
      if (choices.below(3) == 0) c.param = beside(reinterpret_cast<std::uint16_t *>(c.weights), choices.below(8));
      break;
    }
  }
}

// weights: as they were, if they were split.
void compare(const Call &c, const std::vector<std::uint32_t> &weights, bool back) {
  const int bits = c.o.remainder_bits;
  const std::uint32_t key = state_key_by_definition(c.o.seed, c.o.step);
  for (std::int64_t i = 0; i < c.o.numel; ++i) {
    const auto k = static_cast<std::size_t>(i);
    const std::uint32_t word = word_by_definition(key, static_cast<std::uint64_t>(c.o.global_offset) + k),
                        noise = c.o.rounding == ADAMW_ROUND_STOCHASTIC ? noise_by_definition(word) : to_nearest;
    if (back) {
      const std::uint32_t is = bits_of(c.weights[i]), must = joined_by_definition(bits, c.param[i], c.rest(i));
      if (is != must && !(is_nan(is) && is_nan(must)))
        finding("element %lld: %04x and %d are %08x, must be %08x", static_cast<long long>(i), c.param[i], c.rest(i),
                is, must);
    } else if (c.param[i] != param_by_definition(bits, weights[k], noise) ||
               c.rest(i) != remainder_by_definition(bits, weights[k], noise)) {
      finding("element %lld: %08x became %04x and %d, must be %04x and %d", static_cast<long long>(i), weights[k],
              c.param[i], c.rest(i), param_by_definition(bits, weights[k], noise),
              remainder_by_definition(bits, weights[k], noise));
    }
  }
}

}  // namespace

void fuzz_split(Choices &choices, Memory &memory) {
  Call c{ADAMW_SPLIT_OPTIONS_INIT, nullptr, nullptr, nullptr};
  adamw_split_options &o = c.o;
  o.remainder_bits = choices.of({16, 8});
  o.rounding = choices.below(2);
  o.num_threads = choices.of({1, 0, 3});
  o.numel = choices.of({1, 0, 15, 16, 255, 256, 257, 700}) * (choices.one_in(8) ? 50 : 1);
  o.step = static_cast<std::int64_t>(choices.bits(2)), o.seed = choices.bits(2);
  o.global_offset = static_cast<std::int64_t>(choices.bits(5));
  if (choices.one_in(16)) o.stream = &o;
  Random random(choices.bits(4));
  const bool back = choices.below(2) == 1, ordinary = choices.below(2) == 0;
  const auto n = static_cast<std::size_t>(o.numel), rest_bytes = n * static_cast<std::size_t>(o.remainder_bits / 8);
  c.weights = reinterpret_cast<float *>(memory.take(n * 4, choices.below(2) == 0).at);
  c.param = reinterpret_cast<std::uint16_t *>(memory.take(n * 2, choices.below(2) == 0).at);
  c.remainder = memory.take(rest_bytes, choices.below(2) == 0).at;
  for (std::size_t i = 0; i < n; ++i) c.weights[i] = ordinary ? random.uniform() : random.any_float();
  for (std::size_t i = 0; i < n; ++i) c.param[i] = static_cast<std::uint16_t>(random.bits());
  for (std::size_t i = 0; i < n; i += 5) c.param[i] = choices.of<std::uint16_t>({0, 0x8000, 0x7F80, 0xFF80, 0x7FC0});
  for (std::size_t i = 0; i < rest_bytes; ++i)
    static_cast<std::uint8_t *>(c.remainder)[i] = static_cast<std::uint8_t>(random.bits());
  const adamw_split_options *options = &o;
  if (choices.one_in(3)) spoil(c, options, choices);
  const adamw_split_options *passed = options;
  bool unknown = false;
  if (options != nullptr && o.size == sizeof o && choices.one_in(4)) {
    const auto r = resized_options(o, ADAMW_SPLIT_OPTIONS_INIT, 56, choices, memory);
    passed = r.at, unknown = r.unknown;
  }
  memory.remember();
  const Statuses errors = split_errors({options, c.weights, c.param, c.remainder, back, kernel_missing, unknown});
  const bool may_work = (allowed(errors) & ok) != 0 && o.numel > 0;
  if (may_work) {  // its buffers must be there
    const auto holds = [&](const void *p, std::int64_t size) {
      const Buffer *const b = memory.containing(p);
      return b != nullptr && Wide{o.numel} * size <= Wide{b->at + b->bytes - static_cast<const std::uint8_t *>(p)};
    };
    if (!holds(c.weights, 4) || !holds(c.param, 2) || !holds(c.remainder, o.remainder_bits / 8)) return;
  }
  std::vector<std::uint32_t> weights;
  for (std::int64_t i = 0; may_work && i < o.numel; ++i) weights.push_back(bits_of(c.weights[i]));
  const Telling telling([&] {
    return std::string(back ? "adamw_join_weights" : "adamw_split_weights") + " remainder_bits " +
           std::to_string(o.remainder_bits) + " rounding " + std::to_string(o.rounding) + " numel " +
           std::to_string(o.numel) + " step " + std::to_string(o.step) + " global_offset " +
           std::to_string(o.global_offset) + " device " + std::to_string(o.device) + " size " +
           std::to_string(passed != nullptr ? passed->size : 0) + (unknown ? " with unknown bytes" : "");
  });
  const adamw_status status = back ? adamw_join_weights(passed, c.param, c.remainder, c.weights)
                                   : adamw_split_weights(passed, c.weights, c.param, c.remainder);
  ++tally.quantized;
  if ((allowed(errors) & only(status)) == 0)
    finding("status %d '%s', allowed: set %#x", status, adamw_last_error(), allowed(errors));
  if (!memory.canaries_live()) finding("bytes beside a buffer were written");
  if (status != ADAMW_OK) {
    if (memory.changed() != nullptr) finding("refused, but a buffer was written");
    return;
  }
  if (!may_work) return;
  for (std::size_t k = 0; k < memory.count(); ++k) {
    const Buffer *const b = &memory[k];
    const bool written = back ? b == memory.containing(c.weights)
                              : b == memory.containing(c.param) || b == memory.containing(c.remainder);
    if (memory.is_changed(*b) && !written) finding("what is read was written");
  }
  if (!back) add_to_digest(c.param, static_cast<std::size_t>(o.numel) * 2);
  if (!back)
    add_to_digest(c.remainder, static_cast<std::size_t>(o.numel) * static_cast<std::size_t>(o.remainder_bits / 8));
  compare(c, weights, back);
}
