// Owns the laws of adamw_describe_tensors() below Python: it calls the two functions as said, writes only what it was
// asked for, and refuses bad input before it calls anybody. (What it says of torch's tensors:
// tests/python/test_describe.py.)
#include <cstring>
#include <string>
#include <vector>

#include "../../libadamw/python/adamw_python.h"
#include "check.h"

namespace {

// dlpack.h's, version 1.
struct DLTensor {
  void *data;
  std::int32_t device_type, device_id, ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};

struct Sequence {
  std::vector<DLTensor> tensors;
  int missing = -1, refused = -1;  // an index that is not there, a tensor that cannot be described
  int calls = 0;
  std::ptrdiff_t unkept = -1;  // number of an object that cannot be kept
};

void *item(void *sequence, std::ptrdiff_t index) {
  auto &s = *static_cast<Sequence *>(sequence);
  ++s.calls;
  return index == s.missing ? nullptr : &s.tensors[static_cast<std::size_t>(index)];
}

Sequence *current;
int describe(void *object, void *dl_tensor) {
  std::memcpy(dl_tensor, object, sizeof(DLTensor));
  return current->refused >= 0 && object == &current->tensors[static_cast<std::size_t>(current->refused)] ? -1 : 0;
}

std::int64_t shape[] = {4, 1, 6}, rows[] = {6, 99, 1}, columns[] = {1, 99, 4}, nothing[] = {4, 0, 6};
char memory[64];

Sequence three() {
  Sequence s;
  s.tensors = {{memory, 1, 0, 3, 2, 32, 1, shape, rows, 8},
               {memory + 4, 2, 3, 3, 4, 16, 1, shape, columns, 0},
               {nullptr, 1, 0, 3, 2, 32, 1, nothing, nullptr, 0}};
  return s;
}

adamw_describe_options options_of(void *addresses, std::size_t stride, adamw_tensor_form *forms) {
  adamw_describe_options o = ADAMW_DESCRIBE_OPTIONS_INIT;
  o.describe = describe, o.item = item, o.count = 3;
  o.addresses = addresses, o.stride = stride, o.forms = forms;
  return o;
}

// What tensor i refers to is tensor i + 1; the last one refers to nothing.
void *next(void *descriptor, void *object, void *nothing) {
  CHECK(descriptor == memory + 1 && nothing == nullptr, "descriptor");
  DLTensor *other = static_cast<DLTensor *>(object) + 1;
  return other == current->tensors.data() + current->tensors.size() ? nullptr : other;
}

int keep(void *kept, std::ptrdiff_t index, void *object) {
  static_cast<void **>(kept)[index] = object;
  return index == current->unkept ? -1 : 0;
}

// Law: what the objects refer to is described instead of them, and kept even where it cannot be described.
void check_what_objects_refer_to(adamw_describe_options o, adamw_tensor_form *forms) {
  std::vector<DLTensor> &tensors = current->tensors;
  void *kept[3] = {}, *addresses[3] = {}, *objects[3] = {};
  o.get = next, o.descriptor = memory + 1, o.keep = keep, o.kept = kept;
  o.count = 2, o.addresses = addresses, o.stride = sizeof addresses[0], o.objects = objects;
  CHECK(adamw_describe_tensors(current, &o) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(addresses[0] == memory + 4 && addresses[1] == nullptr && forms[0].device_type == 2, "what they refer to");
  CHECK(objects[0] == &tensors[0] && objects[1] == &tensors[1], "objects are what `item` returned");
  CHECK(kept[0] == &tensors[1] && kept[1] == &tensors[2] && kept[2] == nullptr, "kept");
  const auto fails = [&](std::int64_t count, void *first, void *second, const char *why) {
    std::memset(kept, 0, sizeof kept);
    o.count = count;
    CHECK(adamw_describe_tensors(current, &o) == ADAMW_ERROR_INVALID_ARGUMENT, "%s", why);
    CHECK(kept[0] == first && kept[1] == second && kept[2] == nullptr, "kept: %s", why);
  };
  fails(3, &tensors[1], &tensors[2], "the last refers to nothing");
  current->refused = 1;
  fails(3, &tensors[1], nullptr, "cannot be described");
  current->refused = -1, current->unkept = 0;
  fails(3, &tensors[1], nullptr, "cannot be kept");
  current->unkept = -1;
}

int tested = 0;

void *is_second(void *object, void *nothing) {
  CHECK(nothing == nullptr, "the second argument is NULL");
  ++tested;
  return object == &current->tensors[1] ? memory : nullptr;
}

// Law: a tensor whose numbers are not what lies at its address is refused: by a function, by a bit of what it points
// to, or because it has elements and no memory.
void check_refused_tensors() {
  Sequence s = three();
  current = &s;
  void *addresses[3], *objects[3];
  adamw_tensor_form forms[3];
  const auto refused = [&](adamw_describe_options o, const char *word) {
    CHECK(adamw_describe_tensors(&s, &o) == ADAMW_ERROR_INVALID_ARGUMENT, "%s", word);
    CHECK(std::strstr(adamw_last_error(), word) != nullptr, "\"%s\" lacks \"%s\"", adamw_last_error(), word);
  };
  adamw_describe_options o = options_of(addresses, sizeof addresses[0], forms);
  o.test = is_second, o.passes = nullptr, o.count = 1;
  CHECK(adamw_describe_tensors(&s, &o) == ADAMW_OK && tested == 1, "one passes: %s", adamw_last_error());
  o.count = 3;
  refused(o, "object 1 is refused");

  // Each tensor points to its shape, whose first number has the bits.
  o = options_of(addresses, sizeof addresses[0], forms);
  o.objects = objects, o.handle = offsetof(DLTensor, shape), o.bits_at = 0, o.bits = std::uint64_t{1} << 40;
  CHECK(adamw_describe_tensors(&s, &o) == ADAMW_OK, "no bit: %s", adamw_last_error());
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(objects[i] == static_cast<const void *>(s.tensors[i].shape), "object %zu is what it points to", i);
  o.bits = static_cast<std::uint64_t>(s.tensors[1].shape[0]);
  o.count = 2;
  refused(o, "refused bits");

  o = options_of(addresses, sizeof addresses[0], forms);
  s.tensors[1].data = nullptr, s.tensors[1].byte_offset = 0;
  refused(o, "object 1 has no memory");
}

// Law: the column of a table is filled at its stride and nothing beside it; a dimension of one has no stride that
// matters, a tensor without elements is contiguous.
void check_answers() {
  Sequence s = three();
  current = &s;
  void *table[3][2];
  std::memset(table, 0x5A, sizeof table);
  void *const untouched = table[0][1];
  adamw_tensor_form forms[3];
  adamw_describe_options o = options_of(table, sizeof table[0], forms);
  CHECK(adamw_describe_tensors(&s, &o) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(table[0][0] == memory + 8 && table[1][0] == memory + 4 && table[2][0] == nullptr, "addresses");
  for (const auto &row : table) CHECK(row[1] == untouched, "wrote beside the column");
  CHECK(forms[0].numel == 24 && forms[1].numel == 24 && forms[2].numel == 0, "numel");
  CHECK(forms[0].contiguous == 1 && forms[1].contiguous == 0 && forms[2].contiguous == 1, "contiguous");
  CHECK(forms[0].shape == forms[1].shape && forms[0].shape != forms[2].shape, "shape");
  CHECK(forms[1].device_type == 2 && forms[1].device_id == 3 && forms[1].dtype_code == 4 && forms[1].dtype_bits == 16 &&
            forms[1].dtype_lanes == 1,
        "device and dtype");
  void *objects[4] = {nullptr, nullptr, nullptr, untouched};
  o.objects = objects;
  CHECK(adamw_describe_tensors(&s, &o) == ADAMW_OK, "%s", adamw_last_error());
  for (std::size_t i = 0; i < 3; ++i) CHECK(objects[i] == &s.tensors[i], "object %zu", i);
  CHECK(objects[3] == untouched, "wrote beyond the objects");
  check_what_objects_refer_to(o, forms);
  o = options_of(nullptr, 0, nullptr);
  o.count = 0;
  CHECK(adamw_describe_tensors(nullptr, &o) == ADAMW_OK, "none: %s", adamw_last_error());
}

// Law: each refusal has its status and names what is wrong; only an object that is no tensor is found while writing.
void check_refusals() {
  Sequence s = three();
  current = &s;
  void *addresses[3];
  adamw_tensor_form forms[3];
  const auto refused = [&](adamw_status got, adamw_status expected, const std::string &word, int calls) {
    CHECK(got == expected, "%s: got %s", word.c_str(), adamw_status_string(got));
    const std::string message = adamw_last_error();
    CHECK(message.find("adamw_describe_tensors") == 0 && message.find(word) != std::string::npos, "\"%s\" lacks \"%s\"",
          message.c_str(), word.c_str());
    CHECK(s.calls == calls, "%s: asked for %d objects", word.c_str(), s.calls);
    s.calls = 0;
  };
  const auto change = [&](auto change, adamw_status expected, const char *word, int calls = 0) {
    adamw_describe_options o = options_of(addresses, sizeof addresses[0], forms);
    change(o);
    refused(adamw_describe_tensors(&s, &o), expected, word, calls);
  };
  const auto invalid = [&](auto changed, const char *word) { change(changed, ADAMW_ERROR_INVALID_ARGUMENT, word); };
  const auto moved = [](auto *p) { return reinterpret_cast<decltype(p)>(reinterpret_cast<char *>(p) + 4); };
  using Options = adamw_describe_options;
  refused(adamw_describe_tensors(&s, nullptr), ADAMW_ERROR_INVALID_ARGUMENT, "options is NULL", 0);
  invalid([](Options &o) { o.describe = nullptr; }, "describe");
  invalid([](Options &o) { o.item = nullptr; }, "item");
  invalid([](Options &o) { o.get = next; }, "keep is NULL");
  invalid([](Options &o) { o.count = -1; }, "count = -1");
  invalid([](Options &o) { o.addresses = nullptr; }, "addresses is NULL");
  invalid([&](Options &o) { o.addresses = moved(&addresses[0]); }, "addresses");
  invalid([](Options &o) { o.stride = 12; }, "stride = 12");
  invalid([](Options &o) { o.forms = nullptr; }, "forms is NULL");
  invalid([&](Options &o) { o.forms = moved(&forms[0]); }, "forms");
  invalid([&](Options &o) { o.objects = moved(&addresses[0]); }, "objects");
  for (std::size_t by : {std::size_t{8}, ~std::size_t{7}}) {
    change([&](Options &o) { o.size += by; }, ADAMW_ERROR_VERSION, "options.size");
    change([&](Options &o) { o.form_size += by; }, ADAMW_ERROR_VERSION, "form_size");
  }
  const auto same = [](Options &) {};
  s.missing = 1;
  change(same, ADAMW_ERROR_INVALID_ARGUMENT, "object 1", 2);
  s.missing = -1;
  s.refused = 2;
  change(same, ADAMW_ERROR_INVALID_ARGUMENT, "object 2", 3);
}

// Law: the layout is the one that the generated declarations of pyadamw have, and the functions give what the macros
// do.
void check_declarations() {
  using Options = adamw_describe_options;
  using Form = adamw_tensor_form;
  static_assert(offsetof(Form, numel) == 0 && offsetof(Form, shape) == 8 && offsetof(Form, device_type) == 16, "");
  static_assert(offsetof(Form, device_id) == 20 && offsetof(Form, dtype_code) == 24, "");
  static_assert(offsetof(Form, dtype_bits) == 25 && offsetof(Form, dtype_lanes) == 26, "");
  static_assert(offsetof(Options, describe) == 8 && offsetof(Options, item) == 16 && offsetof(Options, count) == 24,
                "");
  static_assert(offsetof(Options, addresses) == 32 && offsetof(Options, stride) == 40, "");
  static_assert(offsetof(Options, forms) == 48 && offsetof(Options, form_size) == 56, "");
  static_assert(offsetof(Options, objects) == 64 && offsetof(Options, get) == 72 && offsetof(Options, descriptor) == 80,
                "");
  static_assert(offsetof(Options, keep) == 88 && offsetof(Options, kept) == 96 && offsetof(Options, test) == 104, "");
  static_assert(offsetof(Options, passes) == 112 && offsetof(Options, handle) == 120, "");
  static_assert(offsetof(Options, bits_at) == 128, "");
  CHECK(adamw_python_version() == ADAMW_PYTHON_VERSION, "version %d", adamw_python_version());
  const Options defaults = ADAMW_DESCRIBE_OPTIONS_INIT;
  Options set[2];
  const auto init = adamw_describe_options_init;
  std::memset(static_cast<void *>(set), 0xAB, sizeof set);
  CHECK(init(set, sizeof set - 1) == ADAMW_ERROR_VERSION && std::strstr(adamw_last_error(), "size = 287"), "%s",
        adamw_last_error());
  CHECK(init(nullptr, sizeof *set) == ADAMW_ERROR_INVALID_ARGUMENT, "no options");
  CHECK(*reinterpret_cast<unsigned char *>(set) == 0xAB, "refused, and written");
  CHECK(init(set, sizeof *set) == ADAMW_OK && std::memcmp(set, &defaults, sizeof defaults) == 0, "the macro's");
  CHECK(*reinterpret_cast<unsigned char *>(set + 1) == 0xAB, "what follows is written");
}

}  // namespace

int main() {
  check_declarations();
  check_answers();
  check_refusals();
  check_refused_tensors();
  return finish();
}
