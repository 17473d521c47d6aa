// Owns launching a kernel with its table, and the device memory of one call. Knows no step.
#pragma once

#include <algorithm>

#include "../status.h"
#include "device_state.h"
#include "table.h"

namespace adamw {
namespace gpu {

// ---- working memory ----

// Device memory of one call, from the pool in stream order: given back after the last launch that uses it.
class Workspace {
 public:
  Workspace(DeviceState &state, Stream stream) : state_(state), stream_(stream) {}
  ~Workspace() {
    if (memory_ != 0) state_.driver.cuMemFreeAsync(memory_, stream_);
  }
  Workspace(const Workspace &) = delete;
  Workspace &operator=(const Workspace &) = delete;

  // `bytes` of zeros.
  adamw_status get(const char *function, std::size_t bytes) {
    if (state_.pool == nullptr) {
      return fail(ADAMW_ERROR_UNSUPPORTED,
                  "%s: this device does not support memory pools, which percentile_clipping, max_unorm and "
                  "ADAMW_STATE_TENSOR8 need",
                  function);
    }
    const std::size_t words = (bytes + 3) / 4;
    ADAMW_CHECK(state_.driver, function, cuMemAllocFromPoolAsync, (&memory_, words * 4, state_.pool, stream_));
    ADAMW_CHECK(state_.driver, function, cuMemsetD32Async, (memory_, 0, words, stream_));
    return ADAMW_OK;
  }
  adamw_status give_back(const char *function) {
    const Pointer memory = memory_;
    memory_ = 0;
    if (memory == 0) return ADAMW_OK;
    ADAMW_CHECK(state_.driver, function, cuMemFreeAsync, (memory, stream_));
    return ADAMW_OK;
  }
  template <class T>
  T *at(std::size_t offset) const {
    return reinterpret_cast<T *>(static_cast<std::uintptr_t>(memory_) + offset);
  }

 private:
  DeviceState &state_;
  const Stream stream_;
  Pointer memory_ = 0;
};

// ---- launches ----

// a / b, rounded up.
constexpr std::int64_t divide_up(std::int64_t a, std::int64_t b) { return a / b + (a % b != 0); }

struct Launcher {
  DeviceState &state;
  const Stream stream;

  // As many warps as have work, as far as the device runs them at a time.
  template <class Table>
  adamw_status launch(const char *function, const LoadedKernel &kernel, std::int64_t busy_warps,
                      const Table &table) const {
    const std::int64_t blocks = divide_up(busy_warps, kernel.warps());
    const auto grid = static_cast<unsigned>(std::clamp<std::int64_t>(blocks, 1, kernel.resident));
    void *parameters[] = {const_cast<Table *>(&table)};
    ADAMW_CHECK(
        state.driver, function, cuLaunchKernel,
        (kernel.kernel, grid, 1, 1, static_cast<unsigned>(kernel.threads), 1, 1, 0, stream, parameters, nullptr));
    return ADAMW_OK;
  }
};

// body(launcher), with the device's context current, and the caller's again after it.
template <class Body>
adamw_status on_device(const char *function, std::int32_t device, void *stream, const Body &body) {
  DeviceState *state = nullptr;
  if (adamw_status s = device_state(function, device, &state)) return s;
  Guard guard(*state);
  if (adamw_status s = guard.enter(function)) return s;
  if (adamw_status s = body(Launcher{*state, static_cast<Stream>(stream)})) return s;
  return guard.leave(function);
}

}  // namespace gpu
}  // namespace adamw
