// Owns fuzzed calls that look at one thing: layouts, the process, descriptions of tensors.
#include "other_calls.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "../../libadamw/python/adamw_python.h"
#include "finding.h"
#include "resize.h"
#include "step_run.h"

namespace {

void judge(const char *function, adamw_status status, Statuses errors, const Memory *memory) {
  ++tally.calls;
  if ((allowed(errors) & only(status)) == 0)
    finding("%s: status %d '%s', allowed: set %#x", function, status, adamw_last_error(), allowed(errors));
  if (status != ADAMW_OK && adamw_last_error()[0] == '\0') finding("%s: status %d without a word", function, status);
  if (memory == nullptr) return;
  if (!memory->canaries_live()) finding("%s: bytes beside a buffer were written", function);
  if (status != ADAMW_OK && memory->changed() != nullptr) finding("%s: refused, but a buffer was written", function);
}

// A value of an enum, or any other number.
std::int32_t enum_value(Choices &choices, int values) {
  return choices.one_in(8) ? static_cast<std::int32_t>(choices.hostile_integer()) : choices.below(values);
}
// An enum's type promises only its own values; a C caller passes any.
template <class Enum>
Enum raw_enum(std::int32_t value) {
  Enum e;
  static_assert(sizeof e == sizeof value, "as adamw.h asserts");
  std::memcpy(&e, &value, sizeof e);
  return e;
}

struct DLTensor {  // of dlpack.h, version 1
  void *data;
  std::int32_t device_type, device_id, ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
constexpr int objects = 4;
struct Sequence {
  DLTensor tensors[objects];
  int missing, refused;
} sequence;

void *item(void *of, std::ptrdiff_t i) {
  auto &s = *static_cast<Sequence *>(of);
  return i == s.missing || i >= objects ? nullptr : &s.tensors[i];
}
int describe_one(void *object, void *dl_tensor) {
  std::memcpy(dl_tensor, object, sizeof(DLTensor));
  return sequence.refused >= 0 && object == &sequence.tensors[sequence.refused] ? -1 : 0;
}

void *no_one(void *, void *, void *) { return nullptr; }

// The initialiser of a struct as a function: the same bytes as far as they fit and then zeros, or nothing. `other`:
// whether it takes sizes of other versions, from `least` on.
template <class Options>
void fuzz_init(const char *name, adamw_status (*init)(Options *, std::size_t), Options usual, bool other,
               std::size_t least, Choices &choices, Memory &memory) {
  std::size_t size = sizeof usual;
  if (other && choices.one_in(3)) size = other_size(choices, least, sizeof usual);
  auto *options = reinterpret_cast<Options *>(memory.take(size, true).at);
  std::memset(static_cast<void *>(options), 0xEE, size);
  memory.remember();
  if (choices.one_in(4)) size = choices.of<std::size_t>({0, least - 8, sizeof usual + 4, 4104, SIZE_MAX});
  if (choices.one_in(8)) options = nullptr;
  const adamw_status status = init(options, size);
  judge(name, status, (options == nullptr ? invalid : 0) | size_errors(size, least), &memory);
  if (status != ADAMW_OK) return;
  usual.size = size;
  const auto *const bytes = reinterpret_cast<const std::uint8_t *>(options);
  const std::size_t known = std::min(size, sizeof usual);
  if (std::memcmp(bytes, &usual, known) != 0) finding("%s wrote other values than its macro", name);
  if (std::any_of(bytes + known, bytes + size, [](std::uint8_t byte) { return byte != 0; }))
    finding("%s left bytes beyond its macro's", name);
}

}  // namespace

void fuzz_inits(Choices &choices, Memory &memory) {
  const adamw_step_options step = ADAMW_STEP_OPTIONS_INIT;
  const adamw_norm_options norm = ADAMW_NORM_OPTIONS_INIT;
  const adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
  const adamw_quantize_options quantize = ADAMW_QUANTIZE_OPTIONS_INIT;
  const adamw_split_options split = ADAMW_SPLIT_OPTIONS_INIT;
  const adamw_pager_options pager = ADAMW_PAGER_OPTIONS_INIT;
  const adamw_describe_options describe = ADAMW_DESCRIBE_OPTIONS_INIT;
  fuzz_init("adamw_step_options_init", adamw_step_options_init, step, true, 128, choices, memory);
  fuzz_init("adamw_norm_options_init", adamw_norm_options_init, norm, true, 24, choices, memory);
  fuzz_init("adamw_clip_options_init", adamw_clip_options_init, clip, true, 40, choices, memory);
  fuzz_init("adamw_quantize_options_init", adamw_quantize_options_init, quantize, true, 72, choices, memory);
  fuzz_init("adamw_split_options_init", adamw_split_options_init, split, true, 56, choices, memory);
  fuzz_init("adamw_pager_options_init", adamw_pager_options_init, pager, true, 32, choices, memory);
  fuzz_init("adamw_describe_options_init", adamw_describe_options_init, describe, false, sizeof describe, choices,
            memory);
}

void fuzz_layout(Choices &choices, Memory &memory) {
  const std::int32_t format = enum_value(choices, 4), amsgrad = choices.of({0, 1, -1, INT32_MIN}),
                     bits = choices.one_in(8) ? enum_value(choices, 40) : choices.of({0, 8, 16});
  std::int64_t rows = choices.below(9), row_length = choices.below(2000), numel = rows * row_length;
  if (choices.below(4) == 3) {
    numel = choices.hostile_integer();
    if (choices.below(2) == 0) row_length = choices.below(2) == 0 ? numel : choices.hostile_integer();
  }
  auto *layout = reinterpret_cast<adamw_state_layout *>(memory.take(sizeof(adamw_state_layout), true).at);
  if (choices.one_in(16)) layout = nullptr;
  memory.remember();
  const Statuses errors = layout_errors(format, numel, row_length, bits, layout);
  const Telling telling([=] {
    return "adamw_get_state_layout(" + std::to_string(format) + ", " + std::to_string(numel) + ", " +
           std::to_string(row_length) + ", " + std::to_string(amsgrad) + ", " + std::to_string(bits) + ")";
  });
  const adamw_status status =
      adamw_get_state_layout(raw_enum<adamw_state_format>(format), numel, row_length, amsgrad, bits, layout);
  judge("adamw_get_state_layout", status, errors, &memory);
  if (status != ADAMW_OK) return;
  const Layout l = layout_of(format, numel, row_length, amsgrad != 0, bits);
  if (layout->moment_bytes != l.moment_bytes || layout->absmax_count != l.scales || layout->floor_count != l.scales ||
      layout->blocks_per_row != l.blocks_per_row || layout->remainder_bytes != l.remainder_bytes ||
      layout->total_bytes != l.total_bytes)
    finding("%lld bytes, %lld scales, %lld floors, %lld blocks a row, %lld of remainders, %lld bytes",
            static_cast<long long>(layout->moment_bytes), static_cast<long long>(layout->absmax_count),
            static_cast<long long>(layout->floor_count), static_cast<long long>(layout->blocks_per_row),
            static_cast<long long>(layout->remainder_bytes), static_cast<long long>(layout->total_bytes));
}

void fuzz_process(Choices &choices) {
  const std::int32_t threads =
      choices.below(4) == 3 ? static_cast<std::int32_t>(choices.hostile_integer()) : choices.below(5);
  judge("adamw_set_num_threads", adamw_set_num_threads(threads), threads < 0 ? invalid : 0, nullptr);
  if (adamw_get_num_threads() < 1) finding("adamw_get_num_threads() is %d", adamw_get_num_threads());
  // The bits of later calls do not depend on it, but their time does.
  if (adamw_set_num_threads(2) != ADAMW_OK || adamw_get_num_threads() != 2)
    finding("2 threads, but %d", adamw_get_num_threads());
  const char *name = "untouched", **where = choices.one_in(4) ? nullptr : &name;
  judge("adamw_cpu_kernel", adamw_cpu_kernel(where),
        (where == nullptr ? invalid : 0) | (kernel_missing ? unsupported : 0), nullptr);
  if (where != nullptr && (name == nullptr) != kernel_missing)
    finding("the kernel is %s", name != nullptr ? name : "NULL");
  const auto value = static_cast<std::int32_t>(choices.below(2) == 0 ? choices.below(9) : choices.hostile_integer());
  const char *const texts[] = {adamw_status_string(raw_enum<adamw_status>(value)), adamw_build_info(),
                               adamw_last_error()};
  for (const char *text : texts)
    if (text == nullptr || std::strlen(text) > 4096) finding("a text is NULL or without end");
  if (adamw_version() != 10000 * ADAMW_VERSION_MAJOR + 100 * ADAMW_VERSION_MINOR + ADAMW_VERSION_PATCH ||
      adamw_abi_version() != ADAMW_ABI_VERSION)
    finding("another version");
}

void fuzz_describe(Choices &choices, Memory &memory) {
  static std::int64_t shape[] = {2, 3}, rows[] = {3, 1}, columns[] = {1, 2};
  static float values[8];
  sequence = {{}, -1, -1};
  for (DLTensor &t : sequence.tensors)
    t = {values,
         1,
         0,
         2,
         2,
         32,
         1,
         shape,
         choices.of<std::int64_t *>({rows, columns, nullptr}),
         choices.of<std::uint64_t>({0, 4})};
  if (choices.one_in(8)) sequence.missing = choices.below(objects);
  if (choices.one_in(8)) sequence.refused = choices.below(objects);
  adamw_describe_options o = ADAMW_DESCRIBE_OPTIONS_INIT;
  o.describe = describe_one, o.item = item, o.count = choices.below(objects + 1);
  o.stride = choices.of<std::size_t>({8, 128, 16});
  o.addresses = memory.take(static_cast<std::size_t>(objects) * o.stride, false).at;
  o.forms = reinterpret_cast<adamw_tensor_form *>(memory.take(objects * sizeof(adamw_tensor_form), true).at);
  if (choices.below(2) == 1) o.objects = reinterpret_cast<void **>(memory.take(objects * sizeof(void *), true).at);
  Statuses errors = sequence.missing >= 0 && sequence.missing < o.count ? invalid : 0;
  if (sequence.refused >= 0 && sequence.refused < o.count) errors |= invalid;
  const adamw_describe_options *options = &o;
  switch (choices.below(16)) {
    case 9:
      o.size = choices.of<std::size_t>({0, sizeof o - 8, sizeof o + 8}), errors |= version;
      break;
    case 10:
      o.form_size += choices.of<std::size_t>({8, static_cast<std::size_t>(-8)}), errors |= version;
      break;
    case 11:
      o.describe = nullptr, errors |= invalid;
      break;
    case 12:
      o.item = nullptr, errors |= invalid;
      break;
    case 13:
      o.count = -1 - (choices.hostile_integer() & INT64_MAX), errors |= invalid;
      break;
    case 14:
      o.stride += static_cast<std::size_t>(1 + choices.below(7)), errors |= invalid;
      break;
    case 15:
      if (choices.below(2) == 0) options = nullptr;
      o.get = no_one, errors |= invalid;  // without `keep`
      break;
    default:
      break;
  }
  if (choices.one_in(16)) {
    o.addresses = choices.below(2) == 0 ? nullptr : static_cast<char *>(o.addresses) + 4;
    if (o.count > 0 || o.addresses != nullptr) errors |= invalid;
  }
  memory.remember();
  const adamw_status status = adamw_describe_tensors(&sequence, options);
  judge("adamw_describe_tensors", status, errors, nullptr);
  if (!memory.canaries_live()) finding("adamw_describe_tensors: bytes beside a buffer were written");
  if (status != ADAMW_OK) return;
  for (std::int64_t i = 0; i < o.count; ++i) {
    const adamw_tensor_form &f = o.forms[i];
    const DLTensor &t = sequence.tensors[i];
    void *at;
    std::memcpy(&at, static_cast<char *>(o.addresses) + static_cast<std::size_t>(i) * o.stride, sizeof at);
    if (f.numel != 6 || f.dtype_bits != 32 || f.contiguous != (t.strides != columns) ||
        at != static_cast<char *>(t.data) + t.byte_offset)
      finding("object %lld is described as %lld elements, contiguous %d", static_cast<long long>(i),
              static_cast<long long>(f.numel), f.contiguous);
  }
}
