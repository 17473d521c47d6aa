// Owns what tests of single functions do with both sides: a call on each, and the comparison of a buffer. Knows no
// function.
#pragma once

#include "fake_driver.h"
#include "runtime.h"
#include "sides.h"

namespace simt {

inline bool same(Guarded &cpu, Guarded &device, const char *name, const char *what) {
  CHECK(cpu.intact() && device.intact(), "%s: something beyond %s was written", what, name);
  const bool equal = std::memcmp(cpu.at(), device.at(), cpu.bytes()) == 0;
  CHECK(equal, "%s: %s differs", what, name);
  return equal;
}

// call() on the CPU (-1) or a device, which then finds nothing that the host has.
template <class Call>
void on(std::int32_t device, const char *what, const Call &call) {
  if (device >= 0) arena().close();
  const adamw_status status = call();
  arena().open();
  CHECK(status == ADAMW_OK, "%s: %s", what, adamw_last_error());
  CHECK(synchronize(), "%s: a kernel failed", what);
}

inline void check_clean(const char *what) {
  CHECK(live_allocations() == 0 && fake().misuse.empty(), "%s: %zu allocations stay, %s", what, live_allocations(),
        fake().misuse.empty() ? "" : fake().misuse[0].c_str());
}

}  // namespace simt
