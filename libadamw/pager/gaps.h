// Owns the free stretches of something that is given out piece by piece: first fit, neighbours become one. Knows not of
// what.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace adamw {

class Gaps {
 public:
  struct Gap {
    std::int64_t offset, bytes;
  };

  // The offset of the first gap of at least `bytes`; -1: there is none.
  std::int64_t find(std::int64_t bytes) const {
    for (const auto &[offset, room] : gaps_)
      if (room >= bytes) return offset;
    return -1;
  }
  // Takes `bytes` from the beginning of the gap at `offset`. If it throws, nothing has changed.
  void take(std::int64_t offset, std::int64_t bytes) {
    const auto gap = gaps_.find(offset);
    if (gap->second > bytes) gaps_.emplace(offset + bytes, gap->second - bytes);
    gaps_.erase(gap);
  }
  // Gives a stretch back. Returns the gap that it is part of now.
  Gap add(std::int64_t offset, std::int64_t bytes) {
    auto at = gaps_.emplace(offset, bytes).first;
    const auto after = std::next(at);
    if (after != gaps_.end() && at->first + at->second == after->first) {
      at->second += after->second;
      gaps_.erase(after);
    }
    if (at != gaps_.begin()) {
      const auto before = std::prev(at);
      if (before->first + before->second == at->first) {
        before->second += at->second;
        gaps_.erase(at);
        at = before;
      }
    }
    return {at->first, at->second};
  }
  // Shortens the gap at `offset`; to nothing: it is gone.
  void shorten(std::int64_t offset, std::int64_t bytes) {
    if (bytes == 0) {
      gaps_.erase(offset);
    } else {
      gaps_[offset] = bytes;
    }
  }

 private:
  std::map<std::int64_t, std::int64_t> gaps_;  // offset to bytes
};

}  // namespace adamw
