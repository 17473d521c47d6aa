// Owns what careless and hostile callers do to a call of adamw_step() that was right, see step_input.h.
#include <algorithm>

#include "resize.h"
#include "step_input.h"

namespace {

void spoil_options(adamw_step_options &o, Choices &choices, Memory &memory) {
  double *const reals[] = {&o.lr, &o.beta1, &o.beta2, &o.eps, &o.weight_decay, &o.max_unorm};
  std::int32_t *const enums[] = {&o.param_dtype, &o.grad_dtype,  &o.state_format,  &o.percentile_clipping,
                                 &o.device,      &o.num_threads, &o.remainder_bits};
  const auto aside = [&](void *pointer, int bytes) { return static_cast<char *>(pointer) + bytes; };
  const auto scalar = [&](const float *&pointer) {
    auto *at = reinterpret_cast<float *>(memory.take(4, true).at);
    *at = static_cast<float>(choices.hostile_real());
    pointer = at;
    if (choices.one_in(4)) pointer = reinterpret_cast<float *>(aside(at, -1 - choices.below(3)));
  };
  switch (choices.below(10)) {
    case 0:
    case 1:
      *reals[choices.below(6)] = choices.hostile_real();
      break;
    case 2:
    case 3: {
      // A count of threads is a hostile one only if it is refused: each is a thread that starts.
      std::int32_t &field = *enums[choices.below(7)];
      field = static_cast<std::int32_t>(choices.hostile_integer());
      if (&field == &o.num_threads) field = -1 - (field & INT32_MAX);
      break;
    }
    case 4: {
      std::int32_t &field = *enums[choices.below(7)];
      field += choices.of({1, -1, 3, 100, -3, 8, -8});
      break;
    }
    case 5:
      o.flags = static_cast<std::uint32_t>(choices.bits(4));
      break;
    case 6:
      o.size = choices.of<std::size_t>({0, sizeof o - 1, sizeof o + 1, 120, 4104, SIZE_MAX, 8});
      break;
    case 7:
      scalar(choices.of({&o.grad_scale, &o.found_inf, &o.lr_tensor, &o.grad_factor})[0]);
      break;
    case 8: {
      std::int64_t *&counter = choices.of({&o.skipped, &o.rows_stepped})[0];
      auto *at = memory.take(16, true).at;
      std::fill_n(at, 16, std::uint8_t{0});
      counter = reinterpret_cast<std::int64_t *>(at + choices.below(9));
      break;
    }
    default:
      if (o.skipped != nullptr) o.rows_stepped = o.skipped;
      if (o.skipped == nullptr && o.rows_stepped != nullptr) o.skipped = o.rows_stepped;
      break;
  }
}

// The buffers of a row, as bytes.
constexpr int pointers = 12;
char *pointer_of(const adamw_tensor &t, int k) {
  char *pointer;
  std::memcpy(&pointer, reinterpret_cast<const char *>(&t) + 8 * k, 8);
  return pointer;
}
// As numbers: NULL may be moved, too.
char *moved(char *pointer, int by) {
  return reinterpret_cast<char *>(reinterpret_cast<std::uintptr_t>(pointer) +
                                  static_cast<std::uintptr_t>(std::intptr_t{by}));
}
void set_pointer(adamw_tensor &t, int k, const char *pointer) {
  std::memcpy(reinterpret_cast<char *>(&t) + 8 * k, &pointer, 8);
}

// Two buffers become neighbours, or overlap in their last bytes.
void lay_side_by_side(adamw_tensor &t, int k, adamw_tensor &other, int j, Choices &choices, Memory &memory) {
  const Buffer *const a = memory.containing(pointer_of(t, k)), *const b = memory.containing(pointer_of(other, j));
  const std::size_t shared = choices.of<std::size_t>({0, 1, 4, 2});
  if (a == nullptr || b == nullptr || a == b || a->bytes < shared || b->bytes < shared) return;
  if (a->bytes + b->bytes > Memory::slot_bytes) return;
  std::uint8_t *const at = memory.take(a->bytes + b->bytes - shared, false).at, *const second = at + a->bytes - shared;
  std::memcpy(at, a->at, a->bytes);
  std::memcpy(second, b->at, b->bytes);
  set_pointer(t, k, reinterpret_cast<char *>(at));
  set_pointer(other, j, reinterpret_cast<char *>(second));
}

void spoil_row(StepInput &input, Choices &choices, Memory &memory) {
  adamw_tensor &t = input.tensors[choices.below(static_cast<int>(input.rows))];
  const adamw_tensor &other = input.tensors[choices.below(static_cast<int>(input.rows))];
  std::int64_t *const numbers[] = {&t.numel, &t.row_length, &t.step, &t.global_offset, &t.run_length, &t.run_stride};
  const int k = choices.below(pointers), j = choices.below(pointers);
  switch (choices.below(11)) {
    case 0:
    case 1:
      *numbers[choices.below(6)] = choices.hostile_integer();
      break;
    case 2:
      *numbers[choices.below(6)] += choices.of({1, -1, 256, -256, 64});
      break;
    case 3:
      set_pointer(t, k, nullptr);
      break;
    case 4:  // not at a multiple of its element, but for codes
      set_pointer(t, k, moved(pointer_of(t, k), choices.of({1, 2, 3, -1})));
      break;
    case 5:
      set_pointer(t, k, pointer_of(other, j));
      break;
    case 6: {  // begins at, or an element before or behind, the end of another
      const Buffer *const b = memory.containing(pointer_of(other, j));
      if (b == nullptr) break;
      set_pointer(t, k, reinterpret_cast<char *>(b->at) + b->bytes - choices.of({0, 1, 2, 4, -4}));
      break;
    }
    case 7: {
      auto *at = reinterpret_cast<float *>(memory.take(4, true).at);
      *at = static_cast<float>(choices.hostile_real());
      t.step_tensor = choices.one_in(4) ? reinterpret_cast<float *>(reinterpret_cast<char *>(at) - 2) : at;
      break;
    }
    case 8:
    case 9:
      lay_side_by_side(t, k, input.tensors[choices.below(static_cast<int>(input.rows))], j, choices, memory);
      break;
    default:  // addresses at the ends of memory
      set_pointer(t, k, reinterpret_cast<char *>(choices.of<std::uintptr_t>({4, 64, UINTPTR_MAX, UINTPTR_MAX - 63})));
      break;
  }
}

}  // namespace

