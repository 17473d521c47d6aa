// Owns buffers in ordinary memory, and the backing that leaves everything where it lies.
#include <cstring>

#include "../platform.h"
#include "../status.h"
#include "pager.h"

namespace adamw {

// Mappings of their own are for what is large: a process has a limited number of them, and each is whole pages.
constexpr std::int64_t least_mapped = std::int64_t{1} << 20, host_unit = 64;

adamw_status allocate_host(const char *function, Buffer *buffer) {
  buffer->place = ADAMW_PLACE_HOST;
  if (buffer->bytes >= least_mapped) {
    buffer->memory = map_memory(buffer->bytes);
  } else {
    const auto size = static_cast<std::size_t>(round_up(buffer->bytes, host_unit));
    buffer->memory = allocate_aligned(host_unit, size);
    if (buffer->memory != nullptr) std::memset(buffer->memory, 0, size);
  }
  if (buffer->memory != nullptr) return ADAMW_OK;
  return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no memory for a buffer of %lld bytes", function,
              static_cast<long long>(buffer->bytes));
}

void free_host(const Buffer &buffer) {
  if (buffer.bytes >= least_mapped) {
    unmap_memory(buffer.memory, buffer.bytes);
  } else {
    free_aligned(buffer.memory);
  }
}

namespace {

class HostBacking final : public Backing {
 public:
  using Backing::Backing;
  std::int64_t windows_bytes() const override { return 0; }
  adamw_status allocate(const char *function, Buffer *buffer) override { return allocate_host(function, buffer); }
  void free(Buffer &buffer) override { free_host(buffer); }
  bool moves(const Buffer &) const override { return false; }
  adamw_status begin(const char *, void *) override { return ADAMW_OK; }
  adamw_status end(const char *, void *) override { return ADAMW_OK; }
  adamw_status fetch(const char *, Loan &, void *) override { return ADAMW_OK; }
  adamw_status arrive(const char *, Loan &, void *) override { return ADAMW_OK; }
  adamw_status give_back(const char *, Loan &, bool, void *) override { return ADAMW_OK; }
  void abandon() override {}
  adamw_status wait(const char *) override { return ADAMW_OK; }
};

}  // namespace

adamw_status host_backing(const char *, const PagerOptions &, PagerCounts &counts, std::unique_ptr<Backing> *backing) {
  *backing = std::make_unique<HostBacking>(counts);
  return ADAMW_OK;
}

}  // namespace adamw
