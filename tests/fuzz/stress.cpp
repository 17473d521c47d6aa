// Owns the stress of the library by the life of a process: a signal every millisecond, threads that come and go and
// step tables of their own with pagers of their own and of all, and forks whose children check what they inherit. The
// bits are those of a quiet process. A hang is for who runs it to notice (ci/stress). usage: fuzz.stress [SECONDS]
// [SEED]
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <thread>

#include "../cpp/paged_model.h"

namespace {

// ThreadSanitizer does not follow a process of several threads through a fork: its own locks may be held in the child.
#ifdef __SANITIZE_THREAD__
constexpr bool with_forks = false;
#else
constexpr bool with_forks = true;
#endif

// AddressSanitizer's allocator takes no care of forks: what one of the parent's threads has locked is locked in the
// child for ever. There a child does only what allocates nothing.
#ifdef __SANITIZE_ADDRESS__
constexpr bool child_allocates = false;
#else
constexpr bool child_allocates = true;
#endif

std::atomic<bool> stop{false};
std::atomic<long> signals{0}, episodes{0}, lent{0}, refused{0};
void on_alarm(int) { ++signals; }

// restart: interrupted system calls of the process go on, or fail with EINTR.
void signal_each_millisecond(bool restart) {
  struct sigaction action{};
  action.sa_handler = on_alarm;
  action.sa_flags = restart ? SA_RESTART : 0;
  sigaction(SIGALRM, &action, nullptr);
  const itimerval each = {{0, 1000}, {0, 1000}};
  setitimer(ITIMER_REAL, &each, nullptr);
}

void sleep_microseconds(int count) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(count);
  while (std::chrono::steady_clock::now() < end) std::this_thread::sleep_until(end);
}

// ---- what threads step ----

constexpr int steps = 3, kinds = 8;

adamw_step_options kind_of(int kind) {
  adamw_step_options o =
      step_options(static_cast<adamw_state_format>(kind % 4), kind < 4 ? 0u : std::uint32_t{ADAMW_STEP_AMSGRAD});
  if (kind == 6) o.percentile_clipping = 30, o.max_unorm = 0.5;
  if (kind == 5) o.param_dtype = ADAMW_BFLOAT16, o.flags |= ADAMW_STEP_STOCHASTIC_ROUNDING;
  if (kind == 1 || kind == 7) o.param_dtype = ADAMW_BFLOAT16, o.remainder_bits = kind == 1 ? 16 : 8;
  o.num_threads = 1;
  return o;
}
std::vector<TensorShape> shapes_of(int kind) {
  if (kind == 7) return {{1, 60000, 0}, {3, 300, 0}};  // several windows, several threads
  return {{3, 300, 0}, {1, 5000, 0}, {7, 65, 0}, {1, 1, 0}};
}

std::vector<std::uint8_t> quiet[kinds];  // what each kind becomes in a process with one thread

adamw_pager_options place(int backing, std::int64_t resident = 0) {
  return backing == ADAMW_PLACE_FILE ? file_options(1 << 16, resident) : adamw_pager_options ADAMW_PAGER_OPTIONS_INIT;
}

struct Shared {              // by all threads
  adamw_pager *host, *file;  // that steps use
  adamw_pager *lending;      // of which stretches are acquired
};

void run_kind(int kind, Random &random, const Shared &shared) {
  adamw_step_options o = kind_of(kind);
  o.num_threads = random.below(4);
  if (random.below(8) == 0) CHECK(adamw_set_num_threads(random.below(5)) == ADAMW_OK, "%s", adamw_last_error());
  const auto finish_in = [&](adamw_pager *pager, bool own) {
    {
      PagedModel model(pager, o, shapes_of(kind));
      model.run(steps);
      CHECK(model.paged_contents() == quiet[kind], "kind %d in pages has other bits", kind);
    }
    if (own) CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  };
  switch (random.below(6)) {
    case 0: {
      Model model(o, shapes_of(kind));
      model.run(steps);
      CHECK(model.contents() == quiet[kind], "kind %d has other bits", kind);
      break;
    }
    case 1:
      finish_in(new_pager(place(ADAMW_PLACE_HOST)), true);
      break;
    case 2:
      finish_in(new_pager(place(ADAMW_PLACE_FILE)), true);
      break;
    case 3:
      finish_in(new_pager(place(ADAMW_PLACE_FILE, 300000)), true);
      break;
    case 4:
      finish_in(shared.host, false);
      break;
    default:
      finish_in(shared.file, false);
      break;
  }
  ++episodes;
}

