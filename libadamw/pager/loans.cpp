// Owns the order in which buffers are lent: to a step, window after window, and through the public interface. Knows no
// way of moving bytes.
#include <algorithm>
#include <cinttypes>

#include "../status.h"
#include "pager.h"

namespace adamw {

// ---- to a step ----

Pager::Session::~Session() {
  if (begun_) pager_.backing_->abandon();  // an error has cut the call short: it is the one to report
}

adamw_status Pager::Session::begin() {
  if (adamw_status s = pager_.refuse_fork(function_)) return s;
  for (const Loan &loan : pager_.acquired_) {
    if (loan.pieces.empty()) continue;
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p of options.pager is acquired: release it before a step",
                function_, loan.pieces[0].home);
  }
  pager_.next_window_ = 0;
  {
    const std::lock_guard<std::mutex> lock(pager_.mutex_);  // others allocate
    if (adamw_status s = pager_.backing_->thaw(function_)) return s;
  }
  if (adamw_status s = pager_.backing_->begin(function_, stream_)) return s;
  begun_ = true;
  return ADAMW_OK;
}

adamw_status Pager::Session::end() {
  begun_ = false;
  return pager_.backing_->end(function_, stream_);
}

adamw_status Pager::Session::find(const void *address, std::int64_t bytes, What what, const Buffer **found) const {
  const std::lock_guard<std::mutex> lock(pager_.mutex_);
  *found = nullptr;
  const Buffer *buffer = pager_.find(address);
  if (buffer == nullptr) return ADAMW_OK;
  const auto offset = static_cast<std::int64_t>(number(address) - number(buffer->memory));
  if (bytes > buffer->bytes - offset) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: tensor %" PRId64 ": %s = %p: the %" PRId64 " bytes from there pass the end of the pager's buffer",
                function_, what.row, what.name, address, bytes);
  }
  if (pager_.backing_->moves(*buffer)) *found = buffer;
  return ADAMW_OK;
}

adamw_status Pager::Session::fetch(Loan &loan) {
  if (loan.pieces.empty()) return ADAMW_OK;
  loan.window = pager_.next_window_++ % page_windows;
  return pager_.backing_->fetch(function_, loan, stream_);
}
adamw_status Pager::Session::arrive(Loan &loan) {
  return loan.pieces.empty() ? ADAMW_OK : pager_.backing_->arrive(function_, loan, stream_);
}
adamw_status Pager::Session::give_back(Loan &loan, bool dirty) {
  return loan.pieces.empty() ? ADAMW_OK : pager_.backing_->give_back(function_, loan, dirty, stream_);
}

// ---- through the public interface ----

int Pager::free_window() const {
  return static_cast<int>(
      std::find_if(acquired_, acquired_ + page_windows - 1, [](const Loan &loan) { return loan.pieces.empty(); }) -
      acquired_);
}

// What is used where it lies is used behind the calls before on other streams, and before those to come.
adamw_status Pager::order_in_place(const char *function, void *stream) {
  if (options_.device < 0) return ADAMW_OK;
  if (adamw_status s = backing_->begin(function, stream)) return s;
  return backing_->end(function, stream);
}

adamw_status Pager::prefetch(const char *function, void *address, std::int64_t bytes, void *stream) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::scoped_lock locks(sessions_, mutex_);
  const Buffer *buffer = nullptr;
  if (adamw_status s = check_stretch(function, address, bytes, &buffer)) return s;
  if (backing_->moves(*buffer)) backing_->hint({buffer, address, bytes, nullptr}, stream);
  clear_error();  // it is no more than a hint
  return ADAMW_OK;
}

adamw_status Pager::check_acquired(const char *function, const void *address, std::int64_t bytes) const {
  for (const Loan &loan : acquired_) {
    if (loan.pieces.empty()) continue;
    const Piece &other = loan.pieces[0];
    const std::uintptr_t begin = number(address), others = number(other.home);
    if (begin < others + static_cast<std::uintptr_t>(other.bytes) &&
        others < begin + static_cast<std::uintptr_t>(bytes))
      return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                  "%s: %" PRId64 " bytes at address = %p overlap the %" PRId64
                  " bytes at %p, which are acquired: release those first",
                  function, bytes, address, other.bytes, other.home);
  }
  if (free_window() < page_windows - 1) return ADAMW_OK;
  return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %d byte ranges are already acquired: release one first", function,
              page_windows - 1);
}

adamw_status Pager::acquire(const char *function, void *address, std::int64_t bytes, void *stream, void **usable) {
  *usable = nullptr;
  if (adamw_status s = refuse_fork(function)) return s;
  const std::scoped_lock locks(sessions_, mutex_);
  const Buffer *buffer = nullptr;
  if (adamw_status s = check_stretch(function, address, bytes, &buffer)) return s;
  if (!backing_->moves(*buffer)) {
    if (adamw_status s = order_in_place(function, stream)) return s;
    *usable = address;
    return ADAMW_OK;
  }
  if (bytes > options_.chunk_bytes) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: bytes = %" PRId64 ": must be at most chunk_bytes = %" PRId64,
                function, bytes, options_.chunk_bytes);
  }
  if (adamw_status s = check_acquired(function, address, bytes)) return s;
  if (adamw_status s = backing_->thaw(function)) return s;
  const int window = free_window();
  Loan loan{{{buffer, address, bytes, nullptr}}, window, true};
  if (adamw_status s = backing_->fetch(function, loan, stream)) return s;
  if (adamw_status s = backing_->arrive(function, loan, stream)) return s;
  *usable = loan.pieces[0].usable;
  acquired_[window] = std::move(loan);
  return ADAMW_OK;
}

adamw_status Pager::release(const char *function, void *usable, bool dirty, void *stream) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::scoped_lock locks(sessions_, mutex_);
  Loan *const end = acquired_ + page_windows;
  Loan *const loan =
      std::find_if(acquired_, end, [&](const Loan &l) { return !l.pieces.empty() && l.pieces[0].usable == usable; });
  if (loan == end) {
    if (find(usable) != nullptr) return order_in_place(function, stream);  // used where it lies
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: usable = %p is not acquired", function, usable);
  }
  if (dirty) {
    if (adamw_status s = backing_->thaw(function)) return s;  // it stays acquired
    if (adamw_status s = backing_->before_write(function, *loan)) return s;
  }
  const adamw_status given_back = backing_->give_back(function, *loan, dirty, stream);
  loan->pieces.clear();
  return given_back != ADAMW_OK ? given_back : backing_->end(function, stream);
}

}  // namespace adamw
