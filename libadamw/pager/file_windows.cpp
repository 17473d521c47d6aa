// Owns where pieces lie in a window, see file_windows.h.
#include "file_windows.h"

#include <algorithm>
#include <functional>

namespace adamw {

void Layout::lay_out(Contents &contents, char *memory) {
  items_.clear();
  for (Piece &piece : contents.pieces) {
    const Buffer &buffer = *piece.buffer;
    const std::int64_t begin = offset_of(piece),
                       at = static_cast<char *>(piece.home) - static_cast<char *>(buffer.memory);
    const bool last = at + piece.bytes == buffer.bytes;
    items_.push_back(
        {&arena_of(piece), begin, begin + (last ? Arenas::rounded(buffer.bytes) - at : piece.bytes), &piece});
  }
  std::sort(items_.begin(), items_.end(), [](const Item &a, const Item &b) {
    return a.arena != b.arena ? std::less<const Arena *>()(a.arena, b.arena) : a.begin < b.begin;
  });
  std::int64_t at = 0;
  contents.extents.clear();
  for (const Item &item : items_) {
    const Extent *before = contents.extents.empty() ? nullptr : &contents.extents.back();
    if (before == nullptr || before->arena != item.arena || before->offset + before->bytes != item.begin) {
      at = round_up(at, page_bytes) + item.begin % page_bytes;
      contents.extents.push_back({item.arena, item.begin, 0, at});
    }
    item.piece->usable = memory + at;
    contents.extents.back().bytes += item.end - item.begin;
    at += item.end - item.begin;
  }
}

}  // namespace adamw
