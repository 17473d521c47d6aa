// Owns the text behind a status. Knows nothing of what failed.
#include "status.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>

namespace {
thread_local char last_error[adamw::max_error] = "";
}

namespace adamw {

adamw_status fail(adamw_status status, const char *format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

void clear_error() { last_error[0] = '\0'; }

}  // namespace adamw

const char *adamw_last_error(void) { return last_error; }

const char *adamw_status_string(adamw_status status) {
  int raw;  // not `status` itself: C callers may give any value, and C++ must not load one that the enum lacks
  std::memcpy(&raw, &status, sizeof raw);
  switch (raw) {
    case ADAMW_OK:
      return "ok";
    case ADAMW_ERROR_INVALID_ARGUMENT:
      return "invalid argument";
    case ADAMW_ERROR_VERSION:
      return "unknown struct version";
    case ADAMW_ERROR_UNSUPPORTED:
      return "unsupported";
    case ADAMW_ERROR_OUT_OF_MEMORY:
      return "out of memory";
    case ADAMW_ERROR_INTERNAL:
      return "internal error";
    case ADAMW_ERROR_DEVICE:
      return "device error";
    case ADAMW_ERROR_STORAGE:
      return "storage error";
  }
  return "unknown status";
}
