// Owns a library for Python's tests: the CUDA build with the fake driver in place, so that device 0 is this process's
// own memory and kernels run, in fibers, within the call that launches them.
#include "fake_driver.h"

namespace {

const struct Install {
  Install() {
    simt::fake().queued = false;
    adamw::gpu::replace_driver(simt::fake_driver());
  }
} install;

}  // namespace

// The call of the driver with this number from now on fails, counted from 1; 0: none does.
extern "C" __attribute__((visibility("default"))) void played_failure(int call, int failure) {
  simt::restart_count();
  simt::fake().failing_call = call;
  simt::fake().failure = failure;
}
