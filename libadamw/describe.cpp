// Owns reading the tensors of a Python framework through DLPack, many in one call. Knows neither the framework nor
// Python: it is handed the functions that do.
#include <cinttypes>

#include "status.h"
#include "validate.h"

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

}  // namespace

adamw_status adamw_describe_tensors(adamw_dlpack_function describe, adamw_item_function item, void *sequence,
                                    int64_t count, void *addresses, size_t stride, adamw_tensor_form *forms,
                                    size_t form_size) {
  constexpr const char *function = "adamw_describe_tensors";
  adamw::clear_error();
  if (describe == nullptr || item == nullptr)
    return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: describe or item is NULL", function);
  if (form_size != sizeof *forms) {
    return adamw::fail(ADAMW_ERROR_VERSION, "%s: form_size = %zu, but this library knows %zu", function, form_size,
                       sizeof *forms);
  }
  if (count < 0) return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: count = %" PRId64, function, count);
  if (adamw_status s = adamw::check_buffer(function, -1, "addresses", addresses, count > 0, alignof(void *))) return s;
  if (adamw_status s = adamw::check_buffer(function, -1, "forms", forms, count > 0, alignof(adamw_tensor_form)))
    return s;
  if (stride % alignof(void *) != 0)
    return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: stride = %zu: must be a multiple of 8", function, stride);
  auto *address = static_cast<char *>(addresses);
  for (int64_t i = 0; i < count; ++i, address += stride) {
    void *object = item(sequence, static_cast<ptrdiff_t>(i));
    DLTensor t;
    if (object == nullptr || describe(object, &t) != 0)
      return adamw::fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: object %" PRId64 " is not a dense tensor", function, i);
    *reinterpret_cast<void **>(address) = static_cast<char *>(t.data) + t.byte_offset;
    forms[i] = form_of(t);
  }
  return ADAMW_OK;
}
