// Owns what is kept per CUDA device: its context, the loaded kernels, the pool of working memory; and the calls to the
// driver, each of which becomes a status that names it. Knows no step.
#pragma once

#include <mutex>
#include <vector>

#include "../../include/adamw.h"
#include "driver.h"

namespace adamw {
namespace gpu {

// ADAMW_OK, or a status with a message that names `function`, the driver's call and its error.
adamw_status check(const Driver &driver, const char *function, const char *call, Result result);

#define ADAMW_CHECK(driver, function, call, arguments)                                                          \
  do {                                                                                                          \
    if (adamw_status s_ = ::adamw::gpu::check((driver), (function), #call, (driver).call arguments)) return s_; \
  } while (false)

// A kernel of table.h, of which there is one object.
struct ListedKernel {
  const char *name;
  int threads;  // of a block
};
struct LoadedKernel {
  Kernel kernel;
  int threads;
  int resident;  // blocks of threads that the device runs at a time

  std::int64_t warps() const { return threads / 32; }  // of a block
};

class DeviceState {
 public:
  const Driver &driver;
  Context context = nullptr;
  int multiprocessors_count = 0;
  Pool pool = nullptr;  // null where the device has no memory pools

  explicit DeviceState(const Driver &d) : driver(d) {}
  ~DeviceState();  // gives back what open() has got, all or, if it has failed, in part
  DeviceState(const DeviceState &) = delete;
  DeviceState &operator=(const DeviceState &) = delete;

  // Makes the context, loads the code. Once; the context must not be current yet.
  adamw_status open(const char *function, std::int32_t ordinal);

  Device device() const { return device_; }

  // The context must be current.
  adamw_status kernel(const char *function, const ListedKernel &wanted, LoadedKernel *out);

 private:
  struct Known {
    const ListedKernel *listed;
    LoadedKernel loaded;
  };
  Device device_ = 0;
  Library library_ = nullptr;
  std::mutex mutex_;
  std::vector<Known> kernels_;
};

// The state of a device, opened at its first use. Thread safe.
adamw_status device_state(const char *function, std::int32_t device, DeviceState **out);

// Makes a device's context current, and restores the caller's: with a status in leave(), without one where an error has
// cut the work short.
class Guard {
 public:
  explicit Guard(DeviceState &state) : state_(state) {}
  ~Guard();
  adamw_status enter(const char *function);
  adamw_status leave(const char *function);

 private:
  DeviceState &state_;
  bool entered_ = false;
};

}  // namespace gpu
}  // namespace adamw
