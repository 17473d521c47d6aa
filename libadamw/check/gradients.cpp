// Owns the checks of the gradients of a norm. Knows no device and writes no caller's memory.
#include <cinttypes>

#include "../formats.h"
#include "../status.h"
#include "check.h"

namespace adamw {

adamw_status check_gradients(const adamw_gradient *gradients, int64_t count, const double *squares) {
  if (adamw_status s = check_buffer(norm_name, -1, "squares", squares, 8, 8)) return s;
  const auto sum = reinterpret_cast<std::uintptr_t>(squares);
  for (int64_t i = 0; i < count; ++i) {
    const adamw_gradient &g = gradients[i];
    const auto bad = [i](const char *field, int64_t value, const char *need) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: tensor %" PRId64 ": %s = %" PRId64 ": must be %s", norm_name, i,
                  field, value, need);
    };
    if (g.numel < 0 || g.numel > max_bytes / 16) return bad("numel", g.numel, "in 0 ... 2^58");
    if (!is_dtype(g.dtype)) return bad("dtype", g.dtype, "an adamw_dtype");
    if (g.reserved != 0) return bad("reserved", g.reserved, "0");
    const int64_t size = traits(static_cast<adamw_dtype>(g.dtype)).bytes, bytes = g.numel * size;
    if (adamw_status s = check_buffer(norm_name, i, "grad", g.grad, bytes, static_cast<size_t>(size))) return s;
    const auto begin = reinterpret_cast<std::uintptr_t>(g.grad);
    if (bytes != 0 && begin < sum + 8 && sum < begin + static_cast<std::uintptr_t>(bytes)) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                  "%s: tensor %" PRId64 ": grad (%" PRId64
                  " bytes at %p) overlaps squares (8 bytes at %p): a buffer "
                  "that is written must not share memory",
                  norm_name, i, bytes, g.grad, static_cast<const void *>(squares));
    }
  }
  return ADAMW_OK;
}

}  // namespace adamw
