// Owns the page manager's inside: buffers and where they lie, windows that state is brought in through, counts. A
// backing says how bytes move. Knows memory; knows no tensors and no arithmetic on them.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../../include/adamw.h"
#include "places.h"

namespace adamw {

constexpr std::int64_t page_bytes = 4096;  // what files are read and written in, and faults are counted in
constexpr int page_windows = 4;            // one is used, one is written, two are read ahead
constexpr std::int64_t smallest_chunk = std::int64_t{64} << 10;

constexpr std::int64_t round_up(std::int64_t bytes, std::int64_t unit) { return (bytes + unit - 1) / unit * unit; }
inline std::uintptr_t number(const void *address) { return reinterpret_cast<std::uintptr_t>(address); }
// What a stretch that begins at a multiple of `unit` bytes takes of a window at most: its first and last page may be
// shared with others.
constexpr std::int64_t cost_of(std::int64_t bytes, std::int64_t unit) {
  return round_up(bytes + page_bytes - unit, page_bytes);
}

struct PagerOptions {
  adamw_place backing;
  std::int32_t device;
  std::int64_t resident_bytes, chunk_bytes, reserve_bytes;  // chunk_bytes: decided
  std::string directory;
};

// Several threads count.
struct PagerCounts {
  std::atomic<std::int64_t> resident{0}, resident_peak{0}, in{0}, out{0}, wait_ns{0}, faults{0};

  void add_resident(std::int64_t bytes) {
    const std::int64_t now = resident += bytes;
    std::int64_t peak = resident_peak;
    while (now > peak && !resident_peak.compare_exchange_weak(peak, now)) {
    }
  }
  void came_in(std::int64_t bytes) {
    in += bytes;
    faults += round_up(bytes, page_bytes) / page_bytes;
  }
};

struct Buffer {
  void *memory = nullptr;
  std::int64_t bytes = 0;  // as asked for
  adamw_place place = ADAMW_PLACE_HOST;
  bool resident = false;              // in fast memory
  void *own = nullptr;                // the backing's
  mutable std::int64_t brought = -1;  // the backing's: the call that brought it in
};

// A stretch of one buffer.
struct Piece {
  const Buffer *buffer;
  void *home;
  std::int64_t bytes;
  void *usable;  // from arrive() to give_back()
};

// Stretches that one window holds.
struct Loan {
  std::vector<Piece> pieces;
  int window = -1;     // -1: it needs none
  bool alone = false;  // through the public interface, not one of many in a step
};

// How bytes move. Functions that take a Loan are called by one thread at a time, in the order fetch, arrive, give_back;
// `function` begins error messages. A stream is a CUDA stream, null on the CPU.
class Backing {
 public:
  explicit Backing(PagerCounts &counts) : counts_(counts) {}
  virtual ~Backing() = default;
  Backing(const Backing &) = delete;
  Backing &operator=(const Backing &) = delete;

  // Fast memory that windows take from the budget.
  virtual std::int64_t windows_bytes() const = 0;
  // Memory for a buffer of `bytes` zeros, `resident` or not: sets memory, place and own.
  virtual adamw_status allocate(const char *function, Buffer *buffer) = 0;
  virtual void free(Buffer &buffer) = 0;
  // false: the buffer is used where it lies, and is never in a loan.
  virtual bool moves(const Buffer &buffer) const = 0;

  // Has the memory for loans of so many pieces, so that those of a step need none.
  virtual void reserve(std::size_t) {}

  // Around the loans of a call.
  virtual adamw_status begin(const char *function, void *stream) = 0;
  virtual adamw_status end(const char *function, void *stream) = 0;  // what was written is safe, or the error
  // Starts to bring in what may be on its way for long; the window is free, or about to be.
  virtual adamw_status fetch(const char *function, Loan &loan, void *stream) = 0;
  // Sets `usable` of each piece.
  virtual adamw_status arrive(const char *function, Loan &loan, void *stream) = 0;
  // Of a loan that is alone, since there may have been a fork in its time. After an error it is as it was.
  virtual adamw_status before_write(const char *, const Loan &) { return ADAMW_OK; }
  // Starts to take back what was written. After an error, of these bytes or of earlier ones, they are safe all the
  // same, in memory of their own.
  virtual adamw_status give_back(const char *function, Loan &loan, bool dirty, void *stream) = 0;

  // After an error, instead of end(): forgets the loans that are out, what was given back excepted.
  virtual void abandon() = 0;

