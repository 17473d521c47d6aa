// Owns the bookkeeping of a pager: its buffers and its budget, and what becomes of them in a fork. Knows no way of
// moving bytes.
#include "pager.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <limits>

#include "../status.h"

namespace adamw {
namespace {

// ---- fork ----

// All pagers of the process, so that a child can take what it inherits out of its parent's hands.
struct Living {
  std::mutex mutex;
  std::vector<Pager *> pagers;
};
Living &living() {
  static auto *all = new Living;  // never destroyed: a fork may come at any time
  return *all;
}

void in_child() {
  for (Pager *pager : living().pagers) pager->after_fork();
  living().mutex.unlock();
}

void watch_forks() {
  static const int once = pthread_atfork([] { living().mutex.lock(); }, [] { living().mutex.unlock(); }, in_child);
  static_cast<void>(once);
}

void count_place(adamw_pager_statistics &s, const Buffer &buffer) {
  std::int64_t *const fields[] = {&s.host_bytes, &s.file_bytes, &s.pinned_bytes, &s.managed_bytes, &s.device_bytes};
  *fields[buffer.place] += buffer.bytes;
}

}  // namespace

// ---- life ----

adamw_status Pager::open(const char *function, MakeBacking make) {
  process_ = getpid();
  if (adamw_status s = make(function, options_, counts_, &backing_)) return s;
  const bool unlimited = options_.backing == ADAMW_PLACE_MANAGED && options_.resident_bytes == 0;
  budget_ = unlimited ? std::numeric_limits<std::int64_t>::max()
                      : std::max<std::int64_t>(0, options_.resident_bytes - backing_->windows_bytes());
  watch_forks();
  const std::lock_guard<std::mutex> lock(living().mutex);
  living().pagers.push_back(this);
  return ADAMW_OK;
}

Pager::~Pager() {
  const std::lock_guard<std::mutex> lock(living().mutex);
  auto &all = living().pagers;
  all.erase(std::remove(all.begin(), all.end(), this), all.end());
}

bool Pager::is_forked() const { return pages() && getpid() != process_; }

adamw_status Pager::refuse_fork(const char *function) const {
  if (!is_forked()) return ADAMW_OK;
  return fail(ADAMW_ERROR_UNSUPPORTED,
              "%s: this pager was made by process %ld, before the fork to this process: make another here", function,
              process_);
}

// ---- buffers ----

adamw_status Pager::allocate(const char *function, std::int64_t bytes, void **memory, std::int32_t *place) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::lock_guard<std::mutex> lock(mutex_);
  Buffer buffer;
  buffer.bytes = bytes;
  const std::int64_t whole = round_up(bytes, page_bytes);
  buffer.resident = pages() && whole <= budget_;
  if (adamw_status s = backing_->allocate(function, &buffer)) return s;
  try {
    buffers_.emplace(number(buffer.memory), buffer);
  } catch (...) {
    backing_->free(buffer);
    throw;
  }
  if (buffer.resident) take_budget(whole);
  *memory = buffer.memory;
  if (place != nullptr) *place = buffer.place;
  return ADAMW_OK;
}

void Pager::take_budget(std::int64_t bytes) {
  if (options_.backing == ADAMW_PLACE_MANAGED && options_.resident_bytes == 0) return;  // no limit
  budget_ -= bytes;
  if (options_.backing != ADAMW_PLACE_MANAGED) counts_.add_resident(bytes);
}

adamw_status Pager::free(const char *function, void *memory) {
  // In a child of fork() another thread may have held the locks, and none is there now.
  const bool forked = is_forked();
  std::unique_lock<std::mutex> session(sessions_, std::defer_lock), lock(mutex_, std::defer_lock);
  if (!forked) std::lock(session, lock);
  const auto it = buffers_.find(number(memory));
  if (it == buffers_.end())
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p is no buffer of this pager", function, memory);
  for (const Held &held : held_) {
    if (held.loan.pieces[0].buffer == &it->second && held.arrived)
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p is acquired: release it first", function, memory);
  }
  if (!forked) {
    if (adamw_status s = drop_fetched(function, nullptr)) return s;
  }
  if (it->second.resident) take_budget(-round_up(it->second.bytes, page_bytes));
  backing_->free(it->second);
  buffers_.erase(it);
  return ADAMW_OK;
}

const Buffer *Pager::find(const void *address) const {
  auto it = buffers_.upper_bound(number(address));
  if (it == buffers_.begin()) return nullptr;
  --it;
  return number(address) - it->first < static_cast<std::uintptr_t>(it->second.bytes) ? &it->second : nullptr;
}

adamw_status Pager::check_stretch(const char *function, const void *address, std::int64_t bytes,
                                  const Buffer **buffer) const {
  const Buffer *b = find(address);
  if (b == nullptr)
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: address = %p is in no buffer of this pager", function, address);
  const auto offset = static_cast<std::int64_t>(number(address) - number(b->memory));
  if (bytes < 1 || bytes > b->bytes - offset) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: bytes = %" PRId64 ": must be in 1 ... %" PRId64 ", the rest of the buffer", function, bytes,
                b->bytes - offset);
  }
  *buffer = b;
  return ADAMW_OK;
}

adamw_status Pager::statistics(adamw_pager_statistics *out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  adamw_pager_statistics s{};
  s.buffers = static_cast<std::int64_t>(buffers_.size());
  for (const auto &entry : buffers_) count_place(s, entry.second);
  s.resident_bytes = counts_.resident;
  s.resident_peak_bytes = counts_.resident_peak;
  s.bytes_in = counts_.in;
  s.bytes_out = counts_.out;
  s.wait_ns = counts_.wait_ns;
  s.faults_avoided = counts_.faults;
  *out = s;
  return ADAMW_OK;
}

adamw_status Pager::wait(const char *function) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::lock_guard<std::mutex> session(sessions_);
  return backing_->wait(function);
}

}  // namespace adamw