void spoil(StepInput &input, Choices &choices, Memory &memory) {
  const int what = choices.below(16);
  if (what < 6) return spoil_options(*input.options, choices, memory);
  if (what < 14 && input.rows > 0) return spoil_row(input, choices, memory);
  switch (choices.below(9)) {
    case 5:
    case 6: {
      // A pager is not cut off, in whose buffers state may lie.
      const std::size_t least = input.options->pager != nullptr ? 144 : 128;
      const auto r = resized_options(*input.options, ADAMW_STEP_OPTIONS_INIT, least, choices, memory);
      input.passed_options = r.at, input.unknown = r.unknown;
      break;
    }
    case 7:
    case 8: {
      const auto r = resized(input.tensors, input.rows, adamw_tensor{}, 128, choices, memory);
      input.passed_tensors = r.at, input.tensor_size = r.size, input.unknown = r.unknown;
      break;
    }
    case 0:
      input.options = nullptr;
      break;
    case 1:
      input.tensors = nullptr;
      break;
    case 2:
      input.tensor_size = choices.of<std::size_t>({0, 120, sizeof(adamw_tensor) + 4, 1, 4104, SIZE_MAX});
      break;
    case 3:
      input.count = choices.of<std::int64_t>({-1, INT64_MIN, INT32_MIN, 0});
      break;
    default:  // of the end of the table, so that what follows it is the guard page
      if (input.tensors != nullptr)
        input.tensors =
            reinterpret_cast<adamw_tensor *>(reinterpret_cast<char *>(input.tensors) + choices.of({0, 4, 1}));
      break;
  }
}
