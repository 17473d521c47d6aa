// Owns launches: their settings, their blocks, and what becomes of those that break a rule.
#include "runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "scheduler.h"

namespace simt {

Settings &settings() {
  const auto number = [](const char *variable, long otherwise) {
    const char *text = std::getenv(variable);
    return text != nullptr ? std::strtol(text, nullptr, 10) : otherwise;
  };
  static Settings settings{static_cast<std::uint64_t>(number("SIMT_SEED", 1)),
                           static_cast<int>(number("SIMT_MUTANT", 0)), 3};
  return settings;
}

void set_error_handler(void (*handler)(const char *message)) { state.handler = handler; }

namespace {

void report() {
  if (state.handler != nullptr) return state.handler(state.message);
  std::printf("simt: %s\n", state.message);
  std::fflush(stdout);
  std::abort();
}

void set_up_blocks(const Launch &launch) {
  state.order.resize(launch.grid);
  for (unsigned i = 0; i < launch.grid; ++i) {
    const std::size_t at = random_below(i + 1);
    state.order[i] = state.order[at];
    state.order[at] = i;
  }
  state.started = 0;
  state.warps.clear();
  const std::size_t resident = std::min<std::size_t>(
      launch.grid, settings().resident_blocks > 0 ? static_cast<std::size_t>(settings().resident_blocks) : 1);
  while (state.blocks.size() < resident) state.blocks.push_back(std::make_unique<Block>());
  for (std::size_t b = 0; b < resident; ++b) {
    Block &block = *state.blocks[b];
    block.warps_used = launch.block / lanes;
    while (block.warps.size() < block.warps_used) {
      auto warp = std::make_unique<Warp>();
      warp->block = &block;
      const unsigned first = static_cast<unsigned>(block.warps.size()) * lanes;
      for (unsigned lane = 0; lane < lanes; ++lane)
        warp->threads.push_back(std::unique_ptr<Thread>(new Thread{first + lane, lane, warp.get(), {}}));
      block.warps.push_back(std::move(warp));
    }
    for (std::size_t w = 0; w < block.warps_used; ++w) state.warps.push_back(block.warps[w].get());
    block.shared.reset();
    start_block(block);
  }
}

}  // namespace

bool run(const Launch &launch) {
  const std::lock_guard<std::mutex> lock(state.one_launch_at_a_time);
  static std::uint64_t launches = 0;
  state.failed = false;
  if (launch.grid == 0 || launch.block == 0 || launch.block % lanes != 0 || launch.block > 1024) {
    std::snprintf(state.message, sizeof state.message,
                  "kernel %s: a grid of %u blocks of %u threads cannot be launched", launch.kernel, launch.grid,
                  launch.block);
    report();
    return false;
  }
  state.random = ((settings().seed << 20) + ++launches) * 0x9E3779B97F4A7C15u | 1;
  state.launch = &launch;
  state.running = nullptr;
  state.idle_switches = 0;
  set_up_blocks(launch);
  switch_to(choose());
  current = nullptr;
  if (!state.failed) {
    for (const Warp *warp : state.warps) {
      if (warp->returned == all_lanes) continue;
      std::snprintf(state.message, sizeof state.message, "kernel %s, block %u: deadlock: nobody can run", launch.kernel,
                    warp->block->id);
      state.failed = true;
    }
  }
  state.launch = nullptr;
  if (state.failed) report();
  return !state.failed;
}

}  // namespace simt
