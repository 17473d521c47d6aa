// Owns what the parts of the runtime share: the warps and blocks of the launch that runs, and who runs next. Only for
// scheduler.cpp, primitives.cpp and runtime.cpp.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "block_memory.h"
#include "runtime.h"

namespace simt {

struct Block;

struct Warp {
  Block *block;
  std::vector<std::unique_ptr<Thread>> threads;
  std::uint32_t ready = 0, arrived = 0, returned = 0;  // lanes that can run, wait in the primitive, have ended
  Primitive primitive = Primitive::none;
  Site site{};
  // What the lanes gave, by turns: when the lanes give again, all have taken what they were given last.
  unsigned turn = 0;
  alignas(16) unsigned char given[2][lanes][16];
  std::uint32_t result[2];
};

struct Block {
  unsigned id = 0;
  std::vector<std::unique_ptr<Warp>> warps;
  std::size_t warps_used = 0, warps_waiting = 0, warps_returned = 0;
  Site site{};
  BlockMemory shared;
};

constexpr std::uint32_t all_lanes = ~0u;

struct State {
  std::mutex one_launch_at_a_time;
  const Launch *launch = nullptr;
  std::vector<unsigned> order;  // of the blocks of the grid
  std::size_t started = 0;
  std::vector<std::unique_ptr<Block>> blocks;  // the resident ones
  std::vector<Warp *> warps;                   // of the resident blocks
  Warp *running = nullptr;
  Fiber program;
  std::uint64_t random = 1;
  long idle_switches = 0;  // since a thread last got on
  char message[512];
  bool failed = false;
  void (*handler)(const char *) = nullptr;
};
extern State &state;

std::uint32_t random_word();
std::size_t random_below(std::size_t n);
inline unsigned first_lane(std::uint32_t mask) { return static_cast<unsigned>(__builtin_ctz(mask)); }
const char *name_of(Primitive primitive);

// Who runs next, null if nobody can.
Thread *choose();
// Returns when somebody switches back. null: the program, outside of the launch.
void switch_to(Thread *next);
// Begins the next block of the grid in the place of one that has ended.
void start_block(Block &block);

}  // namespace simt
