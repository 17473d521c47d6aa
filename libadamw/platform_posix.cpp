// Owns what platform.h declares of the system, on those that are POSIX: Linux, with glibc or musl, and macOS.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "platform.h"

namespace adamw {
namespace {

constexpr std::int64_t page = 4096;

std::size_t whole_pages(std::int64_t bytes) { return static_cast<std::size_t>((bytes + page - 1) / page * page); }

}  // namespace

void *map_memory(std::int64_t bytes) {
  const std::size_t size = whole_pages(bytes);
  void *memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
#ifdef MADV_HUGEPAGE
  constexpr std::int64_t huge_page = std::int64_t{2} << 20;
  if (bytes >= huge_page) madvise(memory, size, MADV_HUGEPAGE);  // a wish: refused where there are none
#endif
  return memory;
}

void unmap_memory(void *memory, std::int64_t bytes) { munmap(memory, whole_pages(bytes)); }

void *allocate_aligned(std::size_t alignment, std::size_t bytes) { return std::aligned_alloc(alignment, bytes); }
void free_aligned(void *memory) { std::free(memory); }

long process_number() { return getpid(); }

bool has_other_threads() {
  // Links of the folder: itself, its parent folder, one thread.
#if defined(__GLIBC__)  // before 2.33 it has no function stat()
  struct statx tasks = {};
  return statx(AT_FDCWD, "/proc/self/task", 0, STATX_NLINK, &tasks) != 0 || tasks.stx_nlink != 3;
#elif defined(__linux__)  // before 1.2.4 musl has no statx()
  struct stat tasks = {};
  return stat("/proc/self/task", &tasks) != 0 || tasks.st_nlink != 3;
#else
  return true;
#endif
}

int at_fork(void (*before)(), void (*in_parent)(), void (*in_child)()) {
  return pthread_atfork(before, in_parent, in_child);
}

const char *temporary_directory() {
  const char *named = std::getenv("TMPDIR");
  return named != nullptr && named[0] != '\0' ? named : "/var/tmp";
}

}  // namespace adamw
