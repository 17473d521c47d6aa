// Owns the check that no two buffers of a call overlap where one of them is written. Knows nothing of what they hold.
#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <vector>

#include "../status.h"
#include "check.h"

namespace adamw {
namespace {

struct Key {
  std::uintptr_t address;
  size_t index;
};

// Sorts by address, 11 bits at a time: a table may be another one at each step, and sorting thousands of buffers by
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

struct Name {  // "tensor 3: exp_avg", or only the field if it belongs to no tensor
  char text[64];
  explicit Name(const Interval &i) {
    if (i.row < 0) {
      std::snprintf(text, sizeof text, "%s", i.field);
    } else {
      std::snprintf(text, sizeof text, "tensor %" PRId64 ": %s", i.row, i.field);
    }
  }
};

adamw_status overlap(const char *function, const Interval &a, const Interval &b) {
  return fail(ADAMW_ERROR_INVALID_ARGUMENT,
              "%s: %s (%zu bytes at %p) overlaps %s (%zu bytes at %p): a buffer that is written must not share memory",
              function, Name(a).text, static_cast<size_t>(a.end - a.begin), reinterpret_cast<void *>(a.begin),
              Name(b).text, static_cast<size_t>(b.end - b.begin), reinterpret_cast<void *>(b.begin));
}

}  // namespace

std::vector<Interval> by_address(const Interval *intervals, size_t count) {
  constexpr size_t few = 256;
  std::vector<Key> keys(count), other;
  for (size_t i = 0; i < count; ++i) keys[i] = {intervals[i].begin, i};
  if (count < few) {
    std::sort(keys.begin(), keys.end(), [](const Key &a, const Key &b) { return a.address < b.address; });
  } else {
    radix_sort(keys, other);
  }
  std::vector<Interval> sorted;
  sorted.reserve(count);
  for (const Key &k : keys) sorted.push_back(intervals[k.index]);
  return sorted;
}

adamw_status check_overlap(const char *function, const std::vector<Interval> &written,
                           const std::vector<Interval> &read) {
  for (size_t i = 1; i < written.size(); ++i) {
    if (written[i].begin < written[i - 1].end) return overlap(function, written[i], written[i - 1]);
  }
  size_t at = 0;
  for (const Interval &interval : read) {
    while (at < written.size() && written[at].end <= interval.begin) ++at;
    if (at < written.size() && written[at].begin < interval.end) return overlap(function, interval, written[at]);
  }
  return ADAMW_OK;
}

}  // namespace adamw
