// Owns when a workspace has become too large, see workspace.h.
#include "workspace.h"

#include <algorithm>
#include <new>

namespace adamw {

constexpr std::size_t few_rows = 4096;
constexpr int a_while = 64;  // calls

void Workspace::used_for(std::int64_t count) {
  const std::size_t large = std::max(few_rows, 4 * static_cast<std::size_t>(count));
  smaller_calls_ = rows.capacity() > large ? smaller_calls_ + 1 : 0;
  if (smaller_calls_ < a_while) return;
  try {
    *this = Workspace{};
  } catch (const std::bad_alloc &) {  // even an empty one has some: the call has been made, and the next tries again
  }
}

}  // namespace adamw
