// Owns the memory that a step takes on the host, and keeps for those after it. Knows not what is in it.
#pragma once

#include <vector>

#include "backend.h"
#include "check/overlap_cache.h"
#include "lease.h"

namespace adamw {

struct Workspace : CheckMemory {
  std::vector<Row> rows;
  std::vector<adamw_tensor> copies;  // of a caller's rows that have another version's size

  // After a call of so many rows. What only much larger calls need goes when they have not come for a while.
  void used_for(std::int64_t count);

 private:
  int smaller_calls_ = 0;
};

using WorkspaceLease = Lease<Workspace>;

}  // namespace adamw
