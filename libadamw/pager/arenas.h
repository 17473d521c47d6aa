// Owns the memory of buffers in files: a few large mappings, each of a private file of its own, given out in stretches;
// and what becomes of them in a fork. Knows no windows and no tensors.
//
// In a fork. A mapping that is shared with a file shows a child what its parent writes later. So before a fork each
// becomes a private one: what either process writes in it from then on is its own, and the file stays as it was. The
// child lives with that. The parent's file must be written again, by steps, so at its next call settle() makes the
// mapping shared once more: with the same file, after what was written meanwhile has gone there, if no child has the
// old contents any more; else with a new file, to which all is copied, and the old one goes with the last child.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "file.h"
#include "gaps.h"

namespace adamw {

struct Arena {
  std::unique_ptr<PrivateFile> file;
  char *memory = nullptr;
  std::int64_t bytes = 0;     // of the mapping; of the file there is what has been reserved
  std::int64_t reserved = 0;  // from the beginning, for good
  std::int64_t taken = 0;
  Gaps gaps;                      // whole pages
  Gaps stale;                     // of these: what may not be zeros
  unsigned char *kept = nullptr;  // a byte for each page: 1 where memory of this process has its place in the mapping
  std::atomic<bool> any_kept{false};
  bool is_private = false;  // since a fork

  ~Arena();
  bool is_kept(std::int64_t offset) const;
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

class Arenas {
 public:
  Arenas() = default;
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
  // What was a snapshot for a child becomes the parent's again. Before anything writes to a file. (Buffers may be taken
  // and given back before: of what a child can still read that changes nothing.)
  adamw_status settle(const char *function);

  const std::string &directory() const { return directory_; }

 private:
  struct Tray {  // pages that small buffers share
    Arena *arena;
    std::int64_t taken;
  };

  adamw_status make_arena(const char *function, std::int64_t bytes, Arena **arena);
  void drop_if_empty(const Arena *arena);
  static int restore(Arena &arena, std::int64_t offset, std::int64_t bytes);
  static bool empty(Arena &arena, std::int64_t offset, std::int64_t bytes);
  static int make_zeros(Arena &arena, std::int64_t offset, std::int64_t bytes);
  adamw_status take_pages(const char *function, std::int64_t bytes, void **memory, Arena **arena);
  void give_pages_back(Arena *arena, void *memory, std::int64_t bytes);
  adamw_status take_small(const char *function, std::int64_t bytes, void **memory, Arena **arena);
  void give_small_back(void *memory, std::int64_t bytes);
  adamw_status no_room(const char *function, std::int64_t bytes, int error) const;
  bool child_lives() const;
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
};

}  // namespace adamw
