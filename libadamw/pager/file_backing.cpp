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
#include <deque>
#include <thread>
#include <utility>

#include "../status.h"
#include "file.h"
#include "pager.h"

namespace adamw {
namespace {

struct Region {  // of the file, behind a buffer
  std::int64_t offset, bytes;
  // Pages that could not be written: memory of this process has taken their place in the mapping.
  std::map<std::int64_t, std::int64_t> kept;  // offset in the buffer to bytes
};

// A stretch of the file, of one buffer or of several that lie side by side.
struct Extent {
  std::int64_t offset, bytes, at;  // at: in the window
};

struct Window {
  char *memory = nullptr;
  enum { idle, reading, ready, writing } state = idle;
  std::vector<Extent> extents;
  std::vector<Piece> pieces;
  int error = 0;  // of reading
};

struct Request {
  Window *window;
  std::vector<Piece> pieces;
};

class FileBacking final : public Backing {
 public:
  FileBacking(const PagerOptions &options, PagerCounts &counts) : Backing(counts), chunk_(options.chunk_bytes) {}

  ~FileBacking() override {
    if (forked_) {  // the threads stayed with the parent: nobody to join, and nobody who ceases to wait
      static_cast<void>(changed_.release());
      for (std::thread &thread : threads_) new std::thread(std::move(thread));
    } else {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
      }
      changed_->notify_all();
      for (std::thread &thread : threads_)
        if (thread.joinable()) thread.join();
    }
    for (Window &window : windows_)
      if (window.memory != nullptr) unmap_memory(window.memory, chunk_);
  }

  adamw_status open(const char *function, const PagerOptions &options) {
    return file_.open(function, options.directory, options.reserve_bytes);
  }

  std::int64_t windows_bytes() const override { return page_windows * chunk_; }

  // ---- buffers ----

  adamw_status allocate(const char *function, Buffer *buffer) override {
    const auto none = [&] {
      return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no memory for a buffer of %" PRId64 " bytes: %s", function,
                  buffer->bytes, std::strerror(errno));
    };
    if (buffer->resident) {
      buffer->memory = map_memory(buffer->bytes);
      buffer->place = ADAMW_PLACE_HOST;
      return buffer->memory != nullptr ? ADAMW_OK : none();
    }
    auto region = std::make_unique<Region>();
    region->bytes = round_up(buffer->bytes, page_bytes);
    if (adamw_status s = file_.take(function, region->bytes, &region->offset)) return s;
    void *memory = mmap(nullptr, static_cast<std::size_t>(region->bytes), PROT_READ | PROT_WRITE, MAP_SHARED,
                        file_.descriptor(), region->offset);
    if (memory == MAP_FAILED) {
      const adamw_status s = none();
      file_.give_back(region->offset, region->bytes);
      return s;
    }
    buffer->memory = memory;
    buffer->place = ADAMW_PLACE_FILE;
    buffer->own = region.get();
    regions_[memory] = std::move(region);
    return ADAMW_OK;
  }

  void free(Buffer &buffer) override {
    unmap_memory(buffer.memory, buffer.bytes);
    if (buffer.own == nullptr) return;
    const auto it = regions_.find(buffer.memory);
    if (!forked_) file_.give_back(it->second->offset, it->second->bytes);
    regions_.erase(it);
  }

  bool moves(const Buffer &buffer) const override { return buffer.own != nullptr; }

  // The parent goes on with the file: what the child has inherited becomes a private copy, page by page as it is
  // written.
  void forked() override {
    forked_ = true;
    for (const auto &entry : regions_) {  // C++17 lets no lambda capture a structured binding, and clang heeds that
      char *const memory = static_cast<char *>(entry.first);
      const auto &region = entry.second;
      std::int64_t at = 0;
      const auto make_private = [&](std::int64_t end) {
        if (end > at) {
          mmap(memory + at, static_cast<std::size_t>(end - at), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED,
               file_.descriptor(), region->offset + at);
        }
      };
      for (const auto &[begin, bytes] : region->kept) {
        make_private(begin);
        at = begin + bytes;
      }
      make_private(region->bytes);
    }
  }

