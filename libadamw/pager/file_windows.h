// Owns what windows of a pager with files hold: which stretches of which file, and where in the window each piece of a
// buffer lies. Moves no bytes.
#pragma once

#include <vector>

#include "arenas.h"
#include "pager.h"

namespace adamw {

// A stretch of a file, of one buffer or of several that lie side by side.
struct Extent {
  Arena *arena;
  std::int64_t offset, bytes, at;  // at: in the window
};

// What a window holds, or will.
struct Contents {
  std::vector<Piece> pieces;
  std::vector<Extent> extents;
  bool cached = false;

  void reserve(std::size_t count) {
    pieces.reserve(count);
    extents.reserve(count);
  }
};

struct Window {
  char *memory = nullptr;
  enum { idle, reading, ready, writing } state = idle;
  Contents now, next;
  int error = 0;  // of reading
};

// Windows that wait for their thread: each at most once.
class Queue {
 public:
  bool empty() const { return count_ == 0; }
  Window &front() const { return *windows_[first_]; }
  void push(Window &window) { windows_[(first_ + count_++) % page_windows] = &window; }
  void pop() {
    first_ = (first_ + 1) % page_windows;
    --count_;
  }
  void clear() { count_ = 0; }

 private:
  Window *windows_[page_windows] = {};
  int first_ = 0, count_ = 0;
};

inline Arena &arena_of(const Piece &piece) { return *static_cast<Arena *>(piece.buffer->own); }
inline std::int64_t offset_of(const Piece &piece) {
  return static_cast<const char *>(piece.home) - arena_of(piece).memory;
}

// Lays contents out: as in the file, neighbours side by side, so that few calls move many pieces, and pages begin at
// pages. What is beyond a buffer's end, up to that of what it takes, is nobody else's and moves with it.
class Layout {
 public:
  void reserve(std::size_t pieces) { items_.reserve(pieces); }
  // Sets the extents, and `usable` of the pieces, in the window at `memory`.
  void lay_out(Contents &contents, char *memory);

 private:
  struct Item {
    Arena *arena;
    std::int64_t begin, end;
    Piece *piece;
  };
  std::vector<Item> items_;
};

}  // namespace adamw
