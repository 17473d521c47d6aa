// Owns stretches of large allocations, see slabs.h.
#include "slabs.h"

#include <algorithm>
#include <new>

namespace adamw {
namespace gpu {
namespace {

// The first slab is small and each is as large as all before, up to the largest: a pager of one tensor takes little,
// and one of a large model few.
constexpr std::int64_t smallest_slab = std::int64_t{2} << 20, largest_slab = std::int64_t{32} << 20;

}  // namespace

void *Slabs::take_from(Slab &slab, std::int64_t bytes) {
  const std::int64_t offset = slab.gaps.find(bytes);
  if (offset < 0) return nullptr;
  slab.gaps.take(offset, bytes);
  slab.taken += bytes;
  return slab.memory + offset;
}

adamw_status Slabs::take(const char *function, std::int64_t bytes, Slab **slab, void **memory) {
  const std::int64_t whole = round_up(bytes, slab_unit);
  for (const auto &known : slabs_) {
    if ((*memory = take_from(*known, whole)) == nullptr) continue;
    *slab = known.get();
    return ADAMW_OK;
  }
  const std::int64_t usual = std::clamp(held_, smallest_slab, largest_slab);
  auto fresh = std::make_unique<Slab>();
  fresh->bytes = whole > usual / 2 ? round_up(whole, page_bytes) : usual;
  fresh->gaps.add(0, fresh->bytes);
  slabs_.reserve(slabs_.size() + 1);
  void *begin = nullptr;
  if (adamw_status s = get_(function, fresh->bytes, &begin)) return s;
  fresh->memory = static_cast<char *>(begin);
  held_ += fresh->bytes;
  *slab = fresh.get();
  slabs_.push_back(std::move(fresh));
  *memory = take_from(**slab, whole);
  return ADAMW_OK;
}

void Slabs::give_back(Slab *slab, void *memory, std::int64_t bytes) {
  const std::int64_t whole = round_up(bytes, slab_unit);
  slab->taken -= whole;
  if (slab->taken == 0) {
    put_(slab->memory);
    held_ -= slab->bytes;
    slabs_.erase(std::find_if(slabs_.begin(), slabs_.end(), [&](const auto &known) { return known.get() == slab; }));
    return;
  }
  try {
    slab->gaps.add(static_cast<char *>(memory) - slab->memory, whole);
  } catch (const std::bad_alloc &) {  // it is not given out again, and goes with its slab
  }
}

void Slabs::clear() {
  for (const auto &slab : slabs_) put_(slab->memory);
  slabs_.clear();
  held_ = 0;
}

void lay_out(std::vector<Piece> &pieces, std::int64_t unit, bool outwards, char *window, std::vector<Extent> *extents) {
  struct Item {
    const Slab *slab;
    std::int64_t begin, end;
    Piece *piece;
  };
  std::vector<Item> items;
  items.reserve(pieces.size());
  for (Piece &piece : pieces) {
    const auto *slab = static_cast<const Slab *>(piece.buffer->own);
    const auto *home = static_cast<const char *>(piece.home);
    const std::int64_t begin = home - slab->memory, end = begin + piece.bytes;
    const bool last = home + piece.bytes == static_cast<const char *>(piece.buffer->memory) + piece.buffer->bytes;
    items.push_back({slab, outwards ? begin / unit * unit : begin,
                     outwards || last ? std::min(round_up(end, unit), slab->bytes) : end, &piece});
  }
  std::sort(items.begin(), items.end(), [](const Item &a, const Item &b) {
    return a.slab != b.slab ? std::less<const Slab *>()(a.slab, b.slab) : a.begin < b.begin;
  });
  extents->clear();
  std::int64_t at = 0;
  for (const Item &item : items) {
    const Extent *before = extents->empty() ? nullptr : &extents->back();
    const std::int64_t end = before == nullptr ? 0 : before->begin + before->bytes;
    const bool follows = before != nullptr && before->slab == item.slab &&
                         (outwards ? item.begin <= end : item.begin == end && at % slab_unit == 0);
    if (!follows) {
      at = round_up(at, slab_unit);
      extents->push_back({item.slab, item.begin, 0, at});
    }
    Extent &extent = extents->back();
    if (window != nullptr) item.piece->usable = window + at;
    const std::int64_t longer = std::max<std::int64_t>(0, item.end - extent.begin - extent.bytes);
    extent.bytes += longer;
    at += longer;
  }
}

}  // namespace gpu
}  // namespace adamw
