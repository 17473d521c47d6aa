// Owns threads: OpenMP's, so that a process has one pool (torch's, once it is loaded), or std::thread. CMake's
// ADAMW_THREADS says which. Knows nothing of what the threads do.
#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "../platform.h"
#include "float_mode.h"

// What is needed of OpenMP, by the names that each runtime has for gcc's code (libgomp, LLVM's, Intel's).
//   openmp:  a runtime is linked.
//   process: that which the process had loaded before this library, as torch does. The binary names none, works with
//            any, and can do without.
//   std:     none, because ThreadSanitizer cannot see libgomp's synchronisation.
#if defined(ADAMW_THREADS_PROCESS)
#define ADAMW_OPENMP_LINKAGE ADAMW_WEAK
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

void run_here(void (*function)(void *), void *context) {
  DefaultFloatMode mode;
  function(context);
}

// The same through one pointer.
struct Work {
  void (*function)(void *);
  void *context;
};
void run_work(void *work) { run_here(static_cast<Work *>(work)->function, static_cast<Work *>(work)->context); }

// ---- what the system gives ----

// With more threads than this for each processor nothing is won, and their stacks alone take gigabytes.
constexpr unsigned max_per_processor = 8, always_allowed = 64;

int processors() {
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

int clamped(int threads) {
  static const int most =
      std::max(static_cast<int>(always_allowed), static_cast<int>(max_per_processor) * processors());
  return std::clamp(threads, 1, most);
}

// A child of fork() has one thread, whatever pool its parent had. OpenMP does not know, and would wait for the others
// for ever.
std::atomic<bool> pool_is_gone{false};
bool forks_with_threads = false;

[[maybe_unused]] const int watches_forks = at_fork([] { forks_with_threads = has_other_threads(); }, [] {},
                                                   [] { pool_is_gone = pool_is_gone || forks_with_threads; });

// Starts threads and runs function(context) on them, and here. Those that the system does not give are done without.
template <class Meanwhile>
int with_threads(int threads, void (*function)(void *), void *context, const Meanwhile &meanwhile) {
  std::vector<std::thread> others;
  try {
    others.reserve(static_cast<std::size_t>(threads) - 1);
    for (int i = 1; i < threads; ++i) {
      errno = ENOMEM;  // glibc insists on it where an allocator of the program's own fails, which may not have set it
      others.emplace_back(function, context);
    }
  } catch (const std::exception &) {  // no thread, or no memory for one
  }
  meanwhile();
  for (std::thread &other : others) other.join();
  return static_cast<int>(others.size()) + 1;
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

// How many threads the system gives, of `threads`. OpenMP ends the process when it cannot have one. So a thread that
// asks it for more than it ever did has them made here first, all at a time.
int granted(int threads) {
  static thread_local int seen = 1;
  if (threads <= seen) return threads;
  struct Gate {
    std::mutex mutex;
    std::condition_variable open;
    bool is_open = false;
  } gate;
  const auto wait = [](void *context) {
    auto &g = *static_cast<Gate *>(context);
    std::unique_lock<std::mutex> lock(g.mutex);
    g.open.wait(lock, [&] { return g.is_open; });
  };
  const int given = with_threads(threads, wait, &gate, [&] {
    const std::lock_guard<std::mutex> lock(gate.mutex);
    gate.is_open = true;
    gate.open.notify_all();
  });
  if (given == threads) seen = threads;
  return given;
}

// False if there is no OpenMP, and nothing has run.
bool run_on_openmp(int threads, void (*function)(void *), void *context) {
  if (!has_openmp()) return false;
  threads = granted(threads);
  if (threads == 1) {
    run_here(function, context);
    return true;
  }
  Work work{function, context};
  GOMP_parallel(run_work, &work, static_cast<unsigned>(threads), 0);
  return true;
}
int openmp_threads() { return has_openmp() ? omp_get_max_threads() : 0; }
#endif

}  // namespace

const char *thread_layer() { return has_openmp() ? "OpenMP" : "std::thread"; }

void set_default_threads(int threads) { chosen_threads = threads; }

int default_threads() {
  if (pool_is_gone) return 1;
  const int chosen = chosen_threads, threads = chosen > 0 ? chosen : openmp_threads();
  return clamped(threads > 0 ? threads : processors());
}

void run_on_threads(int threads, void (*function)(void *), void *context) {
  threads = pool_is_gone ? 1 : clamped(threads);
  if (threads == 1) {
    run_here(function, context);
    return;
  }
  if (run_on_openmp(threads, function, context)) return;
  Work work{function, context};
  with_threads(threads, run_work, &work, [&] { run_here(function, context); });
}

}  // namespace adamw
