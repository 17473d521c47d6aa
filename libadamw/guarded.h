// Owns the last line of every entry point: no exception leaves the library.
#pragma once

#include <exception>
#include <new>

#include "status.h"

namespace adamw {

template <class Body>
adamw_status guarded(const char *function, const Body &body) {
  clear_error();
  try {
    return body();
  } catch (const std::bad_alloc &) {
    return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no memory for the internal tables of the call", function);
  } catch (const std::exception &e) {
    return fail(ADAMW_ERROR_INTERNAL, "%s: %s", function, e.what());
  } catch (...) {
    return fail(ADAMW_ERROR_INTERNAL, "%s: unknown exception", function);
  }
}

}  // namespace adamw
