// Owns the law of fork(): a child's buffers are what they were in that moment, whatever its parent does later, and the
// parent's are as if there had been no child.
#include <sys/mman.h>
#include <sys/resource.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "children.h"
#include "paged_model.h"

namespace {

const std::vector<TensorShape> shapes = {{1, 70000, 0}, {1, 33, 0}, {20, 1000, 0}, {1, 5, 0}, {1, 40000, 256}};

enum class Later { steps, edits, frees };
constexpr int page = 4096;

// What a child must find: all that was there at the fork; and it may write and free, and nothing else of the pager's.
int as_at_the_fork(PagedModel &paged, const std::vector<std::uint8_t> &at_fork) {
  for (auto &[from, to] : paged.buffers) std::memcpy(to->memory.data(), from, to->memory.size());
  if (paged.contents() != at_fork) return 1;
  const bool file = paged.pager != nullptr && paged.options.pager != nullptr;
  for (auto &[from, to] : paged.buffers) std::memset(from, 0x5A, to->memory.size());
  void *more = nullptr;
  adamw_pager_statistics statistics;
  const adamw_status must = file ? ADAMW_ERROR_UNSUPPORTED : ADAMW_OK;
  void *const first = paged.buffers[0].first;
  if (paged.call(9) != must) return 2;
  if (adamw_pager_alloc(paged.pager, 100, &more, nullptr) != must || more != nullptr) return 3;
  if (adamw_pager_stats(paged.pager, &statistics, sizeof statistics) != must) return 4;
  if (adamw_pager_acquire(paged.pager, first, 10, nullptr, &more) != must || more != nullptr) return 5;
  if (adamw_pager_prefetch(paged.pager, first, 10, nullptr) != must) return 6;
  if (adamw_pager_release(paged.pager, first, 0, nullptr) != must || adamw_pager_wait(paged.pager) != must) return 7;
  for (auto &buffer : paged.buffers)
    if (adamw_pager_free(paged.pager, buffer.first) != ADAMW_OK) return 8;
  return adamw_pager_destroy(paged.pager) == ADAMW_OK ? 0 : 9;
}

void change(Model &model, int step, int edit) {
  auto *moment = static_cast<char *>(model.rows[0].exp_avg);
  for (int at = edit % page; at < 70000; at += 3 * page) moment[at] = static_cast<char>(edit);
  static_cast<char *>(model.rows[3].exp_avg_sq)[0] = static_cast<char>(edit);
  model.new_gradients(static_cast<std::uint64_t>(step));
  CHECK(model.call(step) == ADAMW_OK, "step %d: %s", step, adamw_last_error());
}

// The child looks before the parent goes on, after it, or not at all; and the parent has to find out by itself what it
// has written meanwhile, or is told.
struct Case {
  bool child_lives, told;
  std::int64_t resident;
  const char *name;
};

void check_both(const Case &c) {
  const adamw_step_options options = step_options(ADAMW_STATE_BLOCK8, ADAMW_STEP_AMSGRAD);
  adamw_pager *pager = new_pager(file_options(1 << 16, c.resident));
  {
    Model plain(options, shapes);
    PagedModel paged(pager, options, shapes);
    plain.run(2);
    paged.run(2);
    for (int round = 0; round < 3; ++round) {
      const auto at_fork = paged.paged_contents();
      CHECK(at_fork == plain.contents(), "%s: before fork %d", c.name, round);
      Child child([&] { return as_at_the_fork(paged, at_fork); });
      if (!c.child_lives) CHECK(child.go() == "", "%s: fork %d", c.name, round);
      {
        // Before the first call too, in which the pager notices the fork.
        char *edited = static_cast<char *>(paged.rows[2].exp_avg) + 123;
        *edited = *(static_cast<char *>(plain.rows[2].exp_avg) + 123) = static_cast<char>(77 + round);
        // Buffers are taken and given back, too, in what the child can still read.
        void *buffers[3] = {};
        for (int again = 0; again < 3; ++again) {
          for (void *&buffer : buffers) {
            const std::size_t bytes = &buffer == buffers ? 100 : 10000;
            CHECK(adamw_pager_alloc(pager, static_cast<std::int64_t>(bytes), &buffer, nullptr) == ADAMW_OK, "%s",
                  adamw_last_error());
            auto *first = static_cast<unsigned char *>(buffer);
            CHECK(std::all_of(first, first + bytes, [](unsigned char byte) { return byte == 0; }), "no zeros");
            std::memset(buffer, 1, bytes);
          }
          for (void *buffer : buffers) CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK, "%s", adamw_last_error());
        }
        void *usable = nullptr;
        const auto acquires = [&] {
          return adamw_pager_acquire(pager, edited, 1, nullptr, &usable) == ADAMW_OK &&
                 *static_cast<char *>(usable) == static_cast<char>(77 + round) &&
                 adamw_pager_release(pager, usable, 0, nullptr) == ADAMW_OK;
        };
        if (c.told) {
          CHECK(acquires(), "%s", adamw_last_error());
        } else {
          const NoDescriptors none;
          CHECK(acquires(), "%s", adamw_last_error());
        }
      }
      for (int step = 3 + 2 * round; step < 5 + 2 * round; ++step) {
        change(plain, step, 5 * step);
        change(paged, step, 5 * step);
      }
      CHECK(plain.contents() == paged.paged_contents(), "%s: the parent after fork %d", c.name, round);
      if (c.child_lives) CHECK(child.go() == "", "%s: fork %d: %s", c.name, round, "the child");
    }
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: where the parent may not have so much private memory, the child has nothing, and the parent loses nothing.
void check_limited() {
  if (abridged) return;  // emulators know no such limit, and AddressSanitizer has terabytes of it
  adamw_pager *pager = new_pager(file_options());
  {
    Model plain(step_options(), shapes);
    PagedModel paged(pager, step_options(), shapes);
    plain.run(2);
    paged.run(1);
    paged.new_gradients(2);
    rlimit before{};
    getrlimit(RLIMIT_DATA, &before);
    rlimit none = before;
    none.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_DATA, &none);
    Child child([&] { return static_cast<char *>(paged.rows[0].exp_avg)[0] == 0 ? 1 : 2; });
    setrlimit(RLIMIT_DATA, &before);
    CHECK(paged.call(2) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(plain.contents() == paged.paged_contents(), "the parent");
    CHECK(child.go() == "signal " + std::to_string(SIGSEGV), "the child reads");
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: a child of a child has the bytes of its own fork; and all of them outlive the parent's buffers.
void check_generations() {
  adamw_pager *pager = new_pager(file_options());
  void *memory = nullptr;
  constexpr std::size_t bytes = 100000;
  CHECK(adamw_pager_alloc(pager, bytes, &memory, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  auto *const buffer = static_cast<unsigned char *>(memory);
  const auto all = [&](int value) {
    return std::all_of(buffer, buffer + bytes, [=](unsigned char byte) { return byte == value; });
  };
  std::memset(buffer, 1, bytes);
  Child child([&] {
    if (!all(1)) return 1;
    std::memset(buffer, 2, bytes / 2);
    Child grandchild([&] { return buffer[0] == 2 && buffer[bytes - 1] == 1 ? 0 : 1; });
    std::memset(buffer, 3, bytes);
    return grandchild.go() == "" && all(3) ? 0 : 2;
  });
  std::memset(buffer, 4, bytes);
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
        adamw_last_error());
  CHECK(child.go() == "", "the child");
}

// Law: HOST pagers of a child are as any other's.
void check_host() {
  const adamw_pager_options host = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager *pager = new_pager(host);
  {
    PagedModel paged(pager, step_options(), shapes);
    Model plain(step_options(), shapes);
    paged.run(1);
    plain.run(2);
    Child child([&] {
      paged.new_gradients(2);
      if (paged.call(2) != ADAMW_OK || paged.paged_contents() != plain.contents()) return 1;
      void *more = nullptr;
      return adamw_pager_alloc(pager, 10, &more, nullptr) == ADAMW_OK && adamw_pager_free(pager, more) == ADAMW_OK &&
                     stats_of(pager).buffers == static_cast<std::int64_t>(paged.buffers.size())
                 ? 0
                 : 2;
    });
    for (auto &buffer : paged.buffers) std::memset(buffer.first, 1, buffer.second->memory.size());
    CHECK(child.go() == "", "the child");
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: a child can be made at any time, whatever other threads do with pagers, and does not wait for them.
void check_busy(bool file) {
  adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  if (file) options = file_options();
  adamw_pager *pager = new_pager(options);
  void *mine = nullptr;
  CHECK(adamw_pager_alloc(pager, 5000, &mine, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  std::memset(mine, 7, 5000);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      while (!stop) {
        void *buffer = nullptr;
        if (adamw_pager_alloc(pager, t == 0 ? 5000 : 100, &buffer, nullptr) == ADAMW_OK)
          adamw_pager_free(pager, buffer);
      }
    });
  }
  threads.emplace_back([&] {
    for (int step = 1; !stop; ++step) {
      PagedModel model(pager, step_options(ADAMW_STATE_BLOCK8), {{1, 40000, 0}});
      model.run(2);
    }
  });
  for (int i = 0; i < (abridged ? 20 : 200); ++i) {
    const std::string end = in_child([&] {
      adamw_pager_statistics s;
      if (adamw_pager_stats(pager, &s, sizeof s) != (file ? ADAMW_ERROR_UNSUPPORTED : ADAMW_OK)) return 1;
      if (static_cast<char *>(mine)[4999] != 7) return 2;
      Model model(step_options(ADAMW_STATE_BLOCK8), {{1, 100000, 0}});
      model.run(1);
      return adamw_pager_free(pager, mine) == ADAMW_OK && failures() == 0 ? 0 : 3;
    });
    CHECK(end == "", "fork %d while others are busy: %s", i, end.c_str());
  }
  stop = true;
  for (std::thread &thread : threads) thread.join();
  CHECK(adamw_pager_free(pager, mine) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: a large step in the child, after one on several threads in the parent, steps; on one thread, if the parent's are
// a pool that the child does not have (std::thread's have ended).
void check_threads_of_a_child() {
  Model parent(step_options(ADAMW_STATE_BLOCK8), {{1, 1000000, 0}}), plain(parent.options, {{1, 1000000, 0}});
  parent.options.num_threads = plain.options.num_threads = 2;
  parent.run(1);
  plain.run(2);
  CHECK(in_child([&] {
          parent.new_gradients(2);
          if (parent.call(2) != ADAMW_OK || parent.contents() != plain.contents()) return 1;
          const bool pool = std::strstr(adamw_build_info(), "OpenMP") != nullptr;
          return !pool || adamw_get_num_threads() == 1 ? 0 : 2;
        }) == "",
        "the child");
}

}  // namespace

int main() {
  if (!can_fork) {
    std::printf("SKIPPED: forks: ThreadSanitizer's own threads do not survive one\n");
    return 77;
  }
  for (const Case &c :
       {Case{true, true, 0, "a child that lives"}, Case{false, true, 0, "a child that is gone"},
        Case{false, false, 0, "a child that is gone, nothing told"}, Case{true, true, 1 << 19, "some of it resident"}})
    check_both(c);
  check_limited();
  check_generations();
  check_host();
  check_busy(true);
  check_busy(false);
  check_threads_of_a_child();
  return finish();
}
