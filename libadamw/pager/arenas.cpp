// Owns which stretches of which mapping are whose, see arenas.h. (In a fork: snapshot.cpp.)
#include "arenas.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstring>

#include "../platform.h"
#include "../status.h"
#include "pager.h"

namespace adamw {
namespace {

// Address space alone: each is as large as all before.
constexpr std::int64_t smallest_arena = std::int64_t{16} << 20, largest_arena = std::int64_t{16} << 30;

constexpr std::int64_t small_unit = 64;
// A tray keeps its last unit, so that gaps of two trays never meet.
constexpr std::int64_t tray_bytes = std::int64_t{64} << 10, tray_room = tray_bytes - small_unit;

// Giving pages back to the file system takes it milliseconds, however few they are: fewer wait for their neighbours,
// and are written with zeros if they are taken before.
constexpr std::int64_t worth_giving_back = std::int64_t{1} << 20;

bool is_small(std::int64_t bytes) { return bytes < page_bytes; }

// The pages [first, end) become memory of this process, with what the file has there.
int keep_pages(Arena &arena, std::int64_t first, std::int64_t end) {
  void *fresh = map_memory(end - first);
  if (fresh == nullptr) return errno;
  auto *memory = static_cast<char *>(fresh);
  // All but the ends is about to be written by the caller, and need not be readable.
  for (const std::int64_t page : {first, end - page_bytes}) arena.file->read(memory + (page - first), page_bytes, page);
  const auto size = static_cast<std::size_t>(end - first);
  if (mremap(fresh, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, arena.memory + first) == MAP_FAILED) {
    const int error = errno;
    unmap_memory(fresh, end - first);
    return error;
  }
  arena.mark(first, end - first, Page::kept);
  arena.any_kept = true;
  return 0;
}

}  // namespace

Arena::~Arena() {
  if (memory != nullptr) unmap_memory(memory, bytes);
  if (pages != nullptr) unmap_memory(pages, bytes / page_bytes);
}

int Arena::map(std::int64_t offset, std::int64_t size, Page as) const {
  if (mmap(memory + offset, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE,
           (as == Page::shared ? MAP_SHARED : MAP_PRIVATE) | MAP_NORESERVE | MAP_FIXED, file->descriptor(),
           offset) == MAP_FAILED)
    return errno;
  mark(offset, size, as);
  return 0;
}

std::int64_t Arenas::rounded(std::int64_t bytes) { return round_up(bytes, is_small(bytes) ? small_unit : page_bytes); }

adamw_status Arenas::open(const char *function, const std::string &directory, std::int64_t reserved) {
  directory_ = directory;
  reserved_ = round_up(reserved, page_bytes);
  spare_ = std::make_unique<PrivateFile>();
  if (adamw_status s = spare_->open(function, directory)) return s;
  if (const int error = reserved_ > 0 ? spare_->reserve(0, reserved_) : 0) {
    return fail(ADAMW_ERROR_STORAGE, "%s: options.reserve_bytes = %" PRId64 ": %s does not have enough free space: %s",
                function, reserved, directory.c_str(), std::strerror(error));
  }
  return ADAMW_OK;
}

adamw_status Arenas::no_room(const char *function, std::int64_t bytes, int error) const {
  std::int64_t reserved = 0;
  for (const auto &arena : arenas_) reserved += arena->taken;
  return fail(ADAMW_ERROR_STORAGE, "%s: %s has no room for %" PRId64 " more bytes (%" PRId64 " are in use): %s",
              function, directory_.c_str(), bytes, reserved, std::strerror(error));
}

adamw_status Arenas::make_arena(const char *function, std::int64_t bytes, Arena **made) {
  auto arena = std::make_unique<Arena>();
  arenas_.reserve(arenas_.size() + 1);
  if (spare_ == nullptr) {
    arena->file = std::make_unique<PrivateFile>();
    if (adamw_status s = arena->file->open(function, directory_)) return s;
  } else {
    bytes = std::max(bytes, reserved_);
  }
  const PrivateFile &file = spare_ != nullptr ? *spare_ : *arena->file;
  // Where there is not so much address space, what is needed is asked for.
  for (std::int64_t size = std::max(bytes, std::clamp(mapped_, smallest_arena, largest_arena));;
       size = std::max(bytes, round_up(size / 4, page_bytes))) {
    void *memory = mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                        file.descriptor(), 0);
    void *pages = memory == MAP_FAILED ? nullptr : map_memory(size / page_bytes);  // zeros: all are shared
    if (pages != nullptr) {
      arena->memory = static_cast<char *>(memory);
      arena->pages = static_cast<Page *>(pages);
      arena->bytes = size;
      break;
    }
    const int error = errno;
    if (memory != MAP_FAILED) unmap_memory(memory, size);
    if (size == bytes)
      return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no address space for a buffer of %" PRId64 " bytes: %s", function,
                  bytes, std::strerror(error));
  }
  arena->gaps.add(0, arena->bytes);
  if (spare_ != nullptr) {
    arena->file = std::move(spare_);
    arena->reserved = reserved_;
  }
  mapped_ += arena->bytes;
  *made = arena.get();
  arenas_.push_back(std::move(arena));
  return ADAMW_OK;
}

