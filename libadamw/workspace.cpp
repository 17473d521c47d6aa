// Owns the workspaces that nobody has, see workspace.h.
#include "workspace.h"

#include <pthread.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <new>

namespace adamw {
namespace {

// They are never destroyed: a step may come after every destructor.
std::mutex mutex;
Workspace *first_idle = nullptr;
constexpr int most_idle = 16;

[[maybe_unused]] const int watches_forks =
    pthread_atfork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });

thread_local char this_thread;  // its address tells threads apart

constexpr std::size_t few_rows = 4096;
constexpr int a_while = 64;  // calls

}  // namespace

void Workspace::used_for(std::int64_t count) {
  const std::size_t large = std::max(few_rows, 4 * static_cast<std::size_t>(count));
  smaller_calls_ = rows.capacity() > large ? smaller_calls_ + 1 : 0;
  if (smaller_calls_ < a_while) return;
  try {
    *this = Workspace{};
  } catch (const std::bad_alloc &) {  // even an empty one has some: the call has been made, and the next tries again
  }
}

WorkspaceLease::WorkspaceLease() {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    Workspace **at = &first_idle;
    while (*at != nullptr && (*at)->thread_ != &this_thread) at = &(*at)->next_;
    if (*at == nullptr) at = &first_idle;
    workspace_ = *at;
    if (workspace_ != nullptr) *at = workspace_->next_;
  }
  if (workspace_ == nullptr) workspace_ = new Workspace;
}

WorkspaceLease::~WorkspaceLease() {
  Workspace *one_too_many = nullptr;
  workspace_->thread_ = &this_thread;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    workspace_->next_ = first_idle;
    first_idle = workspace_;
    Workspace **at = &first_idle;
    for (int i = 0; i < most_idle && *at != nullptr; ++i) at = &(*at)->next_;
    one_too_many = *at;
    if (one_too_many != nullptr) *at = one_too_many->next_;
  }
  delete one_too_many;
}

}  // namespace adamw
