// Owns state in a file: buffers are mappings of it, windows are read and written by two threads beside the caller's.
// Knows no tensors.
//
// Programs use the mapping, steps the file itself: so a disk that fails is an error that can be reported (in a mapping
// it is SIGBUS), no more is in memory than the windows, and nothing is copied twice. Within a step no byte is used both
// ways.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cinttypes>
#include <condition_variable>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "../platform.h"
#include "../status.h"
#include "file_windows.h"

namespace adamw {
namespace {

class FileBacking final : public Backing {
 public:
  FileBacking(const PagerOptions &options, PagerCounts &counts) : Backing(counts), chunk_(options.chunk_bytes) {}

  ~FileBacking() override {
    if (forked_) {  // the threads stayed with the parent: nobody to join, and nobody who ceases to wait
      static_cast<void>(changed_.release());
      for (std::thread &thread : threads_) static_cast<void>(new std::thread(std::move(thread)));
    } else {
      stop_threads();
    }
    unmap_windows();
  }

  adamw_status open(const char *function, const PagerOptions &options) {
    return arenas_.open(function, options.directory, options.reserve_bytes);
  }

  std::int64_t windows_bytes() const override { return page_windows * chunk_; }

  // ---- buffers ----

  adamw_status allocate(const char *function, Buffer *buffer) override {
    if (buffer->resident) return allocate_host(function, buffer);
    Arena *arena = nullptr;
    if (adamw_status s = arenas_.take(function, buffer->bytes, &buffer->memory, &arena)) return s;
    buffer->place = ADAMW_PLACE_FILE;
    buffer->own = arena;
    return ADAMW_OK;
  }

  void free(Buffer &buffer) override {
    if (buffer.own == nullptr) return free_host(buffer);
    arenas_.give_back(static_cast<Arena *>(buffer.own), buffer.memory, buffer.bytes);
  }

  bool moves(const Buffer &buffer) const override { return buffer.own != nullptr; }

  // ---- fork ----

  void before_fork() override {
    mutex_.lock();
    arenas_.before_fork();
  }
  void after_fork(bool in_child) override {
    forked_ = forked_ || in_child;
    arenas_.after_fork(in_child);
    mutex_.unlock();
  }
  adamw_status thaw(const char *function) override { return arenas_.thaw(function); }

  // ---- windows ----

  adamw_status begin(const char *function, void *) override {
    if (windows_[0].memory != nullptr) return ADAMW_OK;
    for (Window &window : windows_) {
      window.memory = static_cast<char *>(map_memory(room()));
      if (window.memory != nullptr) continue;
      const int error = errno;
      unmap_windows();
      return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no memory for %d windows of %" PRId64 " bytes: %s", function,
                  page_windows, chunk_, std::strerror(error));
    }
    try {
      // What a thread begins with. The library's own threads leave signals to the program's; one of them, of a file
      // that may not be so long, would end the process.
      const SignalsBlocked blocked;
      errno = ENOMEM;  // as in cpu/parallel.cpp
      threads_[0] = std::thread([this] { serve_reads(); });
      errno = ENOMEM;
      threads_[1] = std::thread([this] { serve_writes(); });
    } catch (const std::exception &e) {
      stop_threads();
      unmap_windows();
      return fail(ADAMW_ERROR_OUT_OF_MEMORY,
                  "%s: the system gives this process no more threads (%s), but a pager with files needs two: see "
                  "`ulimit -u`, `ulimit -v` and the pids limit of the control group",
                  function, e.what());
    }
    counts_.add_resident(windows_bytes());
    return ADAMW_OK;
  }

  void reserve(std::size_t pieces) override {
    for (Window &window : windows_) {
      window.now.reserve(pieces);
      window.next.reserve(pieces);
    }
    layout_.reserve(pieces);
  }

  adamw_status fetch(const char *function, Loan &loan, void *stream) override {
    if (adamw_status s = begin(function, stream)) return s;
    Window &window = windows_[loan.window];
    window.next.pieces = loan.pieces;
    window.next.cached = loan.alone;  // it may have been prefetched there
    layout_.lay_out(window.next, window.memory);
    if (adamw_status s = share(function, window.next)) return s;
    const std::lock_guard<std::mutex> lock(mutex_);
    reads_.push(window);
    changed_->notify_all();
    return ADAMW_OK;
  }