// ---- whole pages ----

adamw_status Arenas::take_pages(const char *function, std::int64_t bytes, void **memory, Arena **taken_from) {
  Arena *arena = nullptr;
  std::int64_t at = -1;
  for (const auto &known : arenas_) {
    if ((at = known->gaps.find(bytes)) < 0) continue;
    arena = known.get();
    break;
  }
  if (arena == nullptr) {
    if (adamw_status s = make_arena(function, bytes, &arena)) return s;
    at = 0;
  }
  int error = arena->file->reserve(at, bytes);
  if (error == 0) error = claim(*arena, at, bytes);
  if (error == 0) {
    arena->stale.cut(at, bytes, [&](std::int64_t offset, std::int64_t size) {
      if (error == 0) error = make_zeros(*arena, offset, size);
    });
    if (error != 0) arena->stale.add(at, bytes);
  }
  if (error != 0) {
    const adamw_status s = no_room(function, bytes, error);
    drop_if_empty(arena);
    return s;
  }
  arena->gaps.take(at, bytes);
  arena->taken += bytes;
  *memory = arena->memory + at;
  *taken_from = arena;
  return ADAMW_OK;
}

// An arena goes with its last buffer, unless it is the only one, or has what is reserved for good.
void Arenas::drop_if_empty(const Arena *arena) {
  if (arena->taken != 0 || (!in_child_ && (arena->reserved != 0 || arenas_.size() == 1))) return;
  mapped_ -= arena->bytes;
  arenas_.erase(std::find_if(arenas_.begin(), arenas_.end(), [=](const auto &known) { return known.get() == arena; }));
}

// Of what nobody has: makes its pages those of the file, shared unless that may not be written. 0, or an errno.
int Arenas::claim(Arena &arena, std::int64_t offset, std::int64_t bytes) {
  const Page must = arena.frozen ? Page::unchanged : Page::shared;
  return arena.over_pages(offset, bytes, [&](Page page, std::int64_t at, std::int64_t size) {
    return page == must ? 0 : arena.map(at, size, must);
  });
}

// Of what nobody has, and is claimed. 0, or an errno.
int Arenas::make_zeros(Arena &arena, std::int64_t offset, std::int64_t bytes) {
  return arena.over_pages(offset, bytes, [&](Page page, std::int64_t at, std::int64_t size) {
    if (page == Page::shared && !arena.frozen) return arena.file->zero(at, size);
    std::memset(arena.memory + at, 0, static_cast<std::size_t>(size));  // a child may still read the file
    return 0;
  });
}