  // ---- windows ----

  adamw_status begin(const char *function, void *) override {
    if (windows_[0].memory != nullptr) return ADAMW_OK;
    for (Window &window : windows_) {
      window.memory = static_cast<char *>(map_memory(chunk_));
      if (window.memory == nullptr) {
        for (Window &w : windows_)
          if (w.memory != nullptr) unmap_memory(w.memory, chunk_), w.memory = nullptr;
        return fail(ADAMW_ERROR_OUT_OF_MEMORY, "%s: no memory for %d windows of %" PRId64 " bytes", function,
                    page_windows, chunk_);
      }
    }
    counts_.add_resident(windows_bytes());
    threads_[0] = std::thread([this] { serve_reads(); });
    threads_[1] = std::thread([this] { serve_writes(); });
    return ADAMW_OK;
  }

  adamw_status fetch(const char *function, Loan &loan, void *stream) override {
    if (adamw_status s = begin(function, stream)) return s;
    const std::lock_guard<std::mutex> lock(mutex_);
    reads_.push_back({&windows_[loan.window], loan.pieces});
    changed_->notify_all();
    return ADAMW_OK;
  }

  adamw_status arrive(const char *function, Loan &loan, void *) override {
    Window &window = windows_[loan.window];
    std::unique_lock<std::mutex> lock(mutex_);
    await(lock, [&] { return window.state == Window::ready; });
    if (window.error != 0) {
      window.state = Window::idle;
      return fail(ADAMW_ERROR_STORAGE, "%s: the file in %s cannot be read: %s", function, file_.directory().c_str(),
                  std::strerror(window.error));
    }
    loan.pieces = window.pieces;
    return ADAMW_OK;
  }

  adamw_status give_back(const char *function, Loan &loan, bool dirty, void *) override {
    Window &window = windows_[loan.window];
    const std::lock_guard<std::mutex> lock(mutex_);
    window.state = dirty ? Window::writing : Window::idle;
    if (dirty) writes_.push_back(&window);
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

 private:
  template <class Condition>
  void await(std::unique_lock<std::mutex> &lock, const Condition &condition) {
    if (condition()) return;
    const auto begin = std::chrono::steady_clock::now();
    changed_->wait(lock, condition);
    counts_.wait_ns +=
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - begin).count();
  }

  adamw_status cannot_write(const char *function, int error) const {
    return fail(ADAMW_ERROR_STORAGE,
                "%s: the file in %s cannot be written: %s; what it should have taken is kept in memory", function,
                file_.directory().c_str(), std::strerror(error));
  }

  static const Region &region_of(const Piece &piece) { return *static_cast<const Region *>(piece.buffer->own); }
  static std::int64_t offset_in_buffer(const Piece &piece) {
    return static_cast<const char *>(piece.home) - static_cast<const char *>(piece.buffer->memory);
  }

  // Where in the window each piece lies: as in the file, neighbours side by side, so that few calls move many pieces,
  // and pages begin at pages. What is beyond a buffer's end, up to that of its page, is nobody else's and moves with
  // it.
  static void lay_out(Window &window) {
    struct Item {
      std::int64_t begin, end;
      Piece *piece;
    };
    std::vector<Item> items;
    for (Piece &piece : window.pieces) {
      const std::int64_t at = offset_in_buffer(piece), begin = region_of(piece).offset + at;
      const bool last = at + piece.bytes == piece.buffer->bytes;
      items.push_back({begin, last ? round_up(begin + piece.bytes, page_bytes) : begin + piece.bytes, &piece});
    }
    std::sort(items.begin(), items.end(), [](const Item &a, const Item &b) { return a.begin < b.begin; });
    window.extents.clear();
    std::int64_t at = 0;
    for (const Item &item : items) {
      if (window.extents.empty() || window.extents.back().offset + window.extents.back().bytes != item.begin) {
        at = round_up(at, page_bytes) + item.begin % page_bytes;
        window.extents.push_back({item.begin, 0, at});
      }
      item.piece->usable = window.memory + at;
      window.extents.back().bytes += item.end - item.begin;
      at += item.end - item.begin;
    }
  }

