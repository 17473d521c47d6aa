// Owns remembering what the tables of earlier calls write, so that the same table needs no sorting to be found free of
// overlaps once more. Knows no rows, and looks at no memory but its own.
#pragma once

#include <vector>

#include "check.h"

namespace adamw {

// The stretches that a call wrote after check_overlap() had found them right. A call that writes the very same ones has
// only what it reads left to check.
class OverlapCache {
 public:
  class Comparison;

  // Valid until take().
  Comparison compare();

  // Remembers these instead, which are right: as the call names them, and by_address(). Without memory for that, it is
  // as it was.
  void take(const std::vector<Interval> &written, const std::vector<Interval> &sorted);

  size_t bytes() const {
    return (in_order_.capacity() + sorted_.capacity()) * sizeof(Stretch) + before_.capacity() * sizeof(size_t);
  }

  // What tells it from others, as a first guess.
  const void *param = nullptr;
  int64_t count = 0;

 private:
  struct Stretch {
    std::uintptr_t begin, end;
  };
  std::vector<Stretch> in_order_{{0, 0}};  // as the call names them; then one that is like none
  // By address, between two that are at the ends of memory.
  std::vector<Stretch> sorted_{{0, 0}, {UINTPTR_MAX, UINTPTR_MAX}};
  size_t find(std::uintptr_t address) const;  // the last of sorted_ that begins there or before

  std::vector<size_t> before_;  // for each stretch that was read, which of sorted_ comes before it
};

// A call, stretch by stretch, beside a table.
class OverlapCache::Comparison {
 public:
  explicit Comparison(OverlapCache &table)
      : table_(table), next_(table.in_order_.data()), last_(next_ + table.in_order_.size() - 1) {}

  void written(std::uintptr_t begin, std::uintptr_t end) {
    const bool same = next_->begin == begin && next_->end == end;
    next_ += same ? 1 : 0;
    valid_ = valid_ && same;
  }
  // A gradient as a rule lies between the same two as in the last call, though seldom at the same address.
  void read(std::uintptr_t begin, std::uintptr_t end) {
    if (reads_ == table_.before_.size()) table_.before_.push_back(0);
    size_t &before = table_.before_[reads_++];
    const std::vector<Stretch> &sorted = table_.sorted_;
    if (before + 1 < sorted.size() && sorted[before].end <= begin && end <= sorted[before + 1].begin) return;
    before = table_.find(begin);
    valid_ = valid_ && sorted[before].end <= begin && end <= sorted[before + 1].begin;
  }
  bool valid_so_far() const { return valid_; }
  bool valid() const { return valid_ && next_ == last_; }

 private:
  OverlapCache &table_;
  const Stretch *next_, *const last_;
  size_t reads_ = 0;
  bool valid_ = true;
};

inline OverlapCache::Comparison OverlapCache::compare() { return Comparison(*this); }

// A few tables alternate: an optimizer has one for each group, dtype and state format.
class OverlapCaches {
 public:
  // Where such a table is remembered, whether or not it has been seen; null for one so short that it is not worth it.
  OverlapCache *find(const void *param, int64_t count);
  // `table`, which find() gave, has taken what it remembers now: others go, the oldest first, if all are too large.
  void make_room(const OverlapCache *table);

 private:
  static constexpr size_t most = 32;
  OverlapCache tables_[most];
  size_t oldest_ = 0;
};

// What check_rows() keeps for the calls after it.
struct CheckMemory {
  std::vector<Interval> written, read;
  OverlapCaches tables;
};

}  // namespace adamw
