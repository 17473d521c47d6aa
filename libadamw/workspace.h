// Owns the memory that steps keep for those after them, since to have and fill it anew takes longer than all else
// around a small step. Knows not what is in it.
//
// It is the process's, and no thread's: what belongs to a thread is gone before that thread's last destructors run, of
// which one may step; and it would stay until the thread ends.
#pragma once

#include <vector>

#include "backend.h"
#include "check/check.h"
#include "check/overlap_cache.h"

namespace adamw {

struct Workspace {
  std::vector<Row> rows;
  std::vector<Interval> written, read;
  OverlapCaches tables;

  // After a call of so many rows. What only much larger calls need goes when they have not come for a while.
  void used_for(std::int64_t count);

 private:
  friend class WorkspaceLease;
  const void *thread_ = nullptr;  // the last one
  Workspace *next_ = nullptr;     // of those that nobody has
  int smaller_calls_ = 0;
};

// One for a call: if it can be, that which this thread had before.
class WorkspaceLease {
 public:
  WorkspaceLease();
  ~WorkspaceLease();
  WorkspaceLease(const WorkspaceLease &) = delete;
  WorkspaceLease &operator=(const WorkspaceLease &) = delete;
  Workspace &operator*() const { return *workspace_; }

 private:
  Workspace *workspace_;
};

}  // namespace adamw
