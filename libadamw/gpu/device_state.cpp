// Owns the opening of devices.
#include "device_state.h"

#include <map>
#include <memory>

#include "../platform.h"
#include "../status.h"
#include "table.h"

extern "C" ADAMW_NOT_EXPORTED const unsigned char adamw_fatbin[];

namespace adamw {
namespace gpu {
namespace {

constexpr int out_of_memory = 2;      // CUDA_ERROR_OUT_OF_MEMORY
constexpr int oldest_driver = 12010;  // CUDA 12.1: the first that takes launch parameters of more than 4 KB

std::mutex devices_mutex;
std::map<std::int32_t, std::unique_ptr<DeviceState>> &devices() {
  static auto *all =
      new std::map<std::int32_t, std::unique_ptr<DeviceState>>;  // never destroyed: the driver goes first
  return *all;
}

}  // namespace

adamw_status check(const Driver &driver, const char *function, const char *call, Result result) {
  if (result == 0) return ADAMW_OK;
  const char *name = nullptr, *text = nullptr;
  driver.cuGetErrorName(result, &name);
  driver.cuGetErrorString(result, &text);
  return fail(result == out_of_memory ? ADAMW_ERROR_OUT_OF_MEMORY : ADAMW_ERROR_DEVICE, "%s: %s: %s (%d): %s", function,
              call, name != nullptr ? name : "unknown error", result, text != nullptr ? text : "");
}

adamw_status DeviceState::open(const char *function, std::int32_t ordinal) {
  int version = 0, devices = 0, pools = 0;
  ADAMW_CHECK(driver, function, cuInit, (0));
  ADAMW_CHECK(driver, function, cuDriverGetVersion, (&version));
  if (version < oldest_driver) {
    return fail(ADAMW_ERROR_UNSUPPORTED,
                "%s: the CUDA driver is too old: it supports CUDA %d.%d, but 12.1 or later is needed", function,
                version / 1000, version % 1000 / 10);
  }
  ADAMW_CHECK(driver, function, cuDeviceGetCount, (&devices));
  if (ordinal >= devices) {
    return fail(ADAMW_ERROR_UNSUPPORTED, "%s: options.device = %d: this machine has %d CUDA devices", function, ordinal,
                devices);
  }
  ADAMW_CHECK(driver, function, cuDeviceGet, (&device_, ordinal));
  ADAMW_CHECK(driver, function, cuDeviceGetAttribute, (&multiprocessors_count, multiprocessors, device_));
  ADAMW_CHECK(driver, function, cuDeviceGetAttribute, (&pools, memory_pools_supported, device_));
  ADAMW_CHECK(driver, function, cuDevicePrimaryCtxRetain, (&context, device_));
  Guard guard(*this);
  if (adamw_status s = guard.enter(function)) return s;
  ADAMW_CHECK(driver, function, cuLibraryLoadData, (&library_, adamw_fatbin, nullptr, nullptr, 0, nullptr, nullptr, 0));
  if (pools != 0) {
    PoolProperties properties{};
    properties.allocation_type = allocation_pinned;
    properties.location.type = location_device;
    properties.location.id = ordinal;
    std::uint64_t keep = ~std::uint64_t{0};  // memory once had is kept: a step in the steady state allocates nothing
    ADAMW_CHECK(driver, function, cuMemPoolCreate, (&pool, &properties));
    ADAMW_CHECK(driver, function, cuMemPoolSetAttribute, (pool, pool_release_threshold, &keep));
  }
  return guard.leave(function);
}

DeviceState::~DeviceState() {
  Context ours = nullptr;
  if (context == nullptr) return;
  if (driver.cuCtxPushCurrent_v2(context) == 0) {
    if (pool != nullptr) driver.cuMemPoolDestroy(pool);
    if (library_ != nullptr) driver.cuLibraryUnload(library_);
    driver.cuCtxPopCurrent_v2(&ours);
  }
  driver.cuDevicePrimaryCtxRelease_v2(device_);
}

adamw_status DeviceState::kernel(const char *function, const ListedKernel &wanted, LoadedKernel *out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const Known &known : kernels_) {
    if (known.listed == &wanted) {
      *out = known.loaded;
      return ADAMW_OK;
    }
  }
  Known fresh{&wanted, {}};
  fresh.loaded.threads = wanted.threads;
  int per_multiprocessor = 0;
  ADAMW_CHECK(driver, function, cuLibraryGetKernel, (&fresh.loaded.kernel, library_, wanted.name));
  ADAMW_CHECK(driver, function, cuOccupancyMaxActiveBlocksPerMultiprocessor,
              (&per_multiprocessor, fresh.loaded.kernel, wanted.threads, 0));
  fresh.loaded.resident = (per_multiprocessor > 0 ? per_multiprocessor : 1) * multiprocessors_count;
  kernels_.push_back(fresh);
  *out = fresh.loaded;
  return ADAMW_OK;
}

adamw_status device_state(const char *function, std::int32_t device, DeviceState **out) {
  const char *error = "";
  const Driver *found = driver(&error);
  if (found == nullptr) {
    return fail(ADAMW_ERROR_UNSUPPORTED, "%s: options.device = %d: %s. Pass -1 and host memory to use the CPU",
                function, device, error);
  }
  const std::lock_guard<std::mutex> lock(devices_mutex);
  auto &all = devices();
  const auto known = all.find(device);
  if (known != all.end()) {
    *out = known->second.get();
    return ADAMW_OK;
  }
  auto fresh = std::make_unique<DeviceState>(*found);
  if (adamw_status s = fresh->open(function, device)) return s;
  *out = all.emplace(device, std::move(fresh)).first->second.get();
  return ADAMW_OK;
}

void replace_driver(const Driver *stand_in) {
  const std::lock_guard<std::mutex> lock(devices_mutex);
  devices().clear();
  set_driver(stand_in);
}

Guard::~Guard() {
  Context ours = nullptr;
  if (entered_) state_.driver.cuCtxPopCurrent_v2(&ours);
}

adamw_status Guard::enter(const char *function) {
  ADAMW_CHECK(state_.driver, function, cuCtxPushCurrent_v2, (state_.context));
  entered_ = true;
  return ADAMW_OK;
}

adamw_status Guard::leave(const char *function) {
  Context ours = nullptr;
  entered_ = false;
  ADAMW_CHECK(state_.driver, function, cuCtxPopCurrent_v2, (&ours));
  return ADAMW_OK;
}

}  // namespace gpu
}  // namespace adamw
