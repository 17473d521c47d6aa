// Owns what becomes of file mappings in a fork, see arenas.h.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>

#include "../status.h"
#include "arenas.h"
#include "pager.h"

namespace adamw {
namespace {

// Maps what is not kept of an arena anew, with other flags, onto the same addresses. 0, or an errno.
int map_again(const Arena &arena, const PrivateFile &file, int protection, int flags) {
  for (std::int64_t at = 0; at < arena.bytes;) {
    std::int64_t end = at;
    if (arena.any_kept) {
      while (end < arena.bytes && !arena.is_kept(end)) end += page_bytes;
    } else {
      end = arena.bytes;
    }
    if (end > at && mmap(arena.memory + at, static_cast<std::size_t>(end - at), protection,
                         flags | MAP_NORESERVE | MAP_FIXED, file.descriptor(), at) == MAP_FAILED)
      return errno;
    for (at = end; at < arena.bytes && arena.is_kept(at);) at += page_bytes;
  }
  return 0;
}
int map_shared(const Arena &arena, const PrivateFile &file) {
  return map_again(arena, file, PROT_READ | PROT_WRITE, MAP_SHARED);
}

// ---- which pages of a private mapping this process has written ----

class OwnPages {
 public:
  OwnPages() : pages_(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {}
  ~OwnPages() {
    if (pages_ >= 0) close(pages_);
  }
  OwnPages(const OwnPages &) = delete;
  OwnPages &operator=(const OwnPages &) = delete;

  // Whether the system tells the truth: of a page that was read, and then written.
  bool can_tell(const PrivateFile &file) const {
    if (file.size() == 0) return false;
    void *page =
        mmap(nullptr, static_cast<std::size_t>(page_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE, file.descriptor(), 0);
    if (pages_ < 0 || page == MAP_FAILED) return false;
    volatile char &byte = *static_cast<char *>(page);
    const char seen = byte;
    const bool before = is_own(page);
    byte = seen;
    const bool after = is_own(page);
    munmap(page, static_cast<std::size_t>(page_bytes));
    return !before && after;
  }

  // Calls body(offset, bytes) for the stretches of [memory, memory + bytes) that it has written; stops at an error.
  template <class Body>
  int over(const char *memory, std::int64_t bytes, const Body &body) const {
    std::uint64_t entries[512];
    std::int64_t begin = -1;
    for (std::int64_t at = 0; at < bytes;) {
      const std::int64_t count = std::min<std::int64_t>(512, (bytes - at) / page_bytes);
      if (!read(memory + at, entries, count)) return EIO;
      for (std::int64_t i = 0; i < count; ++i, at += page_bytes) {
        const bool own = is_own(entries[i]);
        if (own && begin < 0) begin = at;
        if (own || begin < 0) continue;
        if (const int error = body(begin, at - begin)) return error;
        begin = -1;
      }
    }
    return begin < 0 ? 0 : body(begin, bytes - begin);
  }

 private:
  // Of an entry of pagemap: there, or swapped out; and neither a file's nor shared.
  static bool is_own(std::uint64_t entry) { return (entry >> 62) != 0 && (entry >> 61 & 1) == 0; }
  bool is_own(const void *page) const {
    std::uint64_t entry = 0;
    return read(page, &entry, 1) && is_own(entry);
  }
  bool read(const void *memory, std::uint64_t *entries, std::int64_t count) const {
    const auto size = static_cast<std::size_t>(count) * sizeof *entries;
    return pread(pages_, entries, size, static_cast<off_t>(number(memory) / page_bytes * sizeof *entries)) ==
           static_cast<ssize_t>(size);
  }

  const int pages_;
};

// Writes [offset, offset + bytes) of an arena to a file, except for what is kept in memory.
// (Through the page cache: the pages may be those of that very file.)
int write_out(const Arena &arena, const PrivateFile &file, std::int64_t offset, std::int64_t bytes) {
  if (!arena.any_kept) return file.write(arena.memory + offset, bytes, offset, true);
  for (std::int64_t page = offset; page < offset + bytes; page += page_bytes) {
    if (arena.is_kept(page)) continue;
    if (const int error = file.write(arena.memory + page, page_bytes, page, true)) return error;
  }
  return 0;
}

}  // namespace

// ---- around the fork ----

void Arenas::before_fork() {
  made_claim_[0] = made_claim_[1] = -1;
  if (arenas_.empty()) return;
  try {
    claims_.reserve(claims_.size() + 1);
    own_claims_.reserve(own_claims_.size() + 1);
    if (pipe2(made_claim_, O_CLOEXEC) != 0) made_claim_[0] = made_claim_[1] = -1;
  } catch (const std::bad_alloc &) {
  }
  for (const auto &arena : arenas_) {
    if (!arena->is_private)
      arena->is_private = map_again(*arena, *arena->file, PROT_READ | PROT_WRITE, MAP_PRIVATE) == 0;
  }
}

void Arenas::after_fork(bool in_child) {
  if (arenas_.empty()) return;
  if (!in_child) {
    if (made_claim_[0] < 0) {
      unknown_child_ = true;
    } else {
      close(made_claim_[1]);
      claims_.push_back(made_claim_[0]);
    }
    return;
  }
  in_child_ = true;
  for (int claim : claims_) close(claim);
  claims_.clear();
  if (made_claim_[0] >= 0) {
    close(made_claim_[0]);
    own_claims_.push_back(made_claim_[1]);
  }
  // What could not be made private would follow the parent: better that nobody can read it.
  for (const auto &arena : arenas_) {
    if (!arena->is_private) map_again(*arena, *arena->file, PROT_NONE, MAP_PRIVATE);
  }
}

bool Arenas::child_lives() const {
  bool lives = unknown_child_;
  for (int claim : claims_) {
    pollfd ended{claim, 0, 0};
    lives = lives || poll(&ended, 1, 0) != 1 || (ended.revents & POLLHUP) == 0;
  }
  return lives;
}

void Arenas::drop_claims() {
  for (std::vector<int> *ends : {&claims_, &own_claims_}) {
    for (int end : *ends) close(end);
    ends->clear();
  }
  unknown_child_ = false;
}

// ---- after it, in the parent ----

namespace {

// No child has the old contents: what this process has written since goes to the file.
int bring_back(Arena &arena) {
  const PrivateFile &file = *arena.file;
  const OwnPages own;
  const bool tells = own.can_tell(file);
  const int error = arena.over_taken([&](std::int64_t offset, std::int64_t bytes) {
    if (!tells) return write_out(arena, file, offset, bytes);
    return own.over(arena.memory + offset, bytes,
                    [&](std::int64_t at, std::int64_t size) { return write_out(arena, file, offset + at, size); });
  });
  return error != 0 ? error : map_shared(arena, file);
}

// A child has them: all goes to another file.
int move_to(std::unique_ptr<PrivateFile> fresh, Arena &arena) {
  int error = arena.reserved > 0 ? fresh->reserve(0, arena.reserved) : 0;
  if (error == 0)
    error = arena.over_taken([&](std::int64_t offset, std::int64_t bytes) {
      if (const int e = fresh->reserve(offset, bytes)) return e;
      return write_out(arena, *fresh, offset, bytes);
    });
  if (error == 0) error = map_shared(arena, *fresh);
  if (error == 0) arena.file = std::move(fresh);
  return error;
}

}  // namespace

adamw_status Arenas::settle(const char *function) {
  bool any = false;
  for (const auto &arena : arenas_) any = any || arena->is_private;
  if (!any || in_child_) return ADAMW_OK;
  const bool lives = child_lives();
  for (const auto &arena : arenas_) {
    if (!arena->is_private) continue;
    int error = 0;
    if (lives) {
      auto fresh = std::make_unique<PrivateFile>();
      if (adamw_status s = fresh->open(function, directory_)) return s;
      error = move_to(std::move(fresh), *arena);
    } else {
      error = bring_back(*arena);
    }
    if (error != 0) {
      return fail(ADAMW_ERROR_STORAGE,
                  "%s: after a fork%s, %" PRId64
                  " bytes of buffers cannot be written to the disk in %s: %s; they are "
                  "in memory, and the next call tries again",
                  function, lives ? ", with a child that has the old contents still" : "", arena->taken,
                  directory_.c_str(), std::strerror(error));
    }
    arena->is_private = false;
    // In the new file nothing was ever written but what is taken.
    if (lives) arena->stale.cut(0, arena->bytes, [](std::int64_t, std::int64_t) {});
  }
  drop_claims();
  return ADAMW_OK;
}

Arenas::~Arenas() { drop_claims(); }

}  // namespace adamw