  adamw_status arrive(const char *function, Loan &loan, void *) override {
    Window &window = windows_[loan.window];
    std::unique_lock<std::mutex> lock(mutex_);
    await(lock, [&] { return window.state == Window::ready; });
    if (window.error != 0) {
      window.state = Window::idle;
      return fail(ADAMW_ERROR_STORAGE, "%s: the file in %s cannot be read: %s", function, arenas_.directory().c_str(),
                  std::strerror(window.error));
    }
    loan.pieces = window.now.pieces;
    return ADAMW_OK;
  }

  adamw_status before_write(const char *function, const Loan &loan) override {
    return share(function, windows_[loan.window].now);
  }

  adamw_status give_back(const char *function, Loan &loan, bool dirty, void *) override {
    Window &window = windows_[loan.window];
    const std::lock_guard<std::mutex> lock(mutex_);
    window.state = dirty ? Window::writing : Window::idle;
    if (dirty) writes_.push(window);
    changed_->notify_all();
    return write_error_ == 0 ? ADAMW_OK : cannot_write(function, write_error_);
  }

  adamw_status end(const char *function, void *) override {
    std::unique_lock<std::mutex> lock(mutex_);
    await(lock, [&] {
      return std::none_of(std::begin(windows_), std::end(windows_),
                          [](const Window &w) { return w.state == Window::writing; });
    });
    const int error = std::exchange(write_error_, 0);
    return error == 0 ? ADAMW_OK : cannot_write(function, error);
  }

  void abandon() override {
    std::unique_lock<std::mutex> lock(mutex_);
    reads_.clear();
    changed_->wait(lock, [&] {
      return std::none_of(std::begin(windows_), std::end(windows_),
                          [](const Window &w) { return w.state == Window::writing || w.state == Window::reading; });
    });
    for (Window &window : windows_) window.state = Window::idle;
    write_error_ = 0;
  }

  adamw_status wait(const char *) override { return ADAMW_OK; }

  // Into the page cache, where whoever reads the mapping or the file finds what is true then.
  void hint(const Piece &piece, void *) override {
    const std::uintptr_t begin = number(piece.home) / page_bytes * page_bytes;
    madvise(reinterpret_cast<void *>(begin), number(piece.home) + static_cast<std::uintptr_t>(piece.bytes) - begin,
            MADV_WILLNEED);
  }

 private:
  // A stretch may begin in the middle of a page.
  std::int64_t room() const { return chunk_ + page_bytes; }

  void unmap_windows() {
    for (Window &window : windows_) {
      if (window.memory != nullptr) unmap_memory(window.memory, room());
      window.memory = nullptr;
    }
  }

  void stop_threads() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    changed_->notify_all();
    for (std::thread &thread : threads_)
      if (thread.joinable()) thread.join();
    stop_ = false;
  }

  // What a call uses of the mappings is the files' again, after a fork.
  adamw_status share(const char *function, const Contents &contents) {
    for (const Extent &e : contents.extents) {
      if (!e.arena->any_private) continue;
      const std::lock_guard<std::mutex> lock(kept_mutex_);
      if (const int error = arenas_.share(*e.arena, e.offset, e.bytes)) {
        return fail(ADAMW_ERROR_STORAGE,
                    "%s: after a fork, state cannot be written to the files in %s: %s; the state is in memory, and "
                    "the next call tries again",
                    function, arenas_.directory().c_str(), std::strerror(error));
      }
    }
    return ADAMW_OK;
  }

  template <class Condition>
  void await(std::unique_lock<std::mutex> &lock, const Condition &condition) {
    if (condition()) return;
    const auto begin = std::chrono::steady_clock::now();
    changed_->wait(lock, condition);
    counts_.wait_ns +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count();
  }

