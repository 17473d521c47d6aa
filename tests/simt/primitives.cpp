// Owns the primitives of warps and blocks: who waits for whom, and the rules that are checked where they meet.
#include "scheduler.h"

namespace simt {
namespace {

void release(Warp &warp) {
  state.idle_switches = 0;
  warp.ready = all_lanes;
  warp.arrived = 0;
  warp.turn ^= 1;
}

void arrive_at_barrier(Warp &warp) {
  Block &block = *warp.block;
  if (block.warps_returned != 0) fail("deadlock: it waits in barrier, but other warps of its block have returned");
  if (block.warps_waiting == 0) {
    block.site = warp.site;
  } else if (block.site != warp.site) {
    fail("divergence: its warp is in barrier at %s:%d, another warp of the block in barrier at %s:%d", warp.site.file,
         warp.site.line, block.site.file, block.site.line);
  }
  if (++block.warps_waiting < block.warps_used) return;
  block.warps_waiting = 0;
  for (std::size_t w = 0; w < block.warps_used; ++w) release(*block.warps[w]);
}

// Waits for all lanes of the warp, and for all warps if the primitive is barrier.
void arrive(Primitive primitive, Site site) {
  Warp &warp = *current->warp;
  if (warp.returned != 0) {
    fail("deadlock: it waits in %s at %s:%d, but thread %u of its warp has returned", name_of(primitive), site.file,
         site.line, warp.threads[first_lane(warp.returned)]->id);
  }
  if (warp.arrived == 0) {
    warp.primitive = primitive;
    warp.site = site;
  } else if (warp.primitive != primitive || warp.site != site) {
    fail("divergence: it is in %s at %s:%d, thread %u of its warp in %s at %s:%d", name_of(primitive), site.file,
         site.line, warp.threads[first_lane(warp.arrived)]->id, name_of(warp.primitive), warp.site.file,
         warp.site.line);
  }
  warp.ready &= ~(1u << current->lane);
  warp.arrived |= 1u << current->lane;
  if (warp.arrived == all_lanes) primitive == Primitive::barrier ? arrive_at_barrier(warp) : release(warp);
  switch_to(choose());
}

}  // namespace

unsigned block_id() { return current->warp->block->id; }
unsigned block_count() { return state.launch->grid; }
unsigned block_threads() { return state.launch->block; }

void barrier(Site site) { arrive(Primitive::barrier, site); }
void warp_barrier(Site site) { arrive(Primitive::warp_barrier, site); }

void shuffle(Primitive primitive, void *value, std::size_t bytes, unsigned from, Site site) {
  if (from >= lanes) fail("%s at %s:%d: lane %u: must be below 32", name_of(primitive), site.file, site.line, from);
  auto &given = current->warp->given[current->warp->turn];
  std::memcpy(given[current->lane], value, bytes);
  arrive(primitive, site);
  std::memcpy(value, given[from], bytes);
}

std::uint32_t vote(Primitive primitive, std::uint32_t value, Site site) {
  Warp &warp = *current->warp;
  std::uint32_t &result = warp.result[warp.turn];
  if (warp.arrived == 0) result = 0;
  if (primitive == Primitive::any)
    result |= value;
  else if (value > result)
    result = value;
  arrive(primitive, site);
  return result;
}

void *shared_memory(std::size_t bytes) {
  BlockMemory &shared = current->warp->block->shared;
  if (shared.bytes() != 0 && shared.bytes() != bytes)
    fail("shared memory of %zu bytes is asked for, and of %zu before", bytes, shared.bytes());
  return shared.get(bytes);
}

}  // namespace simt
