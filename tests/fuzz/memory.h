// Owns the memory that fuzzed calls work on: every buffer ends, or begins, at a page that nobody may touch; what lies
// on its other side is watched, and what it held before a call is kept. Knows nothing of calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

struct Buffer {
  std::uint8_t *at;
  std::size_t bytes;
  std::vector<std::uint8_t> before;  // what it held at remember()
  bool adopted;                      // somebody else's memory: nothing beside it is watched
};

class Memory {
 public:
  Memory();
  Memory(const Memory &) = delete;
  void clear() { used_ = 0; }
  // At most slot_bytes. A multiple of the size of its elements is aligned to them, wherever it lies.
  Buffer &take(std::size_t bytes, bool at_end);
  Buffer &adopt(void *at, std::size_t bytes);
  void remember();  // what all buffers hold now
  // The first buffer that is not as it was at remember(), or NULL.
  const Buffer *changed() const;
  bool is_changed(const Buffer &buffer) const;
  bool canaries_live() const;  // nothing was written beside a buffer
  std::size_t count() const { return used_; }
  Buffer &operator[](std::size_t i) { return buffers_[i]; }
  const Buffer *containing(const void *pointer) const;

  static constexpr std::size_t slot_bytes = std::size_t{1} << 20, slots = 128, canary_bytes = 128;

 private:
  std::uint8_t *slot(std::size_t i) const;
  template <class Each>
  void over_canaries(std::size_t i, const Each &each) const;
  std::uint8_t *region_;
  std::vector<Buffer> buffers_;
  std::size_t used_ = 0;
};
