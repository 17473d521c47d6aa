// Owns the fake driver's memory but for that of pools: pages that only those may touch who could on a real machine.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "arena.h"
#include "fake_world.h"

namespace simt {
namespace {

constexpr std::size_t page = 4096, unit = 256;

std::size_t round_up(std::size_t bytes, std::size_t to) { return (bytes + to - 1) / to * to; }

// Its pages; it ends where they do.
void protect(gpu::Pointer memory, const Allocation &allocation, int protection) {
  const gpu::Pointer first = memory / page * page;
  const std::size_t length = round_up(memory + allocation.bytes - first, page);
  if (mprotect(reinterpret_cast<void *>(first), length, protection) != 0) std::perror("simt: mprotect"), std::abort();
}

void protect_device(int protection) {
  if (!world().driver.queued) return;  // then the device's memory is the host's: see python_library.cpp
  for (const auto &[memory, allocation] : world().allocations)
    if (allocation.kind == Kind::device) protect(memory, allocation, protection);
}

int turns = 0;

}  // namespace

DeviceTurn::DeviceTurn() : closes_arena_(arena().is_closed()) {
  if (turns++ != 0) return;
  if (closes_arena_) arena().open();
  protect_device(PROT_READ | PROT_WRITE);
}
DeviceTurn::~DeviceTurn() {
  if (--turns != 0) return;
  if (closes_arena_) arena().close();
  protect_device(PROT_NONE);
}

void note_device_bytes(std::int64_t change) {
  std::size_t &bytes = world().device_bytes, &peak = world().driver.device_bytes_peak;
  bytes += static_cast<std::size_t>(change);
  peak = std::max(peak, bytes);
}

gpu::Pointer allocate_pages(std::size_t bytes, Kind kind, int device) {
  std::size_t used = bytes;
  for (const auto &[at, allocation] : world().allocations)
    if (allocation.device == device && allocation.kind != Kind::managed) used += allocation.bytes;
  if (kind == Kind::device && used > world().driver.memory) return 0;
  const std::size_t whole = round_up(bytes, page);
  void *map = mmap(nullptr, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return 0;
  const gpu::Pointer begin = reinterpret_cast<gpu::Pointer>(map) + page, memory = begin + whole - round_up(bytes, unit);
  Allocation &allocation = world().allocations[memory];
  allocation = {bytes, kind == Kind::host ? -1 : device, nullptr, false, kind, memory, {}};
  protect(memory, allocation, PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void *>(begin), 0xFF, whole);  // nobody may rely on zeros
  if (kind == Kind::device) note_device_bytes(static_cast<std::int64_t>(bytes));
  if (kind == Kind::managed) allocation.pages.assign(whole / page, false);
  if (kind == Kind::device && world().driver.queued) protect(memory, allocation, PROT_NONE);
  return memory;
}

// Its addresses are nobody's from now on: who uses them ends the program.
void release_pages(gpu::Pointer memory) {
  const auto it = world().allocations.find(memory);
  const Allocation &allocation = it->second;
  if (allocation.kind == Kind::device) note_device_bytes(-static_cast<std::int64_t>(allocation.bytes));
  for (const bool on_device : allocation.pages)
    if (on_device) note_device_bytes(-static_cast<std::int64_t>(page));
  protect(memory, allocation, PROT_NONE);
  const gpu::Pointer first = memory / page * page;
  madvise(reinterpret_cast<void *>(first), memory + allocation.bytes - first, MADV_DONTNEED);
  world().allocations.erase(it);
}

Allocation *find(Kind kind, gpu::Pointer memory, std::size_t bytes) {
  auto it = world().allocations.upper_bound(memory);
  if (it == world().allocations.begin()) return nullptr;
  --it;
  const bool inside = memory + bytes <= it->first + it->second.bytes;
  return inside && it->second.kind == kind ? &it->second : nullptr;
}

void copy_from_device(void *to, const void *from, std::size_t bytes) {
  const DeviceTurn turn;
  std::memcpy(to, from, bytes);
}
void copy_to_device(void *to, const void *from, std::size_t bytes) { copy_from_device(to, from, bytes); }

}  // namespace simt
