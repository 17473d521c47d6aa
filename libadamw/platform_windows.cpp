// Owns what platform.h declares of the system, on Windows.
#include <malloc.h>
#include <windows.h>

#include <cstdlib>

#include "platform.h"

namespace adamw {

void *map_memory(std::int64_t bytes) {
  return VirtualAlloc(nullptr, static_cast<std::size_t>(bytes), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}
void unmap_memory(void *memory, std::int64_t) { VirtualFree(memory, 0, MEM_RELEASE); }

void *allocate_aligned(std::size_t alignment, std::size_t bytes) { return _aligned_malloc(bytes, alignment); }
void free_aligned(void *memory) { _aligned_free(memory); }

long process_number() { return static_cast<long>(GetCurrentProcessId()); }

// There is no fork.
bool has_other_threads() { return true; }
int at_fork(void (*)(), void (*)(), void (*)()) { return 0; }

const char *temporary_directory() {
  const char *named = std::getenv("TEMP");
  return named != nullptr ? named : ".";
}

}  // namespace adamw
