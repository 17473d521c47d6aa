// Owns the bookkeeping of a pager: its buffers and its budget, and what becomes of them in a fork. Knows no way of
// moving bytes.
#include "pager.h"

#include <algorithm>
#include <cinttypes>
#include <limits>

#include "../platform.h"
#include "../status.h"

namespace adamw {
namespace {

// All pagers of the process, for forks.
std::mutex all_mutex;
Pager *first_pager = nullptr;

[[maybe_unused]] const int watches_forks =
    at_fork(Pager::before_fork, [] { Pager::after_fork(false); }, [] { Pager::after_fork(true); });

}  // namespace

// ---- life ----

adamw_status Pager::open(const char *function, MakesBacking *make) {
  process_ = process_number();
  if (adamw_status s = make(function, options_, counts_, &backing_)) return s;
  limited_ = !traits_.is(unlimited_budget) || options_.resident_bytes != 0;
  budget_ = limited_ ? std::max<std::int64_t>(0, options_.resident_bytes - backing_->windows_bytes())
                     : std::numeric_limits<std::int64_t>::max();
  const std::lock_guard<std::mutex> lock(all_mutex);
  next_ = first_pager;
  if (next_ != nullptr) next_->before_ = this;
  first_pager = this;
  listed_ = true;
  return ADAMW_OK;
}

Pager::~Pager() {
  if (!listed_) return;
  const std::lock_guard<std::mutex> lock(all_mutex);
  (before_ != nullptr ? before_->next_ : first_pager) = next_;
  if (next_ != nullptr) next_->before_ = before_;
}

// ---- fork ----

// No call is under way in the moment of the fork, so the child finds everything as it is between calls; and the locks,
// which are this thread's, are so in the child, too.
void Pager::before_fork() {
  all_mutex.lock();
  for (Pager *pager = first_pager; pager != nullptr; pager = pager->next_) {
    pager->sessions_.lock();
    pager->mutex_.lock();
    pager->backing_->before_fork();
  }
}

void Pager::after_fork(bool in_child) {
  for (Pager *pager = first_pager; pager != nullptr; pager = pager->next_) {
    pager->backing_->after_fork(in_child);
    pager->mutex_.unlock();
    pager->sessions_.unlock();
  }
  all_mutex.unlock();
}

bool Pager::is_forked() const { return pages() && process_number() != process_; }

adamw_status Pager::refuse_fork(const char *function) const {
  if (!is_forked()) return ADAMW_OK;
  return fail(ADAMW_ERROR_UNSUPPORTED,
              "%s: process %ld made this pager before this process was forked: make another pager here", function,
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
  count(buffer, 1);
  *memory = buffer.memory;
  if (place != nullptr) *place = buffer.place;
  return ADAMW_OK;
}

void Pager::take_budget(std::int64_t bytes) {
  if (!limited_) return;
  budget_ -= bytes;
  if (!traits_.is(counts_residents)) counts_.add_resident(bytes);
}

bool Pager::empty() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return buffers_.empty();
}

void Pager::count(const Buffer &buffer, int sign) { held_.*traits_of(buffer.place).bytes += sign * buffer.bytes; }

adamw_status Pager::free(const char *function, void *memory) {
  const std::scoped_lock locks(sessions_, mutex_);
  const auto it = buffers_.find(number(memory));
  if (it == buffers_.end())
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p is not a buffer of this pager", function, memory);
  const Buffer &buffer = it->second;
  for (const Loan &loan : acquired_) {
    if (!loan.pieces.empty() && loan.pieces[0].buffer == &buffer)
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p is acquired: release it first", function, memory);
  }
  if (buffer.resident) take_budget(-round_up(buffer.bytes, page_bytes));
  count(buffer, -1);
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

adamw_status Pager::statistics(const char *function, adamw_pager_statistics *out) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::lock_guard<std::mutex> lock(mutex_);
  adamw_pager_statistics s = held_;
  s.buffers = static_cast<std::int64_t>(buffers_.size());
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
