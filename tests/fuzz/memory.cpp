// Owns the guard pages and canaries of memory.h.
#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace {

constexpr std::size_t guard = 4096;
constexpr std::uint8_t canary = 0xA5;

}  // namespace

Memory::Memory() : buffers_(slots) {
  // Inaccessible but for the slots.
  void *const region = mmap(nullptr, slots * (slot_bytes + guard) + guard, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) std::abort();
  region_ = static_cast<std::uint8_t *>(region);
  for (std::size_t i = 0; i < slots; ++i)
    if (mprotect(slot(i), slot_bytes, PROT_READ | PROT_WRITE) != 0) std::abort();
}

std::uint8_t *Memory::slot(std::size_t i) const { return region_ + guard + i * (slot_bytes + guard); }

// each(begin, bytes) of what lies beside buffer i, as far as it is watched.
template <class Each>
void Memory::over_canaries(std::size_t i, const Each &each) const {
  const Buffer &b = buffers_[i];
  if (b.adopted) return;
  std::uint8_t *const first = slot(i), *const last = first + slot_bytes, *const end = b.at + b.bytes;
  const auto before = std::min(canary_bytes, static_cast<std::size_t>(b.at - first)),
             after = std::min(canary_bytes, static_cast<std::size_t>(last - end));
  each(b.at - before, before);
  each(end, after);
}

Buffer &Memory::take(std::size_t bytes, bool at_end) {
  if (used_ == slots || bytes > slot_bytes) std::abort();
  const std::size_t i = used_++;
  Buffer &b = buffers_[i];
  b.at = at_end ? slot(i) + slot_bytes - bytes : slot(i);
  b.bytes = bytes;
  b.adopted = false;
  over_canaries(i, [](std::uint8_t *at, std::size_t n) { std::memset(at, canary, n); });
  return b;
}

Buffer &Memory::adopt(void *at, std::size_t bytes) {
  if (used_ == slots) std::abort();
  Buffer &b = buffers_[used_++];
  b.at = static_cast<std::uint8_t *>(at);
  b.bytes = bytes;
  b.adopted = true;
  return b;
}

void Memory::remember() {
  for (std::size_t i = 0; i < used_; ++i) buffers_[i].before.assign(buffers_[i].at, buffers_[i].at + buffers_[i].bytes);
}

bool Memory::is_changed(const Buffer &b) const {
  return b.bytes != 0 && std::memcmp(b.at, b.before.data(), b.bytes) != 0;
}

const Buffer *Memory::changed() const {
  for (std::size_t i = 0; i < used_; ++i)
    if (is_changed(buffers_[i])) return &buffers_[i];
  return nullptr;
}

bool Memory::canaries_live() const {
  bool live = true;
  for (std::size_t i = 0; i < used_; ++i)
    over_canaries(i, [&](const std::uint8_t *at, std::size_t n) {
      live = live && std::all_of(at, at + n, [](std::uint8_t byte) { return byte == canary; });
    });
  return live;
}

const Buffer *Memory::containing(const void *pointer) const {
  const auto *p = static_cast<const std::uint8_t *>(pointer);
  for (std::size_t i = 0; i < used_; ++i)
    if (p >= buffers_[i].at && p < buffers_[i].at + buffers_[i].bytes) return &buffers_[i];
  return nullptr;
}
