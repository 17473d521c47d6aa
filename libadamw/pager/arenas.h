// Owns the memory of buffers in files: a few large mappings, each of a private file of its own, given out in stretches;
// and what becomes of them in a fork. Knows no windows and no tensors.
//
// In a fork. A mapping that is shared with a file shows a child what its parent writes later. So before a fork each
// becomes a private one: what either process writes in it from then on is its own, and the file stays as it was. The
// child lives with that. The parent's steps write to files. So at its next call that may, thaw() decides: if no child
// has the old contents any more, the file can be written again; else there is another one, and the old one goes with
// the last child. Pages become shared with it one after the other, when a call uses the state in them, which nobody
// else may write meanwhile: what a program writes in others is not lost.
#pragma once

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "file.h"
#include "free_list.h"
#include "pager.h"

namespace adamw {

// What a page of the mapping is.
enum class Page : unsigned char {
  shared,     // the file's
  kept,       // memory of this process, which has its contents, whatever the file has
  unchanged,  // private since a fork; the file has the same, unless this process has written it
  elsewhere   // of the file before this one, since a fork; this one has nothing of it yet
};

struct Arena {
  std::unique_ptr<PrivateFile> file;
  char *memory = nullptr;
  std::int64_t bytes = 0;     // of the mapping; of the file there is what has been reserved
  std::int64_t reserved = 0;  // from the beginning, for good
  std::int64_t taken = 0;
  Gaps gaps;                          // whole pages
  Gaps stale;                         // of these: what may not be zeros
  Page *pages = nullptr;              // what each is
  std::atomic<bool> any_kept{false};  // may be
  bool any_private = false;           // may be, since a fork
  bool frozen = false;                // since a fork nothing may be written to the file

  ~Arena();
  Page &page(std::int64_t offset) const { return pages[offset / page_bytes]; }
  void mark(std::int64_t offset, std::int64_t size, Page as) const {
    std::fill(&page(offset), &page(offset) + size / page_bytes, as);
  }
  // Maps pages to the file anew, whatever they were, and marks them: shared with it, or `unchanged`, so that only this
  // process sees what is written there. 0, or an errno.
  int map(std::int64_t offset, std::int64_t size, Page as) const;
  bool is_kept(std::int64_t offset) const { return any_kept && page(offset) == Page::kept; }
  // Calls body(page, offset, bytes) for stretches of equal pages; stops where it returns an errno, which is the result.
  template <class Body>
  int over_pages(std::int64_t offset, std::int64_t size, const Body &body) const {
    for (std::int64_t at = offset, end = offset + size; at < end;) {
      std::int64_t next = at + page_bytes;
      while (next < end && page(next) == page(at)) next += page_bytes;
      if (const int error = body(page(at), at, next - at)) return error;
      at = next;
    }
    return 0;
  }
  // Calls body(offset, bytes) for each stretch that is taken; stops where it returns an errno, which is the result.
  template <class Body>
  int over_taken(const Body &body) const {
    int error = 0;
    std::int64_t at = 0;
    const auto until = [&](std::int64_t end) {
      if (error == 0 && end > at) error = body(at, end - at);
    };
    gaps.for_each([&](std::int64_t offset, std::int64_t size) {
      until(offset);
      at = offset + size;
    });
    until(bytes);
    return error;
  }
};

class OwnPages;  // snapshot.cpp

class Arenas {
 public:
  Arenas();
  ~Arenas();
  Arenas(const Arenas &) = delete;
  Arenas &operator=(const Arenas &) = delete;

  // Files lie in `directory`; the first takes `reserved` bytes of the disk at once.
  adamw_status open(const char *function, const std::string &directory, std::int64_t reserved);

  // What a buffer of `bytes` takes: whole pages, or multiples of 64 bytes of a page that it shares.
  static std::int64_t rounded(std::int64_t bytes);
  adamw_status take(const char *function, std::int64_t bytes, void **memory, Arena **arena);
  void give_back(Arena *arena, void *memory, std::int64_t bytes);

  // Puts memory of this process in the place of pages of the mapping, because the file cannot be written: [offset,
  // offset + bytes) of it, whose contents the caller is about to write. What else is in the first and the last page is
  // carried over as far as it can be read. 0, or an errno.
  static int keep(Arena &arena, std::int64_t offset, std::int64_t bytes);

  // ---- fork ----
  void before_fork();
  void after_fork(bool in_child);
  // Before anything else writes to a file. (Buffers may be taken and given back before: of what a child can still read
  // that changes nothing.)
  adamw_status thaw(const char *function);
  // Then, of what a call uses: makes its pages shared with the file; those that it has not alone are kept. 0, or an
  // errno.
  int share(Arena &arena, std::int64_t offset, std::int64_t bytes);

  const std::string &directory() const { return directory_; }

 private:
  struct Tray {  // pages that small buffers share
    Arena *arena;
    std::int64_t taken;
  };

  adamw_status make_arena(const char *function, std::int64_t bytes, Arena **arena);
  void drop_if_empty(const Arena *arena);
  static bool empty(Arena &arena, std::int64_t offset, std::int64_t bytes);
  static int claim(Arena &arena, std::int64_t offset, std::int64_t bytes);
  static int make_zeros(Arena &arena, std::int64_t offset, std::int64_t bytes);
  adamw_status take_pages(const char *function, std::int64_t bytes, void **memory, Arena **arena);
  void give_pages_back(Arena *arena, void *memory, std::int64_t bytes);
  adamw_status take_small(const char *function, std::int64_t bytes, void **memory, Arena **arena);
  void give_small_back(void *memory, std::int64_t bytes);
  adamw_status no_room(const char *function, std::int64_t bytes, int error) const;
  adamw_status thaw_one(const char *function, Arena &arena, bool child_lives);
  void forget_ended_children();
  void drop_claims();

  std::string directory_;
  std::unique_ptr<PrivateFile> spare_;  // made by open(), for the first arena
  std::int64_t reserved_ = 0;
  std::vector<std::unique_ptr<Arena>> arenas_;
  std::int64_t mapped_ = 0;  // bytes of all
  Gaps small_;               // by address
  std::map<std::uintptr_t, Tray> trays_;

  // A child has the writing end of a pipe, which closes when the child gives its buffers back, ends, or becomes another
  // program.
  std::vector<int> claims_;       // reading ends, of children
  std::vector<int> own_claims_;   // writing ends, in a child
  int made_claim_[2] = {-1, -1};  // while a fork is under way
  bool unknown_child_ = false;    // there was no pipe to be had
  bool in_child_ = false;
  std::unique_ptr<OwnPages> own_pages_;  // since thaw(), if the system tells
};

}  // namespace adamw
