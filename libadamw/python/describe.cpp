// Owns reading the tensors of a Python framework through DLPack, many in one call. Knows neither the framework nor
// Python: it is handed the functions that do.
#include <cinttypes>
#include <cstring>

#include "../check/check.h"
#include "../status.h"
#include "adamw_python.h"

namespace {

// DLTensor of dlpack.h, which is stable for all of major version 1.
struct DLTensor {
  void *data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t dtype_code, dtype_bits;
  std::uint16_t dtype_lanes;
  const std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
static_assert(sizeof(DLTensor) == 48, "as in dlpack.h");

adamw_tensor_form form_of(const DLTensor &t) {
  std::int64_t numel = 1;
  bool contiguous = true;
  std::uint64_t shape = static_cast<std::uint64_t>(t.ndim) + 1;
  for (std::int32_t d = t.ndim; d-- > 0;) {
    const std::int64_t size = t.shape[d];
    if (size != 1 && t.strides != nullptr && t.strides[d] != numel) contiguous = false;
    numel *= size;
    shape = (shape + static_cast<std::uint64_t>(size)) * 0x9E3779B97F4A7C15u;
    shape ^= shape >> 32;
  }
  return {numel,        shape,        t.device_type, t.device_id,
          t.dtype_code, t.dtype_bits, t.dtype_lanes, contiguous || numel == 0};
}

char *handle_of(const adamw_describe_options &o, void *object) {
  char *handle;
  std::memcpy(&handle, static_cast<char *>(object) + o.handle, sizeof handle);
  return handle;
}

std::uint64_t bits_of(const adamw_describe_options &o, void *object) {
  std::uint64_t bits;
  std::memcpy(&bits, handle_of(o, object) + o.bits_at, sizeof bits);
  return bits;
}

// pyadamw and the library that it loads declare the same, or it calls nothing here: one size is right.
adamw_status check_size(const char *function, const char *what, size_t size, size_t known) {
  if (size == known) return ADAMW_OK;
  return adamw::fail(ADAMW_ERROR_VERSION, "%s: %s = %zu: must be %zu", function, what, size, known);
}

adamw_status check(const char *function, const adamw_describe_options *options) {
  if (options == nullptr) return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options is NULL", function);
  if (adamw_status s = check_size(function, "options.size", options->size, sizeof *options)) return s;
  const adamw_describe_options &o = *options;
  if (adamw_status s = check_size(function, "options.form_size", o.form_size, sizeof *o.forms)) return s;
  const auto invalid = [&](const char *field, int64_t value, const char *need) {
    return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.%s = %" PRId64 ": must be %s", function, field, value,
                       need);
  };
  if (o.describe == nullptr || o.item == nullptr)
    return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.describe or options.item is NULL", function);
  if (o.get != nullptr && o.keep == nullptr)
    return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.keep is NULL, but options.get is not", function);
  if (o.count < 0) return invalid("count", o.count, "0 or more");
  if (o.stride % alignof(void *) != 0) return invalid("stride", static_cast<int64_t>(o.stride), "a multiple of 8");
  const auto buffer = [&](const char *field, const void *pointer, bool needed, size_t alignment) {
    return adamw::check_buffer(function, -1, field, pointer, needed, alignment);
  };
  if (adamw_status s = buffer("options.addresses", o.addresses, o.count > 0, alignof(void *))) return s;
  if (adamw_status s = buffer("options.forms", o.forms, o.count > 0, alignof(adamw_tensor_form))) return s;
  return buffer("options.objects", o.objects, false, alignof(void *));
}

}  // namespace

int32_t adamw_python_version(void) { return ADAMW_PYTHON_VERSION; }

adamw_status adamw_describe_options_init(adamw_describe_options *options, size_t size) {
  constexpr const char *function = "adamw_describe_options_init";
  adamw::clear_error();
  if (options == nullptr) return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options is NULL", function);
  if (adamw_status s = check_size(function, "size", size, sizeof *options)) return s;
  *options = ADAMW_DESCRIBE_OPTIONS_INIT;
  return ADAMW_OK;
}

adamw_status adamw_describe_tensors(void *sequence, const adamw_describe_options *options) {
  constexpr const char *function = "adamw_describe_tensors";
  adamw::clear_error();
  if (adamw_status s = check(function, options)) return s;
  const adamw_describe_options o = *options;
  auto *address = static_cast<char *>(o.addresses);
  for (int64_t i = 0; i < o.count; ++i, address += o.stride) {
    void *const item = o.item(sequence, static_cast<ptrdiff_t>(i)), *object = item;
    if (o.objects != nullptr) o.objects[i] = item;
    if (object != nullptr && o.get != nullptr) {
      object = o.get(o.descriptor, object, nullptr);
      if (object != nullptr && o.keep(o.kept, static_cast<ptrdiff_t>(i), object) != 0) object = nullptr;
    }
    DLTensor t;
    if (object == nullptr || o.describe(object, &t) != 0)
      return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: object %" PRId64 " is not a dense tensor", function, i);
    *reinterpret_cast<void **>(address) = static_cast<char *>(t.data) + t.byte_offset;
    o.forms[i] = form_of(t);
    if (t.data == nullptr && o.forms[i].numel != 0)
      return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: object %" PRId64 " has no memory", function, i);
    if (o.test != nullptr && o.test(object, nullptr) != o.passes)
      return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: object %" PRId64 " is refused by options.test", function,
                         i);
    if (o.handle == 0) continue;
    // Only now it is known to be a tensor, which has a handle.
    if ((bits_of(o, object) & o.bits) != 0)
      return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: object %" PRId64 " has refused bits", function, i);
    if (o.objects != nullptr) o.objects[i] = handle_of(o, item);
  }
  return ADAMW_OK;
}
