// Owns the shared memory of one block: exactly as long as asked for, poisoned at the block's beginning, guarded on both
// sides.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_GUARDED_BY_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_GUARDED_BY_ASAN 1
#endif
#endif
#ifdef SIMT_GUARDED_BY_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace simt {

class BlockMemory {
 public:
  BlockMemory() = default;
  BlockMemory(const BlockMemory &) = delete;
  BlockMemory &operator=(const BlockMemory &) = delete;
  ~BlockMemory() { reset(); }

  std::size_t bytes() const { return bytes_; }

  // For another kernel.
  void reset() {
#ifdef SIMT_GUARDED_BY_ASAN
    if (memory_ != nullptr) ASAN_UNPOISON_MEMORY_REGION(memory_.get(), bytes_ + 2 * guard);
#endif
    memory_.reset();
    bytes_ = 0;
  }

  // For another block of the same kernel.
  void begin(unsigned char poison) {
    poison_ = poison;
    if (bytes_ != 0) std::memset(memory_.get() + guard, poison, bytes_);
  }

  void *get(std::size_t bytes) {
    if (bytes_ == 0) {
      bytes_ = bytes;
      memory_.reset(new unsigned char[bytes + 2 * guard]);  // at a multiple of 16, and so is what follows the guard
      std::memset(memory_.get(), guard_value, bytes + 2 * guard);
      begin(poison_);
#ifdef SIMT_GUARDED_BY_ASAN
      ASAN_POISON_MEMORY_REGION(memory_.get(), guard);
      ASAN_POISON_MEMORY_REGION(memory_.get() + guard + bytes, guard);
#endif
    }
    return memory_.get() + guard;
  }

  // Nothing was written on either side. (The address sanitizer has said so at once.)
  bool intact() const {
#ifndef SIMT_GUARDED_BY_ASAN
    for (std::size_t i = 0; i < guard && bytes_ != 0; ++i)
      if (memory_[i] != guard_value || memory_[guard + bytes_ + i] != guard_value) return false;
#endif
    return true;
  }

 private:
  static constexpr std::size_t guard = 256;
  static constexpr unsigned char guard_value = 0xA7;
  std::unique_ptr<unsigned char[]> memory_;
  std::size_t bytes_ = 0;
  unsigned char poison_ = 0xFF;
};

}  // namespace simt
