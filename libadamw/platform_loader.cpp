// Owns what platform.h declares of shared libraries. Only builds for CUDA have it: what runs on a CPU loads none.
#include "platform.h"

#ifdef _WIN32
#error "a port: load_library() and find_function() with LoadLibrary and GetProcAddress; the driver is nvcuda.dll"
#endif

#include <dlfcn.h>

namespace adamw {

const char *const cuda_driver_name = "libcuda.so.1";

void *load_library(const char *name, const char **error) {
  void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  *error = library == nullptr ? dlerror() : nullptr;
  return library;
}

void *find_function(void *library, const char *name) { return dlsym(library, name); }

}  // namespace adamw
