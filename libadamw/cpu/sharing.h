// Owns how blocks are shared out over threads. Knows nothing of what is done with them.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "../numerics/layout.h"
#include "parallel.h"

namespace adamw {

// Below this many elements a second thread costs more than it saves.
constexpr std::int64_t elements_per_thread = 16384;

// Calls body(row, first, last) so that every item of every row is covered once, on several threads. Items are taken in
// runs from one counter, so that one huge tensor and thousands of tiny ones both keep every thread busy to the end.
template <class Body>
class SharedLoop {
 public:
  // offsets[row] is the number of items before a row; it has rows + 1 entries.
  SharedLoop(const std::vector<std::int64_t> &offsets, std::int64_t run, Body &body)
      : offsets_(offsets), run_(std::max<std::int64_t>(run, 1)), body_(body) {}

  void go(int threads) { run_on_threads(threads, work, this); }

 private:
  static void work(void *self) { static_cast<SharedLoop *>(self)->work(); }

  void work() {
    const std::int64_t total = offsets_.back();
    for (std::int64_t at; (at = next_.fetch_add(run_, std::memory_order_relaxed)) < total;) {
      const std::int64_t end = std::min(at + run_, total);
      auto row = std::upper_bound(offsets_.begin(), offsets_.end(), at) - offsets_.begin() - 1;
      for (; at < end; ++row) {
        const std::int64_t last = std::min(end, offsets_[static_cast<std::size_t>(row) + 1]);
        const std::int64_t before = offsets_[static_cast<std::size_t>(row)];
        if (last > at) body_(row, at - before, last - before);
        at = last;
      }
    }
  }

  const std::vector<std::int64_t> &offsets_;
  const std::int64_t run_;
  Body &body_;
  std::atomic<std::int64_t> next_{0};
};

inline int useful_threads(int threads, std::int64_t blocks) {
  // All or one: OpenMP pools that change their size from call to call start threads anew.
  return blocks * block_size >= 2 * elements_per_thread ? threads : 1;
}

template <class Body>
void over_blocks(const std::vector<std::int64_t> &offsets, int threads, Body body) {
  const std::int64_t blocks = offsets.back();
  threads = useful_threads(threads, blocks);
  // Runs of at most 64 K elements, and enough of them that the last ones end together.
  SharedLoop<Body>(offsets, std::min<std::int64_t>(blocks / (std::int64_t{32} * threads), 256), body).go(threads);
}

}  // namespace adamw