  // ---- the two threads ----

  void serve_reads() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_->wait(lock, [&] { return stop_ || (!reads_.empty() && reads_.front().window->state == Window::idle); });
      if (stop_) return;
      Window &window = *reads_.front().window;
      window.pieces = std::move(reads_.front().pieces);
      reads_.pop_front();
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
      Window &window = *writes_.front();
      writes_.pop_front();
      lock.unlock();
      const int error = write(window);
      lock.lock();
      if (error != 0) write_error_ = error;
      window.state = Window::idle;
      changed_->notify_all();
    }
  }

  void read(Window &window) {
    lay_out(window);
    window.error = 0;
    for (const Extent &e : window.extents) {
      if ((window.error = file_.read(window.memory + e.at, e.bytes, e.offset)) != 0) break;
      counts_.came_in(e.bytes);
    }
    for (const Piece &piece : window.pieces)
      with_kept(piece, [](char *home, char *usable, std::int64_t bytes) {
        std::memcpy(usable, home, static_cast<std::size_t>(bytes));
      });
  }

  int write(const Window &window) {
    int error = 0;
    for (const Extent &e : window.extents) {
      if ((error = file_.write(window.memory + e.at, e.bytes, e.offset)) != 0) break;
      counts_.out += e.bytes;
    }
    for (const Piece &piece : window.pieces) {
      if (error != 0) keep(piece);
      with_kept(piece, [](char *home, char *usable, std::int64_t bytes) {
        std::memcpy(home, usable, static_cast<std::size_t>(bytes));
      });
    }
    return error;
  }

  // body(home, usable, bytes) for what of a piece is kept in memory instead of the file.
  template <class Body>
  void with_kept(const Piece &piece, const Body &body) {
    const std::lock_guard<std::mutex> lock(kept_mutex_);
    const std::int64_t begin = offset_in_buffer(piece), end = begin + piece.bytes;
    for (const auto &[at, bytes] : region_of(piece).kept) {
      const std::int64_t from = std::max(at, begin), to = std::min(at + bytes, end);
      if (from < to)
        body(static_cast<char *>(piece.home) + (from - begin), static_cast<char *>(piece.usable) + (from - begin),
             to - from);
    }
  }

  // Puts memory of the process in the place of a piece's pages in the mapping. The rest of its first and last page is
  // carried over as far as it can still be read.
  void keep(const Piece &piece) {
    const std::lock_guard<std::mutex> lock(kept_mutex_);
    auto &region = *static_cast<Region *>(piece.buffer->own);
    const std::int64_t at = offset_in_buffer(piece);
    const std::int64_t first = at / page_bytes * page_bytes, last = round_up(at + piece.bytes, page_bytes);
    for (std::int64_t page = first; page < last; page += page_bytes) {
      const auto after = region.kept.upper_bound(page);
      if (after != region.kept.begin() && std::prev(after)->first + std::prev(after)->second > page) continue;
      char carried[page_bytes] = {};
      const bool shared = page < at || (page + page_bytes > at + piece.bytes && at + piece.bytes < piece.buffer->bytes);
      if (shared) file_.read(carried, page_bytes, region.offset + page);
      char *view = static_cast<char *>(piece.buffer->memory) + page;
      mmap(view, static_cast<std::size_t>(page_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
           -1, 0);
      if (shared) std::memcpy(view, carried, sizeof carried);
      region.kept[page] = page_bytes;
    }
  }

  const std::int64_t chunk_;
  PrivateFile file_;
  std::map<void *, std::unique_ptr<Region>> regions_;
  Window windows_[page_windows];
  std::thread threads_[2];
  std::mutex kept_mutex_;  // of the regions' `kept`
  std::mutex mutex_;       // of all below, and of the windows' states
  std::unique_ptr<std::condition_variable> changed_ = std::make_unique<std::condition_variable>();
  std::deque<Request> reads_;
  std::deque<Window *> writes_;
  int write_error_ = 0;
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
