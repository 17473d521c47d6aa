// Owns which tables a thread remembers.
#include "overlap_cache.h"

#include <algorithm>

namespace adamw {
namespace {

// Sorting less than this takes no longer than remembering it. Optimizers that step in the backward pass call with one
// row, for each parameter: there would be no end of tables.
constexpr int64_t min_rows = 8;

// Of all tables together, unless one is larger alone.
constexpr size_t max_bytes_kept = size_t{4} << 20;

}  // namespace

void OverlapCache::take(const std::vector<Interval> &written, const std::vector<Interval> &sorted) {
  std::vector<Stretch> in_order, by_address;
  in_order.reserve(written.size() + 1);
  for (const Interval &i : written) in_order.push_back({i.begin, i.end});
  in_order.push_back(in_order_.back());
  by_address.reserve(sorted.size() + 2);
  by_address.push_back(sorted_.front());
  for (const Interval &i : sorted) by_address.push_back({i.begin, i.end});
  by_address.push_back(sorted_.back());
  in_order_.swap(in_order);
  sorted_.swap(by_address);
}

size_t OverlapCache::find(std::uintptr_t address) const {
  const auto after = std::upper_bound(sorted_.begin() + 1, sorted_.end() - 1, address,
                                      [](std::uintptr_t a, const Stretch &s) { return a < s.begin; });
  return static_cast<size_t>(after - sorted_.begin()) - 1;
}

OverlapCache *OverlapCaches::find(const void *param, int64_t count) {
  if (count < min_rows) return nullptr;
  for (OverlapCache &table : tables_) {
    if (table.param == param && table.count == count) return &table;
  }
  OverlapCache &table = tables_[oldest_];
  oldest_ = (oldest_ + 1) % most;
  table.param = param;
  table.count = count;
  return &table;
}

void OverlapCaches::make_room(const OverlapCache *newest) {
  size_t bytes = 0;
  for (const OverlapCache &table : tables_) bytes += table.bytes();
  for (size_t i = 0; i < most && bytes > max_bytes_kept; ++i) {
    OverlapCache &table = tables_[(oldest_ + i) % most];
    if (&table == newest) continue;
    bytes -= table.bytes();
    table = OverlapCache{};
  }
}

}  // namespace adamw
