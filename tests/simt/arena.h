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
  // In its middle, the upper half of addresses changes.
  Arena() {
    constexpr std::uintptr_t half = std::uintptr_t{1} << 32;
    for (std::uintptr_t middle = 64 * half; memory_ == MAP_FAILED && middle < 512 * half; middle += half) {
      memory_ = mmap(reinterpret_cast<void *>(middle - bytes / 2), bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    }
    if (memory_ == MAP_FAILED) std::perror("simt: mmap"), std::abort();
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
  void *memory_ = MAP_FAILED;
  std::size_t used_ = 0, live_ = 0;
  bool is_closed_ = false;
};

inline Arena &arena() {
  static Arena arena;
  return arena;
}

}  // namespace simt