// Makes [offset, offset + bytes) of the file zeros, if it can. What is reserved for good stays so; the rest of the disk
// space is others' again.
bool Arenas::empty(Arena &arena, std::int64_t offset, std::int64_t bytes) {
  if (arena.frozen || claim(arena, offset, bytes) != 0) return false;
  const std::int64_t end = offset + bytes, middle = std::clamp(arena.reserved, offset, end);
  return (offset == middle || arena.file->give_back(offset, middle - offset, true) == 0) &&
         (middle == end || arena.file->give_back(middle, end - middle, false) == 0);
}

void Arenas::give_pages_back(Arena *arena, void *memory, std::int64_t bytes) {
  const std::int64_t at = static_cast<char *>(memory) - arena->memory;
  arena->taken -= bytes;
  if (!in_child_) {  // there the file is the parent's
    try {
      const Gaps::Gap stale = arena->stale.add(at, bytes);
      if ((stale.bytes >= worth_giving_back || arena->taken == 0) && empty(*arena, stale.offset, stale.bytes))
        arena->stale.cut(stale.offset, stale.bytes, [](std::int64_t, std::int64_t) {});
      arena->gaps.add(at, bytes);
    } catch (const std::bad_alloc &) {
      // Without memory to note them these pages are not given out again. They go with their arena.
    }
  }
  drop_if_empty(arena);
}

// ---- parts of pages ----

adamw_status Arenas::take_small(const char *function, std::int64_t bytes, void **memory, Arena **taken_from) {
  std::int64_t at = small_.find(bytes);
  if (at < 0) {
    void *fresh = nullptr;
    Arena *arena = nullptr;
    if (adamw_status s = take_pages(function, tray_bytes, &fresh, &arena)) return s;
    at = static_cast<std::int64_t>(number(fresh));
    try {
      trays_.insert({number(fresh), Tray{arena, 0}});
      small_.add(at, tray_room);
    } catch (...) {
      trays_.erase(number(fresh));
      give_pages_back(arena, fresh, tray_bytes);
      throw;
    }
  }
  small_.take(at, bytes);
  const auto tray = std::prev(trays_.upper_bound(static_cast<std::uintptr_t>(at)));
  tray->second.taken += bytes;
  *memory = reinterpret_cast<void *>(at);
  *taken_from = tray->second.arena;
  std::memset(*memory, 0, static_cast<std::size_t>(bytes));
  return ADAMW_OK;
}

void Arenas::give_small_back(void *memory, std::int64_t bytes) {
  const auto tray = std::prev(trays_.upper_bound(number(memory)));
  tray->second.taken -= bytes;
  try {
    small_.add(static_cast<std::int64_t>(number(memory)), bytes);
  } catch (const std::bad_alloc &) {  // not given out again; it goes with its tray
  }
  if (tray->second.taken != 0) return;
  small_.cut(static_cast<std::int64_t>(tray->first), tray_room, [](std::int64_t, std::int64_t) {});
  give_pages_back(tray->second.arena, reinterpret_cast<void *>(tray->first), tray_bytes);
  trays_.erase(tray);
}

// ---- buffers ----

adamw_status Arenas::take(const char *function, std::int64_t bytes, void **memory, Arena **arena) {
  return is_small(bytes) ? take_small(function, rounded(bytes), memory, arena)
                         : take_pages(function, rounded(bytes), memory, arena);
}

void Arenas::give_back(Arena *arena, void *memory, std::int64_t bytes) {
  if (is_small(bytes)) {
    give_small_back(memory, rounded(bytes));
  } else {
    give_pages_back(arena, memory, rounded(bytes));
  }
  if (arenas_.empty()) drop_claims();
}

// ---- a file that cannot be written ----

int Arenas::keep(Arena &arena, std::int64_t offset, std::int64_t bytes) {
  const std::int64_t first = offset / page_bytes * page_bytes, end = round_up(offset + bytes, page_bytes);
  return arena.over_pages(first, end - first, [&](Page page, std::int64_t at, std::int64_t size) {
    return page == Page::kept ? 0 : keep_pages(arena, at, at + size);
  });
}

}  // namespace adamw
