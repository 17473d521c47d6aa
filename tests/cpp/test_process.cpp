// Owns the laws of a library in a process: any number of threads, the ends of threads and of the process, the memory
// that stays. (Forks: test_forks.cpp.)
#include <dlfcn.h>
#include <pthread.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "children.h"
#include "paged_model.h"

// A system that has so many threads, and no more at a time, without leave to make such a one.
namespace {

std::atomic<int> threads_left{1 << 30};

struct Start {
  void *(*function)(void *);
  void *context;
};

void *run_and_end(void *start) {
  const std::unique_ptr<Start> s(static_cast<Start *>(start));
  void *result = s->function(s->context);
  ++threads_left;
  return result;
}

}  // namespace

extern "C" int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                              void *context) {
  using Create = int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (threads_left-- > 0) return create(thread, attributes, run_and_end, new Start{function, context});
  ++threads_left;
  return EAGAIN;
}

namespace {

const std::vector<TensorShape> large = {{1, 300000, 0}};

std::vector<std::uint8_t> stepped(int threads) {
  Model model(step_options(ADAMW_STATE_BLOCK8), large);
  model.options.num_threads = threads;
  model.run(1);
  return model.contents();
}

// Law: any number of threads works, and gives the same bits.
void check_thread_counts() {
  const auto one = stepped(1);
  for (int threads : {0, 2, 3, 100, 100000, 1 << 27, INT_MAX}) CHECK(stepped(threads) == one, "%d threads", threads);
  CHECK(adamw_set_num_threads(INT_MAX) == ADAMW_OK && adamw_get_num_threads() > 0, "%d", adamw_get_num_threads());
  CHECK(stepped(0) == one, "INT_MAX by default");
  CHECK(adamw_set_num_threads(0) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: with fewer threads than were asked for, or none, all is done by those that there are.
void check_no_threads() {
  if (!can_fork) return;
  const auto one = stepped(1);
  for (int left : {0, 1, 2, 5}) {
    // Each in a process of its own: a pool of threads stays.
    CHECK(in_child([&] {
            int right = 0;
            std::thread([&] {  // OpenMP has no threads for this one yet
              threads_left = left;
              right = stepped(64) == one && stepped(8) == one ? 0 : 1;
              threads_left = 1000;
              if (stepped(4) != one) right = 2;
            })
                .join();
            return right;
          }) == "",
          "%d threads to be had", left);
  }
}

// Law: a pager that gets no threads says so, leaves nothing, and the next call works.
void check_pager_without_threads() {
  for (int left : {0, 1}) {
    adamw_pager *pager = new_pager(file_options());
    {
      Model plain(step_options(), {{1, 50000, 0}});
      PagedModel paged(pager, step_options(), {{1, 50000, 0}});
      plain.options.num_threads = paged.options.num_threads = 1;
      plain.run(1);
      paged.new_gradients(1);
      void *usable = nullptr;
      for (int again = 0; again < 2; ++again) {
        threads_left = left;
        const adamw_status status = paged.call(1);
        CHECK(status == ADAMW_ERROR_OUT_OF_MEMORY && std::strstr(adamw_last_error(), "threads") != nullptr,
              "status %d: %s", status, adamw_last_error());
        threads_left = left;
        CHECK(adamw_pager_acquire(pager, paged.rows[0].exp_avg, 100, nullptr, &usable) == ADAMW_ERROR_OUT_OF_MEMORY,
              "%s", adamw_last_error());
      }
      threads_left = 1 << 30;
      CHECK(paged.call(1) == ADAMW_OK, "%s", adamw_last_error());
      CHECK(plain.contents() == paged.paged_contents(), "a step after threads were refused");
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  }
}

// ---- ends ----

// Many rows, so that every table that is kept is in use.
void step_many() {
  static const std::vector<TensorShape> many(40, TensorShape{1, 300, 0});
  for (adamw_state_format format : {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8}) Model(step_options(format), many).run(2);
}

// Steps when it is destroyed, between others who take and give back memory.
struct StepsAtItsEnd {
  bool counts = true;
  ~StepsAtItsEnd() {
    for (int i = 0; i < 20; ++i) {
      step_many();
      const std::unique_ptr<char[]> filled(new char[784]);
      std::memset(filled.get(), 0xEE, 784);
    }
    if (failures() == 0) return;
    const int status = finish();
    std::fflush(stdout);
    _Exit(status);
  }
};

void check_end_of_a_thread() {
  static thread_local StepsAtItsEnd late;
  std::thread([] {
    late.counts = true;  // it is made before anything of the library is used on this thread
    step_many();
  }).join();
}

// ---- memory ----

long resident_bytes() {
  long pages = 0, resident = 0;
  FILE *file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  if (std::fscanf(file, "%ld %ld", &pages, &resident) != 2) resident = 0;
  std::fclose(file);
  return resident * 4096;
}

// Law: what stays of tables of different lengths is less than a kilobyte for each tensor (adamw.h), and goes when
// smaller ones follow.
void check_memory() {
  if (abridged) return;  // a sanitizer or an emulator has memory of its own
  constexpr std::int64_t rows = 100000;
  std::vector<float> memory(4 * rows);
  std::vector<adamw_tensor> table(rows);
  for (std::int64_t i = 0; i < rows; ++i) {
    adamw_tensor &t = table[static_cast<std::size_t>(i)];
    t = {};
    float *const at = memory.data() + 4 * i;
    t.param = at, t.grad = at + 1, t.exp_avg = at + 2, t.exp_avg_sq = at + 3;
    t.numel = t.row_length = t.step = 1;
  }
  const adamw_step_options options = step_options();
  const auto step = [&](std::int64_t count) {
    CHECK(adamw_step(&options, table.data(), sizeof table[0], count) == ADAMW_OK, "%s", adamw_last_error());
  };
  const long before = resident_bytes();
  for (std::int64_t k = 0; k < 32; ++k) step(rows - k);
  const long large = resident_bytes() - before;
  CHECK(large < 1024 * rows, "%.0f bytes a row stay", static_cast<double>(large) / rows);
  for (int k = 0; k < 200; ++k) step(100);
  const long small = resident_bytes() - before;
  CHECK(small < large / 4, "of %ld bytes %ld stay", large, small);
}

}  // namespace

int main() {
  check_pager_without_threads();
  check_no_threads();
  check_thread_counts();
  check_end_of_a_thread();
  check_memory();
  static StepsAtItsEnd at_exit;  // after main(), and after what the library made in it
  std::atexit([] { const StepsAtItsEnd in_between; });
  return finish();
}
