// Owns the memory allocator of a test: glibc's own, but for the one allocation, or all from it on, that is to fail.
// Included in one file of a program. Knows nothing of who allocates.
#pragma once

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdlib>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ADAMW_FAILING_ALLOCATIONS 1
extern "C" {
void *__libc_malloc(std::size_t);
void *__libc_calloc(std::size_t, std::size_t);
void *__libc_realloc(void *, std::size_t);
void *__libc_memalign(std::size_t, std::size_t);
}
#else
#define ADAMW_FAILING_ALLOCATIONS 0
#endif

namespace allocations {

inline std::atomic<long> to_come{-1};  // how many succeed before one fails; below 0: none fails
inline std::atomic<bool> and_all_later{false}, failed{false};

// The allocation after `number` others fails, and with `all_later` those behind it.
inline void fail_after(long number, bool all_later) {
  failed = false;
  and_all_later = all_later;
  to_come = number;
}
// True if one has failed since.
inline bool succeed_again() {
  to_come = -1;
  return failed;
}

inline bool fails() {
  long before = to_come;
  do {
    if (before < 0) return false;
  } while (!to_come.compare_exchange_weak(before, before == 0 && and_all_later ? 0 : before - 1));
  if (before != 0) return false;
  failed = true;
  errno = ENOMEM;
  return true;
}

}  // namespace allocations

#if ADAMW_FAILING_ALLOCATIONS
extern "C" {
void *malloc(std::size_t bytes) noexcept { return allocations::fails() ? nullptr : __libc_malloc(bytes); }
void *calloc(std::size_t count, std::size_t bytes) noexcept {
  return allocations::fails() ? nullptr : __libc_calloc(count, bytes);
}
void *realloc(void *at, std::size_t bytes) noexcept {
  return allocations::fails() ? nullptr : __libc_realloc(at, bytes);
}
void *aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept {
  return allocations::fails() ? nullptr : __libc_memalign(alignment, bytes);
}
void *memalign(std::size_t alignment, std::size_t bytes) noexcept { return aligned_alloc(alignment, bytes); }
int posix_memalign(void **at, std::size_t alignment, std::size_t bytes) noexcept {
  *at = aligned_alloc(alignment, bytes);
  return *at == nullptr ? ENOMEM : 0;
}
}
#endif
