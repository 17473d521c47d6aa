// Owns hints to unified memory, see prefetch.h.
#include "prefetch.h"

namespace adamw {
namespace gpu {
namespace {

Pointer pointer(const void *memory) { return reinterpret_cast<std::uintptr_t>(memory); }

}  // namespace

adamw_status prefetch(const DeviceState &state, const char *function, const void *memory, std::int64_t bytes,
                      Stream stream) {
  const auto size = static_cast<std::size_t>(bytes);
  if (state.driver.cuMemPrefetchAsync_v2 != nullptr) {
    const Location here{location_device, state.device()};
    ADAMW_CHECK(state.driver, function, cuMemPrefetchAsync_v2, (pointer(memory), size, here, 0, stream));
  } else if (state.driver.cuMemPrefetchAsync != nullptr) {
    ADAMW_CHECK(state.driver, function, cuMemPrefetchAsync, (pointer(memory), size, state.device(), stream));
  }
  return ADAMW_OK;
}

adamw_status prefer_host(const DeviceState &state, const char *function, const void *memory, std::int64_t bytes) {
  const auto size = static_cast<std::size_t>(bytes);
  if (state.driver.cuMemAdvise_v2 != nullptr) {
    const Location where{location_host, 0};
    ADAMW_CHECK(state.driver, function, cuMemAdvise_v2, (pointer(memory), size, prefer_location, where));
  } else if (state.driver.cuMemAdvise != nullptr) {
    ADAMW_CHECK(state.driver, function, cuMemAdvise, (pointer(memory), size, prefer_location, host_device));
  }
  return ADAMW_OK;
}

}  // namespace gpu
}  // namespace adamw
