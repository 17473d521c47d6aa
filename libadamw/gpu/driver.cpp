// Owns finding the CUDA driver at run time.
#include "driver.h"

#include <cstdio>

#include "../platform.h"

namespace adamw {
namespace gpu {
namespace {

struct Search {
  Driver driver{};
  bool complete = false;
  char error[256] = "";

  Search() {
    const char *reason = nullptr;
    void *library = load_library(cuda_driver_name, &reason);
    if (library == nullptr) {
      std::snprintf(error, sizeof error, "no CUDA driver: %s%s", reason != nullptr ? reason : cuda_driver_name,
                    reason != nullptr ? "" : " cannot be loaded");
      return;
    }
#define ADAMW_FIND(name, arguments)                                                                              \
  driver.name = reinterpret_cast<Result(*) arguments>(find_function(library, #name));                            \
  if (driver.name == nullptr) {                                                                                  \
    std::snprintf(error, sizeof error,                                                                           \
                  "the CUDA driver is too old: it does not have %s; 530 (CUDA 12.1) or later is needed", #name); \
    return;                                                                                                      \
  }
    ADAMW_DRIVER_FUNCTIONS(ADAMW_FIND)
#undef ADAMW_FIND
#define ADAMW_LOOK(name, arguments) driver.name = reinterpret_cast<Result(*) arguments>(find_function(library, #name));
    ADAMW_OPTIONAL_DRIVER_FUNCTIONS(ADAMW_LOOK)
#undef ADAMW_LOOK
    complete = true;
  }
};

const Driver *replacement = nullptr;

}  // namespace

const Driver *driver(const char **error) {
  if (replacement != nullptr) return replacement;
  static const Search search;
  *error = search.error;
  return search.complete ? &search.driver : nullptr;
}

void set_driver(const Driver *stand_in) { replacement = stand_in; }

}  // namespace gpu
}  // namespace adamw