// A buffer of a pager that others use likewise: what is written, acquired and released is what it holds.
void lend(Random &random, adamw_pager *pager) {
  const int size = 1 + random.below(40000);
  const int byte = random.below(256);
  void *buffer = nullptr, *usable = nullptr;
  CHECK(adamw_pager_alloc(pager, size, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  std::memset(buffer, byte, static_cast<std::size_t>(size));
  if (random.below(2) == 0)
    CHECK(adamw_pager_prefetch(pager, buffer, size, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  const adamw_status status = adamw_pager_acquire(pager, buffer, size, nullptr, &usable);
  if (status == ADAMW_ERROR_INVALID_ARGUMENT) {
    ++refused;  // three are out already
  } else {
    CHECK(status == ADAMW_OK, "%s", adamw_last_error());
    auto *const at = static_cast<std::uint8_t *>(usable);
    CHECK(std::count(at, at + size, byte) == size, "acquired bytes are not those that were written");
    std::memset(usable, byte ^ 1, static_cast<std::size_t>(size));
    CHECK(adamw_pager_release(pager, usable, 1, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    const auto *const now = static_cast<std::uint8_t *>(buffer);
    CHECK(std::count(now, now + size, byte ^ 1) == size, "released bytes are not there");
    ++lent;
  }
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK, "%s", adamw_last_error());
}

// Threads end and others begin, each after some tables.
void live(std::uint64_t seed, const Shared &shared) {
  adamw_pager *const own = new_pager(place(ADAMW_PLACE_FILE));
  adamw_pager *const lending = shared.lending;
  for (std::uint64_t life = 0; !stop; ++life)
    std::thread([&] {
      Random random(seed * 1000 + life);
      for (int i = 0; i < 12 && !stop; ++i) {
        run_kind(random.below(kinds), random, shared);
        lend(random, lending);
      }
    }).join();
  CHECK(adamw_pager_destroy(own) == ADAMW_OK, "%s", adamw_last_error());
}

// ---- forks ----

struct Inherited {
  adamw_pager *pager;
  void *buffer;
  std::size_t bytes;
  bool file;

  bool holds(int byte) const {
    const auto *const at = static_cast<const std::uint8_t *>(buffer);
    return std::count(at, at + bytes, byte) == static_cast<std::ptrdiff_t>(bytes);
  }
};

// Law: a child has what there was at the moment of the fork, may step and free, and is refused all else with a FILE
// pager.
[[noreturn]] void be_child(const std::vector<Inherited> &all, int byte, int delay) {
  std::signal(SIGALRM, SIG_DFL);
  alarm(60);
  for (int round = 0; round < 2; ++round) {
    for (const Inherited &i : all) CHECK(i.holds(byte), "a buffer in the child (file: %d, round %d)", i.file, round);
    sleep_microseconds(delay);  // the parent goes on, and writes and frees its own
  }
  for (const Inherited &i : all) {
    adamw_pager_statistics s;
    void *p = nullptr;
    const adamw_status expected = i.file ? ADAMW_ERROR_UNSUPPORTED : ADAMW_OK;
    CHECK(adamw_pager_stats(i.pager, &s, sizeof s) == expected, "stats: %s", adamw_last_error());
    CHECK(adamw_pager_wait(i.pager) == expected, "wait: %s", adamw_last_error());
    CHECK(adamw_pager_prefetch(i.pager, i.buffer, 1, nullptr) == expected, "prefetch: %s", adamw_last_error());
    CHECK(adamw_pager_acquire(i.pager, i.buffer, 1, nullptr, &p) == expected, "acquire: %s", adamw_last_error());
    if (!i.file) CHECK(adamw_pager_release(i.pager, p, 0, nullptr) == ADAMW_OK, "release: %s", adamw_last_error());
    if (!i.file && !child_allocates) continue;
    CHECK(adamw_pager_alloc(i.pager, 1000, &p, nullptr) == expected, "alloc: %s", adamw_last_error());
    if (!i.file) CHECK(adamw_pager_free(i.pager, p) == ADAMW_OK, "free: %s", adamw_last_error());
    std::memset(i.buffer, byte + 1, i.bytes);  // it is the child's own
  }
  if (!child_allocates) _exit(failures() != 0);
  for (int kind : {1, 7}) {
    adamw_step_options o = kind_of(kind);
    o.num_threads = 2;
    Model model(o, shapes_of(kind));
    model.run(steps);
    CHECK(model.contents() == quiet[kind], "kind %d has other bits in the child", kind);
    model.options.pager = all[0].pager;
    CHECK(model.call(steps + 1) == (all[0].file ? ADAMW_ERROR_UNSUPPORTED : ADAMW_OK), "step: %s", adamw_last_error());
  }
  for (const Inherited &i : all) {
    CHECK(i.holds(byte + 1), "what the child wrote (file: %d)", i.file);
    CHECK(adamw_pager_free(i.pager, i.buffer) == ADAMW_OK, "free: %s", adamw_last_error());
  }
  std::fflush(stdout);
  _exit(failures() != 0);
}

void wait_for(pid_t child, long number) {
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  CHECK(!WIFSIGNALED(status), "child %ld: signal %d", number, WTERMSIG(status));
  CHECK(WIFSIGNALED(status) || WEXITSTATUS(status) == 0, "child %ld: status %d", number, WEXITSTATUS(status));
}

// Buffers with a byte that changes after every fork; sometimes they are given back while the child reads its own.
long fork_until(std::chrono::steady_clock::time_point end, Random &random, const Shared &shared) {
  std::vector<Inherited> all;
  adamw_pager *const own = new_pager(place(ADAMW_PLACE_FILE)), *file = shared.file;
  for (adamw_pager *pager : {file, shared.host, shared.lending, file})
    all.push_back({pager, nullptr, static_cast<std::size_t>(1 + random.below(70000)), pager != shared.host});
  const auto take = [](Inherited &i) {
    CHECK(adamw_pager_alloc(i.pager, static_cast<std::int64_t>(i.bytes), &i.buffer, nullptr) == ADAMW_OK, "%s",
          adamw_last_error());
  };
  for (Inherited &i : all) take(i);
  std::vector<pid_t> children;
  long forks = 0;
  const auto begin = std::chrono::steady_clock::now();
  bool restarting = false;
  while (std::chrono::steady_clock::now() < end && failures() == 0) {
    const int byte = static_cast<int>(forks % 200);
    for (const Inherited &i : all) std::memset(i.buffer, byte, i.bytes);
    sleep_microseconds(random.below(4000));
    if (!restarting && std::chrono::steady_clock::now() - begin > (end - begin) / 2) {
      restarting = true;
      signal_each_millisecond(true);
    }
    for (const Inherited &i : all)
      CHECK(i.holds(byte), "a buffer of the parent's, before fork %ld, has lost what was written (file: %d)", forks,
            i.file);
    if (!with_forks) continue;
    std::fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0, "fork: %s", std::strerror(errno));
    if (child == 0) be_child(all, byte, random.below(5000));
    ++forks;
    for (Inherited &i : all) {
      std::memset(i.buffer, byte + 7, i.bytes);
      CHECK(i.holds(byte + 7), "a buffer of the parent's, after fork %ld, has lost what was written (file: %d)", forks,
            i.file);
      // A call with the pager comes after it, or only after the next fork.
      if (random.below(3) != 0) continue;
      CHECK(adamw_pager_free(i.pager, i.buffer) == ADAMW_OK, "%s", adamw_last_error());
      take(i);
    }
    children.push_back(child);
    if (children.size() < 3) continue;
    wait_for(children.front(), forks);
    children.erase(children.begin());
  }
  for (pid_t child : children) wait_for(child, forks);
  for (const Inherited &i : all) CHECK(adamw_pager_free(i.pager, i.buffer) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(adamw_pager_destroy(own) == ADAMW_OK, "%s", adamw_last_error());
  return forks;
}

}  // namespace

int main(int count, char **arguments) {
  const double seconds = count > 1 ? std::strtod(arguments[1], nullptr) : 10;
  const std::uint64_t seed = count > 2 ? std::strtoull(arguments[2], nullptr, 10) : 1;
  for (int kind = 0; kind < kinds; ++kind) {
    Model model(kind_of(kind), shapes_of(kind));
    model.run(steps);
    quiet[kind] = model.contents();
  }
  const Shared shared = {new_pager(place(ADAMW_PLACE_HOST)), new_pager(place(ADAMW_PLACE_FILE)),
                         new_pager(place(ADAMW_PLACE_FILE))};
  signal_each_millisecond(false);
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < 4; ++i) threads.emplace_back(live, seed * 100 + i, std::cref(shared));
  Random random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<long>(seconds * 1000));
  const long forks = fork_until(end, random, shared);
  stop = true;
  for (std::thread &thread : threads) thread.join();
  for (adamw_pager *pager : {shared.host, shared.file, shared.lending})
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  std::printf(
      "%.0f s, seed %llu: %ld tables of %d steps, %ld stretches lent (%ld refused, as three were out), %ld forks, %ld "
      "signals\n",
      seconds, static_cast<unsigned long long>(seed), episodes.load(), steps, lent.load(), refused.load(), forks,
      signals.load());
  return finish();
}
