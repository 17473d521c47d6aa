// Owns the mutants of how pages are ordered: each loses one of the waits that libadamw/gpu/pinned.cpp names, which
// makes its streams and events in the order that is assumed here, or of managed.cpp. SIMT_MUTANT is a number of
// `PagingMutant`; the tests of the kernels have those below.
#pragma once

#include "fake_driver.h"
#include "runtime.h"

namespace simt {

enum PagingMutant {
  compute_before_arrival = 16,  // of what it needs
  in_before_out,                // 17: a slot is filled while it is copied out
  out_before_compute,           // 18: a slot is copied out before it has been stepped
  in_before_last_out,           // 19: a call reads what the call before is still writing
  compute_before_last_out,      // 20: the same, by kernels that use host memory in place
  in_before_last_compute,       // 21: a call reads what kernels of the call before change in place
  compute_before_last_compute,  // 22: the same, by kernels
  in_before_use,                // 23: a slot is filled while it is read, and not to be copied out
  host_before_out,              // 24: adamw_pager_wait() does not wait for copies
  host_before_compute,          // 25: nor for kernels that use host memory in place
  free_before_done,             // 26: nobody waits before memory is freed
  managed_before_last_call,     // 27: unified memory is used while a call before is using it on another stream
  managed_free_before_done,     // 28: nobody waits before it is freed
};

inline bool loses_as_mutant(const Wait &wait) {
  constexpr int slot_events = 12, ended = 12, written = 13;  // arrived, used, out of each of 4 slots, and these two
  const bool slot = wait.event >= 0 && wait.event < slot_events, in = wait.stream == 0, out = wait.stream == 1,
             caller = wait.stream == -1 && !wait.on_host;
  switch (settings().mutant) {
    case compute_before_arrival:
      return caller && slot;
    case in_before_out:
      return in && slot && wait.event % 3 == 2;
    case out_before_compute:
      return out && slot;
    case in_before_last_out:
      return in && wait.event == written;
    case compute_before_last_out:
      return caller && wait.event == written;
    case in_before_last_compute:
      return in && wait.event == ended;
    case compute_before_last_compute:
      return caller && wait.event == ended;
    case in_before_use:
      return in && slot && wait.event % 3 == 1;
    case host_before_out:
      return wait.on_host && wait.event == written;
    case host_before_compute:
      return wait.on_host && wait.event == ended;
    case free_before_done:
      return wait.on_host && wait.event != written;
    default:
      return false;
  }
}

inline bool loses_as_managed_mutant(const Wait &wait) {
  switch (settings().mutant) {
    case managed_before_last_call:
      return !wait.on_host && wait.stream == -1;
    case managed_free_before_done:
      return wait.on_host;
    default:
      return false;
  }
}

}  // namespace simt
