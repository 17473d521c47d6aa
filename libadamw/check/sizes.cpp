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

adamw_status check_table(const char *function, const char *name, const char *size_name, const void *table, size_t size,
                         size_t least, size_t known, size_t alignment, int64_t count) {
  constexpr int64_t most = int64_t{1} << 54;  // as adamw.h says, whatever the size of an entry
  if (adamw_status s = check_size(function, size_name, size, least, known)) return s;
  if (count < 0 || count > most) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: count = %" PRId64 ": must be the number of %s, in 0 ... 2^54",
                function, count, name);
  }
  if (count == 0) return ADAMW_OK;
  const auto bytes = static_cast<int64_t>(size);
  if (count > max_bytes / bytes) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: count = %" PRId64 ": that many entries of %zu bytes pass the end of memory", function, count,
                size);
  }
  return check_buffer(function, -1, name, table, count * bytes, alignment);
}

}  // namespace adamw
