// Owns the check that no two buffers of a call overlap where one of them is written. Knows nothing of what they hold.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "status.h"
#include "validate.h"

namespace adamw {
namespace {

struct Key {
  std::uintptr_t address;
  size_t index;
};

// Sorts by address, 11 bits at a time: gradients come at other addresses each step, and sorting thousands of them by
// comparisons takes as long as stepping them.
void radix_sort(std::vector<Key> &keys, std::vector<Key> &other) {
  constexpr unsigned bits = 11;
  constexpr size_t digits = size_t{1} << bits;
  std::uintptr_t lowest = keys[0].address, highest = keys[0].address;
  for (const Key &k : keys) {
    lowest = std::min(lowest, k.address);
    highest = std::max(highest, k.address);
  }
  other.resize(keys.size());
  for (unsigned shift = 0; shift < 64 && (highest - lowest) >> shift != 0; shift += bits) {
    const auto digit = [=](const Key &k) { return static_cast<size_t>((k.address - lowest) >> shift) % digits; };
    size_t begin[digits + 1] = {};
    for (const Key &k : keys) ++begin[digit(k) + 1];
    for (size_t d = 1; d < digits; ++d) begin[d] += begin[d - 1];
    for (const Key &k : keys) other[begin[digit(k)]++] = k;
    keys.swap(other);
  }
}

// Sorts by address. An optimizer calls with the same buffers in the same order step after step, so the order found last
// time is tried first: then this is one pass instead of a sort. A wrong guess costs time, never correctness.
class Sorter {
 public:
  const std::vector<Interval> &sort(const Interval *intervals, size_t count) {
    sorted_.resize(count);
    if (keys_.size() == count && ordered(intervals)) return sorted_;
    keys_.resize(count);
    for (size_t i = 0; i < count; ++i) keys_[i] = {intervals[i].begin, i};
    if (count < few) {
      std::sort(keys_.begin(), keys_.end(), [](const Key &a, const Key &b) { return a.address < b.address; });
    } else {
      radix_sort(keys_, other_);
    }
    ordered(intervals);
    return sorted_;
  }

 private:
  static constexpr size_t few = 256;

  // Takes the intervals in the order of the keys, and says whether that sorts them.
  bool ordered(const Interval *intervals) {
    std::uintptr_t last = 0;
    for (size_t i = 0; i < keys_.size(); ++i) {
      sorted_[i] = intervals[keys_[i].index];
      if (sorted_[i].begin < last) return false;
      last = sorted_[i].begin;
    }
    return true;
  }

  std::vector<Key> keys_, other_;  // keys_ of the last call: only the order is still right
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