  // What programs see in buffers is what steps have left there.
  virtual adamw_status wait(const char *function) = 0;
  // It will be acquired soon. Whatever this does, what is acquired then is what the buffer holds then.
  virtual void hint(const Piece &, void *) {}

  // Around fork(), while no other call runs: the child's buffers become its own copies. In the parent thaw() comes
  // before anything is moved: what may be written may have to be elsewhere now.
  virtual void before_fork() {}
  virtual void after_fork(bool) {}
  virtual adamw_status thaw(const char *) { return ADAMW_OK; }

 protected:
  PagerCounts &counts_;
};

class Pager {
 public:
  explicit Pager(const PagerOptions &options) : options_(options), traits_(traits_of(options.backing)) {}
  ~Pager();
  Pager(const Pager &) = delete;
  Pager &operator=(const Pager &) = delete;

  adamw_status open(const char *function, MakesBacking *make);  // once, before anything else
  const PagerOptions &options() const { return options_; }

  adamw_status allocate(const char *function, std::int64_t bytes, void **memory, std::int32_t *place);
  adamw_status free(const char *function, void *memory);
  bool empty();
  adamw_status statistics(const char *function, adamw_pager_statistics *out);
  adamw_status wait(const char *function);

  // Loans of the public interface, a piece each.
  adamw_status acquire(const char *function, void *address, std::int64_t bytes, void *stream, void **usable);
  adamw_status release(const char *function, void *usable, bool dirty, void *stream);
  adamw_status prefetch(const char *function, void *address, std::int64_t bytes, void *stream);

  // Whether anything here has to be brought in at all.
  bool pages() const { return traits_.is(brought_in); }

  // A call that lends: from begin() to end() no other thread's does, and buffers stay. end() waits for what is written.
  class Session {
   public:
    Session(Pager &pager, const char *function, void *stream)
        : pager_(pager), function_(function), stream_(stream), lock_(pager.sessions_) {}
    ~Session();
    adamw_status begin();
    void reserve(std::size_t pieces) { pager_.backing_->reserve(pieces); }  // of a loan, at most
    adamw_status end();
    // For messages: a buffer of a row.
    struct What {
      std::int64_t row;
      const char *name;
    };
    // The buffer that has what is at `address`; null if none has that moves. Fails where it passes the buffer's end.
    adamw_status find(const void *address, std::int64_t bytes, What what, const Buffer **buffer) const;
    // Each takes the next window in turn. No more than page_windows loans at a time.
    adamw_status fetch(Loan &loan);
    adamw_status arrive(Loan &loan);
    adamw_status give_back(Loan &loan, bool dirty);
    std::int64_t chunk_bytes() const { return pager_.options_.chunk_bytes; }

   private:
    Pager &pager_;
    const char *const function_;
    void *const stream_;
    std::unique_lock<std::mutex> lock_;
    bool begun_ = false;
  };

  // In a child of fork(): threads of the parent are not here, and its files are its own.
  bool is_forked() const;

  // Around fork(), of all pagers of the process.
  static void before_fork();
  static void after_fork(bool in_child);

 private:
  adamw_status refuse_fork(const char *function) const;
  void take_budget(std::int64_t bytes);
  void count(const Buffer &buffer, int sign);
  const Buffer *find(const void *address) const;
  adamw_status check_stretch(const char *function, const void *address, std::int64_t bytes,
                             const Buffer **buffer) const;
  int free_window() const;  // page_windows: none
  adamw_status check_acquired(const char *function, const void *address, std::int64_t bytes) const;
  adamw_status order_in_place(const char *function, void *stream);

  PagerOptions options_;
  PlaceTraits traits_;  // of the backing
  PagerCounts counts_;
  std::unique_ptr<Backing> backing_;
  std::mutex sessions_;  // taken first
  std::mutex mutex_;     // buffers_, budget_
  std::map<std::uintptr_t, Buffer> buffers_;
  bool limited_ = true;          // by the budget
  std::int64_t budget_ = 0;      // left for resident buffers
  Loan acquired_[page_windows];  // without pieces: none
  int next_window_ = 0;
  long process_ = 0;
  adamw_pager_statistics held_{};              // of buffers and where they lie; the rest is in counts_
  Pager *next_ = nullptr, *before_ = nullptr;  // of all pagers of the process
  bool listed_ = false;                        // among these
};

// A buffer in ordinary memory, 64-byte units or whole pages.
adamw_status allocate_host(const char *function, Buffer *buffer);
void free_host(const Buffer &buffer);

}  // namespace adamw

struct adamw_pager final : adamw::Pager {
  using Pager::Pager;
};
