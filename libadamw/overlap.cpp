// Owns the check that no two buffers of a call overlap where one of them is written. Knows nothing of what they hold.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "status.h"
#include "validate.h"

namespace adamw {
namespace {

bool by_address(const Interval &a, const Interval &b) { return a.begin < b.begin; }

// Sorts by address. An optimizer calls with the same buffers in the same order step after step, so the order found last
// time is tried first: then this is one pass instead of a sort. A wrong guess costs time, never correctness.
class Sorter {
 public:
  const std::vector<Interval> &sort(const Interval *intervals, size_t count) {
    sorted_.resize(count);
    if (order_.size() == count) {
      for (size_t i = 0; i < count; ++i) sorted_[i] = intervals[order_[i]];
      if (std::is_sorted(sorted_.begin(), sorted_.end(), by_address)) return sorted_;
    }
    order_.resize(count);
    for (size_t i = 0; i < count; ++i) order_[i] = i;
    std::sort(order_.begin(), order_.end(), [=](size_t a, size_t b) { return by_address(intervals[a], intervals[b]); });
    for (size_t i = 0; i < count; ++i) sorted_[i] = intervals[order_[i]];
    return sorted_;
  }

 private:
  std::vector<size_t> order_;
  std::vector<Interval> sorted_;
};

// A few tables alternate in one optimizer (8-bit and 32-bit tensors, groups): each size has its own memory of the
// order.
struct Sorters {
  static constexpr size_t count = 4;
  Sorter sorters[count];
  Sorter &of(size_t size) { return sorters[size % count]; }
};

struct Name {  // "row 3: exp_avg", or the field alone where it is no row's
  char text[64];
  explicit Name(const Interval &i) {
    if (i.row < 0) {
      std::snprintf(text, sizeof text, "%s", i.field);
    } else {
      std::snprintf(text, sizeof text, "row %" PRId64 ": %s", i.row, i.field);
    }
  }
};

adamw_status overlap(const char *function, const Interval &a, const Interval &b) {
  return fail(
      ADAMW_ERROR_INVALID_ARGUMENT,
      "%s: %s (%zu bytes at %p) overlaps %s (%zu bytes at %p): every buffer that is written needs memory of its own",
      function, Name(a).text, static_cast<size_t>(a.end - a.begin), reinterpret_cast<void *>(a.begin), Name(b).text,
      static_cast<size_t>(b.end - b.begin), reinterpret_cast<void *>(b.begin));
}

}  // namespace

adamw_status check_overlap(const char *function, const Interval *written, size_t written_count, const Interval *read,
                           size_t read_count) {
  static thread_local Sorters written_sorters, read_sorters;
  const std::vector<Interval> &w = written_sorters.of(written_count).sort(written, written_count);
  for (size_t i = 1; i < w.size(); ++i) {
    if (w[i].begin < w[i - 1].end) return overlap(function, w[i], w[i - 1]);
  }
  const std::vector<Interval> &r = read_sorters.of(read_count).sort(read, read_count);
  size_t at = 0;
  for (const Interval &interval : r) {
    while (at < w.size() && w[at].end <= interval.begin) ++at;
    if (at < w.size() && w[at].begin < interval.end) return overlap(function, interval, w[at]);
  }
  return ADAMW_OK;
}

}  // namespace adamw