  adamw_status cannot_write(const char *function, int error) const {
    if (lost_ != 0) {
      return fail(ADAMW_ERROR_STORAGE,
                  "%s: the file in %s cannot be written: %s; memory to keep the data is missing, too (%s): the "
                  "data is lost: go back to a checkpoint",
                  function, arenas_.directory().c_str(), std::strerror(error), std::strerror(lost_));
    }
    return fail(ADAMW_ERROR_STORAGE, "%s: the file in %s cannot be written: %s; the data is kept in memory", function,
                arenas_.directory().c_str(), std::strerror(error));
  }

  // ---- the two threads: they need no memory ----

  void serve_reads() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_->wait(lock, [&] { return stop_ || (!reads_.empty() && reads_.front().state == Window::idle); });
      if (stop_) return;
      Window &window = reads_.front();
      reads_.pop();
      std::swap(window.now, window.next);
      window.state = Window::reading;
      lock.unlock();
      read(window);
      lock.lock();
      window.state = Window::ready;
      changed_->notify_all();
    }
  }

  void serve_writes() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_->wait(lock, [&] { return stop_ || !writes_.empty(); });
      if (writes_.empty()) return;
      Window &window = writes_.front();
      writes_.pop();
      lock.unlock();
      const int error = write(window);
      lock.lock();
      if (error != 0) write_error_ = error;
      window.state = Window::idle;
      changed_->notify_all();
    }
  }

  void read(Window &window) {
    window.error = 0;
    for (const Extent &e : window.now.extents) {
      if ((window.error = e.arena->file->read(window.memory + e.at, e.bytes, e.offset, window.now.cached)) != 0) break;
      counts_.came_in(e.bytes);
    }
    for (const Piece &piece : window.now.pieces)
      with_kept(piece, [](char *home, char *usable, std::size_t bytes) { std::memcpy(usable, home, bytes); });
  }

  int write(const Window &window) {
    int error = 0;
    for (const Extent &e : window.now.extents) {
      if ((error = e.arena->file->write(window.memory + e.at, e.bytes, e.offset)) != 0) break;
      counts_.out += e.bytes;
    }
    for (const Piece &piece : window.now.pieces) {
      if (error != 0) {
        const std::lock_guard<std::mutex> lock(kept_mutex_);
        if (const int lost = Arenas::keep(arena_of(piece), offset_of(piece), piece.bytes)) lost_ = lost;
      }
      with_kept(piece, [](char *home, char *usable, std::size_t bytes) { std::memcpy(home, usable, bytes); });
    }
    return error;
  }

  // body(home, usable, bytes) for what of a piece is kept in memory instead of the file.
  template <class Body>
  void with_kept(const Piece &piece, const Body &body) {
    const std::lock_guard<std::mutex> lock(kept_mutex_);
    const Arena &arena = arena_of(piece);
    if (!arena.any_kept) return;
    const std::int64_t begin = offset_of(piece), end = begin + piece.bytes;
    for (std::int64_t from = begin; from < end;) {
      const std::int64_t to = std::min(end, from / page_bytes * page_bytes + page_bytes);
      if (arena.is_kept(from))
        body(static_cast<char *>(piece.home) + (from - begin), static_cast<char *>(piece.usable) + (from - begin),
             static_cast<std::size_t>(to - from));
      from = to;
    }
  }

  const std::int64_t chunk_;
  Arenas arenas_;
  Window windows_[page_windows];
  Layout layout_;
  std::thread threads_[2];
  std::mutex kept_mutex_;  // of what the arenas keep
  std::mutex mutex_;       // of all below, and of the windows' states
  std::unique_ptr<std::condition_variable> changed_ = std::make_unique<std::condition_variable>();
  Queue reads_, writes_;
  int write_error_ = 0;
  std::atomic<int> lost_{0};  // the errno for which something could not be kept
  bool stop_ = false, forked_ = false;
};

}  // namespace

adamw_status file_backing(const char *function, const PagerOptions &options, PagerCounts &counts,
                          std::unique_ptr<Backing> *backing) {
  auto file = std::make_unique<FileBacking>(options, counts);
  if (adamw_status s = file->open(function, options)) return s;
  *backing = std::move(file);
  return ADAMW_OK;
}

}  // namespace adamw
