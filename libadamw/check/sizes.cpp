// Owns what sizes.h says: structs in the size that they have in the caller's version of adamw.h. Writes no caller's
// memory.
#include "sizes.h"

#include <cinttypes>
#include <cstdio>

#include "check.h"

namespace adamw {

adamw_status check_size(const char *function, const char *what, size_t size, size_t least, size_t known) {
  constexpr size_t largest = 4096;
  if (size % 8 == 0 && size >= least && size <= largest) return ADAMW_OK;
  return fail(ADAMW_ERROR_VERSION,
              "%s: %s = %zu: must be a multiple of 8 in %zu ... %zu; it is %zu in the adamw.h of this library (version "
              "%d.%d.%d): start from the *_INIT macro, or the *_init() function",
              function, what, size, least, largest, known, ADAMW_VERSION_MAJOR, ADAMW_VERSION_MINOR,
              ADAMW_VERSION_PATCH);
}

adamw_status check_tail(const char *function, int64_t row, const char *what, const void *at, size_t size,
                        size_t known) {
  const auto *const bytes = static_cast<const unsigned char *>(at);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] == 0) continue;
    char where[32] = "";
    if (row >= 0) std::snprintf(where, sizeof where, "tensor %" PRId64 ": ", row);
    return fail(ADAMW_ERROR_VERSION,
                "%s: %s%s = %zu, and byte %zu is %d: this library (version %d.%d.%d) knows %zu bytes, and the bytes "
                "after them must be 0: a feature that they ask for needs a newer libadamw",
                function, where, what, size, i, bytes[i], ADAMW_VERSION_MAJOR, ADAMW_VERSION_MINOR, ADAMW_VERSION_PATCH,
                known);
  }
  return ADAMW_OK;
}

adamw_status read_rows(const char *function, const adamw_tensor *&tensors, size_t tensor_size, int64_t count,
                       std::vector<adamw_tensor> &copies) {
  constexpr int64_t most = int64_t{1} << 54;  // as adamw.h says, whatever the size of a row
  if (adamw_status s = check_size_of<adamw_tensor>(function, "tensor_size", tensor_size)) return s;
  if (count < 0 || count > most) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: count = %" PRId64 ": must be the number of tensors, in 0 ... 2^54",
                function, count);
  }
  if (count == 0) return ADAMW_OK;
  const auto size = static_cast<int64_t>(tensor_size);
  if (count > max_bytes / size) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: count = %" PRId64 ": that many entries of %zu bytes pass the end of memory", function, count,
                tensor_size);
  }
  if (adamw_status s = check_buffer(function, -1, "tensors", tensors, count * size, alignof(adamw_tensor))) return s;
  if (tensor_size == sizeof(adamw_tensor)) return ADAMW_OK;  // nearly always: nothing is copied
  copies.assign(static_cast<size_t>(count), adamw_tensor{});
  const auto *row = reinterpret_cast<const char *>(tensors);
  for (int64_t i = 0; i < count; ++i, row += tensor_size) {
    if (adamw_status s = check_tail(function, i, "tensor_size", row, tensor_size, sizeof(adamw_tensor))) return s;
    std::memcpy(&copies[static_cast<size_t>(i)], row, std::min(tensor_size, sizeof(adamw_tensor)));
  }
  tensors = copies.data();
  return ADAMW_OK;
}

}  // namespace adamw
