// Owns threads: OpenMP, so that a process has one pool (torch's, once it is loaded); or std::thread where
// ADAMW_THREADS_STD is defined, because ThreadSanitizer cannot see libgomp's synchronisation. Knows nothing of what the
// threads do.
#include "parallel.h"

#include <atomic>

#if defined(ADAMW_THREADS_STD)
#include <thread>
#include <vector>
#else
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cstdint>
#endif

namespace adamw {
namespace {

std::atomic<int> chosen_threads{0};

// The caller's rounding mode and flush-to-zero flags are those of one thread: with the defaults on all of them the
// result depends on none.
class DefaultFloatMode {
#if defined(__x86_64__)
 public:
  DefaultFloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~DefaultFloatMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
 public:
  DefaultFloatMode() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~DefaultFloatMode() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_;
#endif
};

void run_here(void (*function)(void *), void *context) {
  DefaultFloatMode mode;
  function(context);
}

}  // namespace

void set_default_threads(int threads) { chosen_threads = threads; }

int default_threads() {
  const int chosen = chosen_threads;
  if (chosen > 0) return chosen;
#if defined(ADAMW_THREADS_STD)
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
#else
  return omp_get_max_threads();
#endif
}

void run_on_threads(int threads, void (*function)(void *), void *context) {
  if (threads <= 1) {
    run_here(function, context);
    return;
  }
#if defined(ADAMW_THREADS_STD)
  std::vector<std::thread> others;
  for (int i = 1; i < threads; ++i) others.emplace_back(run_here, function, context);
  run_here(function, context);
  for (std::thread &other : others) other.join();
#else
#pragma omp parallel num_threads(threads)
  run_here(function, context);
#endif
}

}  // namespace adamw
