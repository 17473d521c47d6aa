// Owns the laws of adamw_describe_tensors() below Python: it calls the two functions as said, writes only what it was
// asked for, and refuses bad input before it calls anybody. (What it says of torch's tensors:
// tests/python/test_describe.py.)
#include <cstring>
#include <string>
#include <vector>

#include "../../include/adamw.h"
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

// Law: the column of a table is filled at its stride and nothing beside it; a dimension of one has no stride that
// matters, a tensor without elements is contiguous.
void check_answers() {
  Sequence s = three();
  current = &s;
  void *table[3][2];
  std::memset(table, 0x5A, sizeof table);
  void *const untouched = table[0][1];
  adamw_tensor_form forms[3];
  CHECK(adamw_describe_tensors(describe, item, &s, 3, table, sizeof table[0], forms, sizeof forms[0]) == ADAMW_OK, "%s",
        adamw_last_error());
  CHECK(table[0][0] == memory + 8 && table[1][0] == memory + 4 && table[2][0] == nullptr, "addresses");
  for (const auto &row : table) CHECK(row[1] == untouched, "wrote beside the column");
  CHECK(forms[0].numel == 24 && forms[1].numel == 24 && forms[2].numel == 0, "numel");
  CHECK(forms[0].contiguous == 1 && forms[1].contiguous == 0 && forms[2].contiguous == 1, "contiguous");
  CHECK(forms[0].shape == forms[1].shape && forms[0].shape != forms[2].shape, "shape");
  CHECK(forms[1].device_type == 2 && forms[1].device_id == 3 && forms[1].dtype_code == 4 && forms[1].dtype_bits == 16 &&
            forms[1].dtype_lanes == 1,
        "device and dtype");
  CHECK(adamw_describe_tensors(describe, item, nullptr, 0, nullptr, 0, nullptr, sizeof forms[0]) == ADAMW_OK,
        "none: %s", adamw_last_error());
}

// Law: each refusal has its status and names what is wrong; only an object that is no tensor is found while writing.
void check_refusals() {
  Sequence s = three();
  current = &s;
  void *addresses[3];
  adamw_tensor_form forms[3];
  const std::size_t size = sizeof forms[0];
  const auto refused = [&](adamw_status got, adamw_status expected, const std::string &word, int calls) {
    CHECK(got == expected, "%s: got %s", word.c_str(), adamw_status_string(got));
    const std::string message = adamw_last_error();
    CHECK(message.find("adamw_describe_tensors") == 0 && message.find(word) != std::string::npos, "\"%s\" lacks \"%s\"",
          message.c_str(), word.c_str());
    CHECK(s.calls == calls, "%s: asked for %d objects", word.c_str(), s.calls);
    s.calls = 0;
  };
  const auto invalid = [&](adamw_status got, const char *word) { refused(got, ADAMW_ERROR_INVALID_ARGUMENT, word, 0); };
  const auto moved = [](auto *p) { return reinterpret_cast<decltype(p)>(reinterpret_cast<char *>(p) + 4); };
  invalid(adamw_describe_tensors(nullptr, item, &s, 3, addresses, 8, forms, size), "describe");
  invalid(adamw_describe_tensors(describe, nullptr, &s, 3, addresses, 8, forms, size), "item");
  invalid(adamw_describe_tensors(describe, item, &s, -1, addresses, 8, forms, size), "count = -1");
  invalid(adamw_describe_tensors(describe, item, &s, 3, nullptr, 8, forms, size), "addresses is NULL");
  invalid(adamw_describe_tensors(describe, item, &s, 3, moved(&addresses[0]), 8, forms, size), "addresses");
  invalid(adamw_describe_tensors(describe, item, &s, 3, addresses, 12, forms, size), "stride = 12");
  invalid(adamw_describe_tensors(describe, item, &s, 3, addresses, 8, nullptr, size), "forms is NULL");
  invalid(adamw_describe_tensors(describe, item, &s, 3, addresses, 8, moved(&forms[0]), size), "forms");
  for (std::size_t bad : {std::size_t{0}, size - 8, size + 8}) {
    refused(adamw_describe_tensors(describe, item, &s, 3, addresses, 8, forms, bad), ADAMW_ERROR_VERSION, "form_size",
            0);
  }
  s.missing = 1;
  refused(adamw_describe_tensors(describe, item, &s, 3, addresses, 8, forms, size), ADAMW_ERROR_INVALID_ARGUMENT,
          "object 1", 2);
  s.missing = -1;
  s.refused = 2;
  refused(adamw_describe_tensors(describe, item, &s, 3, addresses, 8, forms, size), ADAMW_ERROR_INVALID_ARGUMENT,
          "object 2", 3);
}

}  // namespace

int main() {
  check_answers();
  check_refusals();
  return finish();
}
