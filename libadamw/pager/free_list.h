// Owns the free stretches of something that is given out piece by piece: best fit, neighbours become one. Knows not of
// what.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <utility>

namespace adamw {

// Whatever it does takes time that grows with the logarithm of the number of gaps.
class Gaps {
 public:
  struct Gap {
    std::int64_t offset, bytes;
  };

  // The offset of the smallest gap of at least `bytes`, the first of those of one size; -1: there is none.
  std::int64_t find(std::int64_t bytes) const {
    const auto gap = by_size_.lower_bound({bytes, 0});
    return gap == by_size_.end() ? -1 : gap->second;
  }

  // Takes `bytes` from the beginning of the gap at `offset`. Needs no memory.
  void take(std::int64_t offset, std::int64_t bytes) {
    const auto gap = gaps_.find(offset);
    const std::int64_t rest = gap->second - bytes;
    auto sized = by_size_.extract({gap->second, offset});
    auto placed = gaps_.extract(gap);
    if (rest == 0) return;
    placed.key() = offset + bytes;
    placed.mapped() = rest;
    sized.value() = {rest, offset + bytes};
    gaps_.insert(std::move(placed));
    by_size_.insert(std::move(sized));
  }

  // Gives a stretch back. Returns the gap that it is part of now. If it throws, nothing has changed.
  Gap add(std::int64_t offset, std::int64_t bytes) {
    const auto after = gaps_.lower_bound(offset);
    const bool meets_after = after != gaps_.end() && after->first == offset + bytes;
    const bool meets_before = after != gaps_.begin() && std::prev(after)->first + std::prev(after)->second == offset;
    const std::int64_t begin = meets_before ? std::prev(after)->first : offset;
    const std::int64_t end = meets_after ? after->first + after->second : offset + bytes;
    const auto sized = by_size_.insert({end - begin, begin}).first;
    try {
      gaps_.insert({begin, end - begin});  // of no effect where there is one that begins there
    } catch (...) {
      by_size_.erase(sized);
      throw;
    }
    if (meets_after) {
      by_size_.erase({after->second, after->first});
      gaps_.erase(after);
    }
    if (meets_before) {
      auto before = gaps_.find(begin);
      by_size_.erase({before->second, begin});
      before->second = end - begin;
    }
    return {begin, end - begin};
  }

  // Takes out what of [offset, offset + bytes) is free, and calls body(offset, bytes) for each stretch of it.
  template <class Body>
  void cut(std::int64_t offset, std::int64_t bytes, const Body &body) {
    const std::int64_t end = offset + bytes;
    auto gap = gaps_.upper_bound(offset);
    if (gap != gaps_.begin() && std::prev(gap)->first + std::prev(gap)->second > offset) --gap;
    while (gap != gaps_.end() && gap->first < end) {
      const std::int64_t begin = gap->first, size = gap->second;
      const std::int64_t from = std::max(begin, offset), to = std::min(begin + size, end);
      if (begin + size > to) add_apart(to, begin + size - to);
      by_size_.erase({size, begin});
      if (from > begin) {
        by_size_.insert({from - begin, begin});
        gap->second = from - begin;
        ++gap;
      } else {
        gap = gaps_.erase(gap);
      }
      body(from, to - from);
    }
  }

  // Calls body(offset, bytes) for each gap, in order.
  template <class Body>
  void for_each(const Body &body) const {
    for (const auto &[offset, bytes] : gaps_) body(offset, bytes);
  }

 private:
  void add_apart(std::int64_t offset, std::int64_t bytes) {
    by_size_.insert({bytes, offset});
    gaps_.insert({offset, bytes});
  }

  std::map<std::int64_t, std::int64_t> gaps_;                // offset to bytes
  std::set<std::pair<std::int64_t, std::int64_t>> by_size_;  // bytes and offset
};

}  // namespace adamw
