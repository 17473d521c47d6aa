// Owns memory that the host may not touch while it queues work: as a GPU's. (The CPU's side of a comparison lies there
// too, and is never stepped meanwhile.)
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace simt {

class Arena {
 public:
  // In its middle, the upper half of addresses changes. Cut out of what is long enough to have such a place: at a fixed
  // address there may be something else, such as the shadow of a sanitizer.
  Arena() {
    constexpr std::uintptr_t half = std::uintptr_t{1} << 32, whole = half + bytes;
    void *const map = mmap(nullptr, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) std::perror("simt: mmap"), std::abort();
    const auto start = reinterpret_cast<std::uintptr_t>(map);
    const std::uintptr_t begin = (start + bytes / 2 + half - 1) / half * half - bytes / 2, end = begin + bytes;
    memory_ = reinterpret_cast<void *>(begin);
    if (begin != start) munmap(map, begin - start);
    if (end != start + whole) munmap(reinterpret_cast<void *>(end), start + whole - end);
    open();
  }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;
  ~Arena() { munmap(memory_, bytes); }

  // A multiple of 64 bytes.
  std::uint8_t *take(std::size_t count) {
    const std::size_t at = used_;
    used_ += (count + 63) / 64 * 64;
    if (used_ > bytes) std::puts("simt: the arena is too small"), std::abort();
    ++live_;
    return static_cast<std::uint8_t *>(memory_) + at;
  }
  // What is taken next lies `count` bytes before the middle.
  void go_to_middle(std::size_t count) { used_ = bytes / 2 - count; }
  void give_back() {
    if (--live_ == 0) used_ = 0;
  }

  // Where the library touches what it was given for the device, the program ends here: the address sanitizer says
  // where.
  void close() {
    mprotect(memory_, bytes, PROT_NONE);
    is_closed_ = true;
  }
  void open() {
    mprotect(memory_, bytes, PROT_READ | PROT_WRITE);
    is_closed_ = false;
  }
  bool is_closed() const { return is_closed_; }

 private:
  static constexpr std::size_t bytes = std::size_t{256} << 20;
  void *memory_;
  std::size_t used_ = 0, live_ = 0;
  bool is_closed_ = false;
};

inline Arena &arena() {
  static Arena arena;
  return arena;
}

}  // namespace simt
