// Owns threads: OpenMP's, so that a process has one pool (torch's, once it is loaded), or std::thread. CMake's
// ADAMW_THREADS says which. Knows nothing of what the threads do.
#include "parallel.h"

#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#else
#include <cstdint>
#endif

// What is needed of OpenMP, by the names that each runtime has for gcc's code (libgomp, LLVM's, Intel's).
//   openmp:  a runtime is linked.
//   process: that which the process had loaded before this library, as torch does. The binary names none, works with
//            any, and can do without.
//   std:     none, because ThreadSanitizer cannot see libgomp's synchronisation.
#if defined(ADAMW_THREADS_PROCESS)
#define ADAMW_OPENMP_LINKAGE __attribute__((weak))
#else
#define ADAMW_OPENMP_LINKAGE
#endif
#if !defined(ADAMW_THREADS_STD)
extern "C" ADAMW_OPENMP_LINKAGE void GOMP_parallel(void (*function)(void *), void *context, unsigned threads,
                                                   unsigned flags);
extern "C" ADAMW_OPENMP_LINKAGE int omp_get_max_threads();
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

#if defined(ADAMW_THREADS_STD)
bool has_openmp() { return false; }
bool run_on_openmp(int, void (*)(void *), void *) { return false; }
int openmp_threads() { return 0; }
#else
#if defined(ADAMW_THREADS_PROCESS)
bool has_openmp() { return GOMP_parallel != nullptr && omp_get_max_threads != nullptr; }
#else
bool has_openmp() { return true; }
#endif
// False if there is no OpenMP, and nothing has run.
bool run_on_openmp(int threads, void (*function)(void *), void *context) {
  if (!has_openmp()) return false;
  struct Work {
    void (*function)(void *);
    void *context;
  } work{function, context};
  GOMP_parallel([](void *work) { run_here(static_cast<Work *>(work)->function, static_cast<Work *>(work)->context); },
                &work, static_cast<unsigned>(threads), 0);
  return true;
}
int openmp_threads() { return has_openmp() ? omp_get_max_threads() : 0; }
#endif

}  // namespace

const char *thread_layer() { return has_openmp() ? "OpenMP" : "its own"; }

void set_default_threads(int threads) { chosen_threads = threads; }

int default_threads() {
  const int chosen = chosen_threads;
  if (chosen > 0) return chosen;
  const int threads = openmp_threads();
  if (threads > 0) return threads;
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

void run_on_threads(int threads, void (*function)(void *), void *context) {
  if (threads <= 1) {
    run_here(function, context);
    return;
  }
  if (run_on_openmp(threads, function, context)) return;
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(threads) - 1);
  try {
    for (int i = 1; i < threads; ++i) others.emplace_back(run_here, function, context);
  } catch (const std::system_error &) {
    // The system has no more threads: those that there are do all of it.
  }
  run_here(function, context);
  for (std::thread &other : others) other.join();
}

}  // namespace adamw
