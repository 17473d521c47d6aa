// Owns hints to unified memory, in both signatures that drivers have for them. Knows no pager.
#pragma once

#include "../device_state.h"

namespace adamw {
namespace gpu {

// Hints: a driver that has no function for one is left without it. prefetch() is to the device.
adamw_status prefetch(const DeviceState &state, const char *function, const void *memory, std::int64_t bytes,
                      Stream stream);
adamw_status prefer_host(const DeviceState &state, const char *function, const void *memory, std::int64_t bytes);

}  // namespace gpu
}  // namespace adamw
