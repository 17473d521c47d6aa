// Owns the lists of objects that nobody has, see lease.h.
#include "lease.h"

#include <mutex>

#include "platform.h"

namespace adamw {
namespace {

std::mutex mutex;  // of all lists
constexpr int max_idle = 16;

[[maybe_unused]] const int watches_forks =
    at_fork([] { mutex.lock(); }, [] { mutex.unlock(); }, [] { mutex.unlock(); });

thread_local char this_thread;  // its address tells threads apart

}  // namespace

IdleList::Node *IdleList::take() {
  const std::lock_guard<std::mutex> lock(mutex);
  Node **at = &first_;
  while (*at != nullptr && (*at)->thread != &this_thread) at = &(*at)->next;
  if (*at == nullptr) at = &first_;
  Node *const taken = *at;
  if (taken != nullptr) *at = taken->next;
  return taken;
}

IdleList::Node *IdleList::give_back(Node *node) {
  const std::lock_guard<std::mutex> lock(mutex);
  node->thread = &this_thread;
  node->next = first_;
  first_ = node;
  Node **at = &first_;
  for (int i = 0; i < max_idle && *at != nullptr; ++i) at = &(*at)->next;
  Node *const one_too_many = *at;
  if (one_too_many != nullptr) *at = one_too_many->next;
  return one_too_many;
}

}  // namespace adamw
