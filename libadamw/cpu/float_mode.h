// Owns the floating-point modes of a thread, rounding and flushing to zero, while it computes.
#pragma once

#include "../platform.h"

namespace adamw {

// The defaults on this thread while it lives. An entry point that computes has one before it reads its arguments, and
// each thread that computes has one: the result then depends on no caller's modes.
class DefaultFloatMode {
 public:
  DefaultFloatMode() : saved_(float_mode()) { set_float_mode(default_float_mode()); }
  ~DefaultFloatMode() { set_float_mode(saved_); }
  DefaultFloatMode(const DefaultFloatMode &) = delete;
  DefaultFloatMode &operator=(const DefaultFloatMode &) = delete;

 private:
  const std::uint64_t saved_;
};

}  // namespace adamw
