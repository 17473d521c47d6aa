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
  for (const Held &held : pager_.held_) {
    if (held.arrived) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %p of options.pager is acquired: release it before a step",
                  function_, held.loan.pieces[0].home);
    }
  }
  pager_.next_window_ = 0;
  if (adamw_status s = pager_.backing_->begin(function_, stream_)) return s;  // first: it may refuse the stream
  begun_ = true;
  return pager_.drop_fetched(function_, stream_);
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
                "%s: row %" PRId64 ": %s = %p: %" PRId64 " bytes from there pass the end of its buffer of the pager",
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
  bool taken[page_windows] = {};
  for (const Held &held : held_) taken[held.loan.window] = true;
  return static_cast<int>(std::find(taken, taken + page_windows, false) - taken);
}

// What was fetched, and not acquired since, makes room.
adamw_status Pager::drop_fetched(const char *function, void *stream) {
  for (std::size_t i = held_.size(); i-- > 0;) {
    if (held_[i].arrived) continue;
    Loan loan = std::move(held_[i].loan);
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(i));
    if (adamw_status s = backing_->arrive(function, loan, stream)) return s;
    if (adamw_status s = backing_->give_back(function, loan, false, stream)) return s;
  }
  return ADAMW_OK;
}

adamw_status Pager::hold(const char *function, const Piece &piece, void *stream) {
  held_.push_back({{{piece}, free_window()}, false});
  const adamw_status s = backing_->fetch(function, held_.back().loan, stream);
  if (s != ADAMW_OK) held_.pop_back();
  return s;
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
  const bool known =
      std::any_of(held_.begin(), held_.end(), [&](const Held &held) { return held.loan.pieces[0].home == address; });
  if (known || !backing_->moves(*buffer) || cost_of(bytes) > options_.chunk_bytes || free_window() == page_windows)
    return ADAMW_OK;  // it is no more than a hint
  return hold(function, {buffer, address, bytes, nullptr}, stream);
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
  if (cost_of(bytes) > options_.chunk_bytes) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: bytes = %" PRId64 ": must be at most %" PRId64 ", which is chunk_bytes less a page", function,
                bytes, options_.chunk_bytes - page_bytes);
  }
  const auto out = std::count_if(held_.begin(), held_.end(), [](const Held &held) { return held.arrived; });
  if (out >= page_windows - 1) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %d stretches are acquired already: release one first", function,
                page_windows - 1);
  }
  const auto fetched = [&](const Held &held) {
    const Piece &piece = held.loan.pieces[0];
    return !held.arrived && piece.home == address && piece.bytes == bytes;
  };
  if (std::none_of(held_.begin(), held_.end(), fetched)) {
    if (adamw_status s = drop_fetched(function, stream)) return s;
    if (adamw_status s = hold(function, {buffer, address, bytes, nullptr}, stream)) return s;
  }
  const auto held = std::find_if(held_.begin(), held_.end(), fetched);
  if (adamw_status s = backing_->arrive(function, held->loan, stream)) {
    held_.erase(held);
    return s;
  }
  held->arrived = true;
  *usable = held->loan.pieces[0].usable;
  return ADAMW_OK;
}

adamw_status Pager::release(const char *function, void *usable, bool dirty, void *stream) {
  if (adamw_status s = refuse_fork(function)) return s;
  const std::scoped_lock locks(sessions_, mutex_);
  const auto held = std::find_if(held_.begin(), held_.end(),
                                 [&](const Held &h) { return h.arrived && h.loan.pieces[0].usable == usable; });
  if (held == held_.end()) {
    if (find(usable) != nullptr) return order_in_place(function, stream);  // used where it lies
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: usable = %p is not acquired", function, usable);
  }
  Loan loan = std::move(held->loan);
  held_.erase(held);
  if (adamw_status s = backing_->give_back(function, loan, dirty, stream)) return s;
  return backing_->end(function, stream);
}

}  // namespace adamw
