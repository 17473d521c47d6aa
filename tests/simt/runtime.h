// Owns how a kernel runs on the CPU: grid, blocks and warps of threads that are fibers, scheduled in an order that a
// seed shuffles; what a kernel may not do ends the launch with a message. Knows no kernel and no driver.
//
// What it finds: lanes of a warp in different primitives, or in the same one at different places; primitives that a
// thread of the warp or block never reaches, because it has returned; shared memory written beyond its end or read
// before it was written (every block finds it poisoned); misaligned accesses. What it cannot find: a missing fence.
#pragma once

#include <cstdint>
#include <cstring>

#include "fiber.h"

namespace simt {

// ---- launching ----

struct Settings {
  std::uint64_t seed;   // SIMT_SEED in the environment, or 1
  int mutant;           // SIMT_MUTANT in the environment, or 0: see device.h
  int resident_blocks;  // blocks that run at a time
};
Settings &settings();

struct Launch {
  const char *kernel;
  unsigned grid, block;  // blocks, threads in each: a multiple of 32, at most 1024
  void (*entry)(const void *params);
  const void *params;
};

// Runs all threads to their end. false: the launch broke a rule and was abandoned; the handler has the message.
bool run(const Launch &launch);

// Where messages go. null: they are printed and the program aborts.
void set_error_handler(void (*handler)(const char *message));

// A kernel that is a callable of this program: run("name", grid, block, [&] { ... }).
template <class Body>
bool run(const char *kernel, unsigned grid, unsigned block, const Body &body) {
  return run({kernel, grid, block, [](const void *p) { (*static_cast<const Body *>(p))(); }, &body});
}

// ---- what device.h is made of; only for code that runs in a kernel ----

constexpr unsigned lanes = 32;

// Where a primitive is called: its default argument, which the compiler fills in there.
struct Site {
  const char *file;
  int line;
  static constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool operator!=(const Site &other) const {
    return line != other.line || (file != other.file && std::strcmp(file, other.file) != 0);
  }
};

enum class Primitive { none, barrier, warp_barrier, shuffle, shuffle_xor, any, warp_max };

struct Warp;

struct Thread {
  unsigned id, lane;
  Warp *warp;
  Fiber fiber;
  bool waits_for_kernel = false;  // the fiber can be switched to and will run the kernel from its beginning
};
extern Thread *current;  // null outside of kernels

unsigned block_id();
unsigned block_count();
unsigned block_threads();

void barrier(Site site);
void warp_barrier(Site site);
// Gives `value` (at most 16 bytes) to the warp and returns what lane `from` gave.
void shuffle(Primitive primitive, void *value, std::size_t bytes, unsigned from, Site site);
// The or, the maximum of what the lanes give.
std::uint32_t vote(Primitive primitive, std::uint32_t value, Site site);
// The block's shared memory, the same for all calls.
void *shared_memory(std::size_t bytes);
// Other threads, of other blocks too, may run here.
void pause();
// Ends the launch.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

inline std::uint64_t fetches = 0;  // requests of fetch_if() in all launches so far

inline void check_aligned(const void *p, std::size_t bytes, const char *what) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0)
    fail("%s of %zu bytes at %p, which is not aligned to them", what, bytes, p);
}

}  // namespace simt
