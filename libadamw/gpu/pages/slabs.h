// Owns stretches of large allocations: small buffers share one, so that neighbours can be moved in one call. Knows no
// driver and no use of the memory.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "../../pager/free_list.h"
#include "../../pager/pager.h"

namespace adamw {
namespace gpu {

constexpr std::int64_t slab_unit = 256;  // what stretches begin at, and are a whole number of

struct Slab {
  char *memory;
  std::int64_t bytes, taken;
  Gaps gaps;
};

class Slabs {
 public:
  using Get = std::function<adamw_status(const char *function, std::int64_t bytes, void **memory)>;
  using Put = std::function<void(void *memory)>;
  Slabs(Get get, Put put) : get_(std::move(get)), put_(std::move(put)) {}

  adamw_status take(const char *function, std::int64_t bytes, Slab **slab, void **memory);
  // A slab goes with its last stretch.
  void give_back(Slab *slab, void *memory, std::int64_t bytes);
  // Gives everything back, for an end without order.
  void clear();

 private:
  static void *take_from(Slab &slab, std::int64_t bytes);  // null: it has no such stretch

  const Get get_;
  const Put put_;
  std::vector<std::unique_ptr<Slab>> slabs_;
  std::int64_t held_ = 0;
};

// A stretch that moves: pieces of one slab that are neighbours there. `at` is where it begins in a window, if it has
// one.
struct Extent {
  const Slab *slab;
  std::int64_t begin, bytes, at;  // begin: in the slab

  void *home() const { return slab->memory + begin; }
};

// Of the pieces of buffers whose `own` is a Slab. Each begins and ends at a multiple of `unit` in the slab if
// `outwards` (neighbours then come along), else only a piece that ends its buffer is longer, by what is nobody's. Sets
// where pieces are in a window at `window`, if there is one: each begins at a multiple of slab_unit.
void lay_out(std::vector<Piece> &pieces, std::int64_t unit, bool outwards, char *window, std::vector<Extent> *extents);

}  // namespace gpu
}  // namespace adamw
