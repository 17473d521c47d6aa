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
    if (pages_ < 0 || file.size() == 0) return false;
    void *page =
        mmap(nullptr, static_cast<std::size_t>(page_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE, file.descriptor(), 0);
    if (page == MAP_FAILED) return false;
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

Arenas::Arenas() = default;
Arenas::~Arenas() { drop_claims(); }

// ---- around the fork ----

void Arenas::before_fork() {
  made_claim_[0] = made_claim_[1] = -1;
  if (arenas_.empty()) return;
  forget_ended_children();
  try {
    claims_.reserve(claims_.size() + 1);
    own_claims_.reserve(own_claims_.size() + 1);
    if (pipe2(made_claim_, O_CLOEXEC) != 0) made_claim_[0] = made_claim_[1] = -1;
  } catch (const std::bad_alloc &) {
  }
  for (const auto &arena : arenas_) {
    // It may not be possible: private memory is limited (RLIMIT_DATA).
    const auto make_private = [&](Page page, std::int64_t at, std::int64_t size) {
      if (page == Page::shared) static_cast<void>(arena->map(at, size, Page::unchanged));
      return 0;
    };
    arena->any_private = arena->frozen = true;
    arena->over_pages(0, std::min(arena->bytes, arena->file->size()), make_private);  // beyond it nobody has any
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
  // What could not be made private would follow the parent: better that nobody can read it. (Each is a whole mapping,
  // so this takes no memory. Should one fail all the same, the others are protected.)
  for (const auto &arena : arenas_) {
    arena->over_pages(0, arena->bytes, [&](Page page, std::int64_t at, std::int64_t size) {
      if (page == Page::shared) mprotect(arena->memory + at, static_cast<std::size_t>(size), PROT_NONE);
      return 0;
    });
  }
}

// Children that have ended, or have given their buffers back.
void Arenas::forget_ended_children() {
  const auto ended = [](int claim) {
    pollfd end{claim, 0, 0};
    if (poll(&end, 1, 0) != 1 || (end.revents & POLLHUP) == 0) return false;
    close(claim);
    return true;
  };
  claims_.erase(std::remove_if(claims_.begin(), claims_.end(), ended), claims_.end());
}

void Arenas::drop_claims() {
  for (std::vector<int> *ends : {&claims_, &own_claims_}) {
    for (int end : *ends) close(end);
    ends->clear();
  }
  unknown_child_ = false;
}

// ---- after it, in the parent ----

adamw_status Arenas::thaw_one(const char *function, Arena &arena, bool child_lives) {
  if (!child_lives) {
    if (own_pages_ == nullptr) own_pages_ = std::make_unique<OwnPages>();
    if (arena.file->size() > 0 && !own_pages_->can_tell(*arena.file)) own_pages_ = nullptr;
    arena.frozen = false;
    return ADAMW_OK;
  }
  auto fresh = std::make_unique<PrivateFile>();
  if (adamw_status s = fresh->open(function, directory_)) return s;
  int error = arena.reserved > 0 ? fresh->reserve(0, arena.reserved) : 0;
  if (error == 0)
    error = arena.over_taken([&](std::int64_t offset, std::int64_t bytes) { return fresh->reserve(offset, bytes); });
  if (error != 0) {
    return fail(ADAMW_ERROR_STORAGE,
                "%s: a child of a fork still has the old contents, and %s has no room for %" PRId64
                " more bytes: %s; nothing is lost, and the next call tries again",
                function, directory_.c_str(), arena.taken, std::strerror(error));
  }
  Page *const end = arena.pages + arena.bytes / page_bytes;
  std::replace_if(arena.pages, end, [](Page page) { return page != Page::kept; }, Page::elsewhere);
  arena.file = std::move(fresh);
  arena.frozen = false;
  return ADAMW_OK;
}

adamw_status Arenas::thaw(const char *function) {
  if (in_child_ || std::none_of(arenas_.begin(), arenas_.end(), [](const auto &arena) { return arena->frozen; }))
    return ADAMW_OK;
  forget_ended_children();
  const bool child_lives = unknown_child_ || !claims_.empty();
  for (const auto &arena : arenas_) {
    if (!arena->frozen) continue;
    if (adamw_status s = thaw_one(function, *arena, child_lives)) return s;
  }
  drop_claims();
  return ADAMW_OK;
}

int Arenas::share(Arena &arena, std::int64_t offset, std::int64_t bytes) {
  if (!arena.any_private) return 0;
  // (Through the page cache: the pages may be those of that very file.)
  const auto write = [&](std::int64_t at, std::int64_t size) {
    return arena.file->write(arena.memory + at, size, at, true);
  };
  const std::int64_t whole = round_up(offset, page_bytes), end = (offset + bytes) / page_bytes * page_bytes;
  for (const std::int64_t edge : {offset / page_bytes * page_bytes, end}) {
    const bool outside = edge < whole || (edge == end && end < offset + bytes);
    if (!outside || arena.page(edge) == Page::shared) continue;
    arena.page(edge) = Page::kept;
    arena.any_kept = true;
  }
  if (whole >= end) return 0;
  return arena.over_pages(whole, end - whole, [&](Page page, std::int64_t at, std::int64_t size) {
    if (page == Page::shared || page == Page::kept) return 0;
    int error = 0;
    if (page == Page::unchanged && own_pages_ != nullptr) {
      error = own_pages_->over(arena.memory + at, size,
                               [&](std::int64_t from, std::int64_t part) { return write(at + from, part); });
    } else {
      error = write(at, size);
    }
    return error != 0 ? error : arena.map(at, size, Page::shared);
  });
}

}  // namespace adamw
