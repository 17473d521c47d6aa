// Owns the fuzzed life of a pager, beside a copy of what each of its buffers must hold.
#include <algorithm>
#include <string>

#include "finding.h"
#include "other_calls.h"
#include "pager_options.h"
#include "resize.h"
#include "step_run.h"

namespace {

struct Held {
  std::uint8_t *at;
  std::int64_t bytes;
  bool moves;                       // lent in a window; else used where it lies
  std::vector<std::uint8_t> holds;  // what its program sees
};
struct Loan {
  std::uint8_t *usable;
  std::size_t buffer;
  std::int64_t offset, bytes;
  bool dirty;
};

class Life {
 public:
  Life(Choices &choices, Memory &memory) : choices_(choices), memory_(memory), random_(choices.bits(4)) {}

  void live() {
    const Telling telling([this] { return "pager: " + story_; });
    if (!create()) return;
    for (int n = 4 + choices_.below(12); n > 0; --n) {
      switch (choices_.below(12)) {
        case 0:
        case 1:
          alloc();
          break;
        case 2:
          write();
          break;
        case 3:
        case 4:
          acquire();
          break;
        case 5:
          release();
          break;
        case 6:
          prefetch();
          break;
        case 7:
          look();
          break;
        case 8:
          free();
          break;
        case 9:
          nobody();
          break;
        default:
          step();
          break;
      }
    }
    end();
  }

 private:
  Choices &choices_;
  Memory &memory_;
  Random random_;
  adamw_pager_options options_ = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager *pager_ = nullptr;
  std::vector<Held> buffers_;
  std::vector<Loan> loans_;
  std::string story_;

  void judge(const char *function, adamw_status status, Statuses errors) {
    ++tally.paged;
    story_ += std::string(" ") + (function + sizeof "adamw_pager") + "=" + std::to_string(status);
    if ((allowed(errors) & only(status)) == 0)
      finding("%s: status %d '%s', allowed: set %#x", function, status, adamw_last_error(), allowed(errors));
  }

  bool create() {
    const Statuses beyond = choose_pager_options(choices_, options_);
    pager_ = reinterpret_cast<adamw_pager *>(8);
    const bool resize = options_.size == sizeof options_ && choices_.one_in(4);
    // Smaller ones have the defaults of what they lack, and these are in options_ now.
    const auto given = resize ? resized_options(options_, ADAMW_PAGER_OPTIONS_INIT, 32, choices_, memory_)
                              : Resized<adamw_pager_options>{&options_, options_.size, false};
    const Statuses errors = pager_create_errors(&options_, &pager_) | (options_.directory != nullptr ? beyond : 0);
    const adamw_status status = adamw_pager_create(given.at, &pager_);
    story_ += "backing " + std::to_string(options_.backing) + " device " + std::to_string(options_.device) +
              " resident " + std::to_string(options_.resident_bytes) + " chunk " +
              std::to_string(options_.chunk_bytes) + " reserve " + std::to_string(options_.reserve_bytes) + ":";
    judge("adamw_pager_create", status, errors | (given.unknown ? version : 0));
    if ((status == ADAMW_OK) != (pager_ != nullptr)) finding("*pager is %p", static_cast<void *>(pager_));
    return status == ADAMW_OK;
  }

  Held *some() {
    return buffers_.empty() ? nullptr : &buffers_[static_cast<std::size_t>(choices_.below(64)) % buffers_.size()];
  }

  std::uint8_t *alloc_bytes(std::int64_t bytes) {
    void *buffer = this;
    std::int32_t place = -1;
    const adamw_status status = adamw_pager_alloc(pager_, bytes, &buffer, choices_.below(2) == 0 ? nullptr : &place);
    Statuses errors = bytes < 1 || bytes > std::int64_t{1} << 60 ? invalid : 0;
    if (bytes > std::int64_t{1} << 40) errors |= no_memory | no_storage;
    judge("adamw_pager_alloc", status, errors);
    if (status != ADAMW_OK && buffer != nullptr) finding("refused, but *buffer is %p", buffer);
    if (status != ADAMW_OK) return nullptr;
    auto *const at = static_cast<std::uint8_t *>(buffer);
    if (reinterpret_cast<std::uintptr_t>(buffer) % 64 != 0) finding("a buffer at %p", buffer);
    if (!std::all_of(at, at + bytes, [](std::uint8_t x) { return x == 0; })) finding("a fresh buffer is not zeros");
    const bool file = options_.backing == ADAMW_PLACE_FILE;
    // Without a budget nothing of a file is resident; with one, what has been given out says where it lies.
    const bool moves = file && (options_.resident_bytes == 0 || place == ADAMW_PLACE_FILE);
    if (place != -1 && place != (file && moves ? ADAMW_PLACE_FILE : ADAMW_PLACE_HOST))
      finding("a buffer lies in place %d", place);
    buffers_.push_back({at, bytes, moves, std::vector<std::uint8_t>(static_cast<std::size_t>(bytes))});
    return at;
  }
  void alloc() {
    static constexpr std::int64_t hostile[] = {
        0, -1, INT64_MIN, INT64_MAX, std::int64_t{1} << 60, (std::int64_t{1} << 60) + 1};
    alloc_bytes(choices_.one_in(6)   ? hostile[choices_.below(6)]
                : choices_.one_in(4) ? 1 + choices_.below(150000)
                                     : 1 + choices_.below(9000));
  }

  // A stretch of a buffer, or one that is none.
  struct Part {
    std::size_t buffer;
    std::int64_t offset, bytes;
  };
  Part some_part() {
    const auto b = static_cast<std::size_t>(choices_.below(64)) % buffers_.size();
    const std::int64_t size = buffers_[b].bytes, offset = choices_.below(3) == 0 ? 0 : choices_.below(1 << 16) % size;
    return {b, offset, 1 + choices_.below(1 << 17) % (size - offset)};
  }
  bool meets_loan(const Part &p) const {
    return std::any_of(loans_.begin(), loans_.end(), [&](const Loan &l) {
      return l.buffer == p.buffer && l.offset < p.offset + p.bytes && p.offset < l.offset + l.bytes;
    });
  }
  void scribble(std::uint8_t *at, const Part &p) {
    auto *const holds = buffers_[p.buffer].holds.data() + p.offset;
    for (std::int64_t i = 0; i < p.bytes; ++i) holds[i] = static_cast<std::uint8_t>(random_.bits());
    std::copy_n(holds, p.bytes, at);
  }
  void write() {
    if (buffers_.empty()) return;
    const Part p = some_part();
    if (!meets_loan(p)) scribble(buffers_[p.buffer].at + p.offset, p);
  }

  // Of a window: 0 stands for 16 MiB, or less of a small budget, of which windows get half.
  std::int64_t chunk_bytes() const {
    if (options_.chunk_bytes != 0) return options_.chunk_bytes;
    if (options_.resident_bytes == 0) return 16 << 20;
    return std::clamp<std::int64_t>(options_.resident_bytes / 8 / 4096 * 4096, 65536, 16 << 20);
  }

  void acquire() {
    if (buffers_.empty()) return;
    Part p = some_part();
    if (choices_.below(4) == 0) p.bytes = std::min(p.bytes, buffers_[p.buffer].bytes);
    const Held &b = buffers_[p.buffer];
    Statuses errors = 0;
    void *usable = this, **where = &usable, *address = b.at + p.offset;
    if (choices_.one_in(8)) {
      switch (choices_.below(4)) {
        case 0:
          p.bytes = choices_.of<std::int64_t>({0, -1, INT64_MIN, INT64_MAX, b.bytes - p.offset + 1});
          break;
        case 1:
          address = this;
          break;
        case 2:
          where = nullptr;
          break;
        default:
          address = nullptr;
          break;
      }
      errors = invalid;
    }
    const auto moving =
        std::count_if(loans_.begin(), loans_.end(), [&](const Loan &l) { return buffers_[l.buffer].moves; });
    // Of what is used where it lies the header does not say that it counts.
    if (p.bytes > chunk_bytes() || loans_.size() >= 3 || meets_loan(p))
      errors |= b.moves && (p.bytes > 65536 || moving >= 3 || meets_loan(p)) ? invalid : either;
    const adamw_status status = adamw_pager_acquire(pager_, address, p.bytes, nullptr, where);
    story_ += " [" + std::to_string(p.buffer) + "+" + std::to_string(p.offset) + ", " + std::to_string(p.bytes) + "]";
    judge("adamw_pager_acquire", status, errors);
    if (status != ADAMW_OK && where != nullptr && usable != nullptr) finding("refused, but *usable is %p", usable);
    if (status != ADAMW_OK) return;
    auto *const at = static_cast<std::uint8_t *>(usable);
    if (!std::equal(at, at + p.bytes, b.holds.begin() + p.offset))
      finding("bytes %lld + %lld of buffer %zu are acquired, but differ from what it holds",
              static_cast<long long>(p.offset), static_cast<long long>(p.bytes), p.buffer);
    const bool dirty = choices_.below(2) == 1;
    if (dirty) scribble(at, p);
    loans_.push_back({at, p.buffer, p.offset, p.bytes, dirty});
  }
  void give_back(std::size_t i) {
    const Loan loan = loans_[i];
    loans_.erase(loans_.begin() + static_cast<std::ptrdiff_t>(i));
    judge("adamw_pager_release",
          adamw_pager_release(pager_, loan.usable, loan.dirty ? choices_.of({1, -1, INT32_MIN}) : 0, nullptr), 0);
    check(loan.buffer);
  }
  void release() {
    if (choices_.one_in(6)) judge("adamw_pager_release", adamw_pager_release(pager_, this, 1, nullptr), invalid);
    if (!loans_.empty()) give_back(static_cast<std::size_t>(choices_.below(3)) % loans_.size());
  }
  void prefetch() {
    if (buffers_.empty()) return;
    Part p = some_part();
    const std::uint8_t *address = buffers_[p.buffer].at + p.offset;
    Statuses errors = 0;
    if (choices_.one_in(8)) {
      p.bytes = choices_.of<std::int64_t>({0, -1, INT64_MAX, buffers_[p.buffer].bytes - p.offset + 1});
      errors = invalid;
    }
    story_ += " [" + std::to_string(p.buffer) + "+" + std::to_string(p.offset) + ", " + std::to_string(p.bytes) + "]";
    judge("adamw_pager_prefetch", adamw_pager_prefetch(pager_, const_cast<std::uint8_t *>(address), p.bytes, nullptr),
          errors);
  }

  // A buffer holds what its program last saw there, but for what is lent and was written.
  void check(std::size_t i) const {
    const Held &b = buffers_[i];
    if (std::any_of(loans_.begin(), loans_.end(), [&](const Loan &l) { return l.buffer == i && l.dirty; })) return;
    if (!std::equal(b.holds.begin(), b.holds.end(), b.at)) finding("buffer %zu holds other bytes than were written", i);
  }
  void look() {
    judge("adamw_pager_wait", adamw_pager_wait(pager_), 0);
    adamw_pager_statistics s{};
    const bool off = choices_.one_in(8);
    const std::size_t size = off ? choices_.of<std::size_t>({8, 56, sizeof s + 4}) : sizeof s;
    judge("adamw_pager_stats", adamw_pager_stats(pager_, &s, size), size_errors(size, 64));
    std::int64_t bytes = 0;
    for (const Held &b : buffers_) bytes += b.bytes;
    if (!off && (s.buffers != static_cast<std::int64_t>(buffers_.size()) || s.host_bytes + s.file_bytes < bytes ||
                 s.resident_bytes > s.resident_peak_bytes || s.bytes_in < 0 || s.bytes_out < 0 || s.wait_ns < 0))
      finding("stats: %lld buffers, %lld + %lld bytes of %lld", static_cast<long long>(s.buffers),
              static_cast<long long>(s.host_bytes), static_cast<long long>(s.file_bytes),
              static_cast<long long>(bytes));
    for (std::size_t i = 0; i < buffers_.size(); ++i) check(i);
  }
  void free() {
    if (choices_.one_in(4) && some() != nullptr)
      judge("adamw_pager_free",
            adamw_pager_free(pager_, choices_.below(2) == 0 ? buffers_[0].at + 1 : static_cast<void *>(this)), invalid);
    if (choices_.one_in(8)) judge("adamw_pager_free", adamw_pager_free(pager_, nullptr), 0);
    if (!buffers_.empty()) free_last();
  }
  // The last one, so that the numbers of the others stay.
  void free_last() {
    const std::size_t i = buffers_.size() - 1;
    const auto is_lent = [&](const Loan &l) { return l.buffer == i; };
    const bool lent = std::any_of(loans_.begin(), loans_.end(), is_lent);
    const adamw_status status = adamw_pager_free(pager_, buffers_[i].at);
    judge("adamw_pager_free", status, !lent ? 0 : buffers_[i].moves ? invalid : either);
    if (status != ADAMW_OK) return;
    loans_.erase(std::remove_if(loans_.begin(), loans_.end(), is_lent), loans_.end());
    buffers_.pop_back();
  }
  void nobody() {
    call_without_pager([this](const char *name, adamw_status status, Statuses errors) { judge(name, status, errors); });
    judge("adamw_pager_alloc", adamw_pager_alloc(pager_, 1, nullptr, nullptr), invalid);
    judge("adamw_pager_stats", adamw_pager_stats(pager_, nullptr, sizeof(adamw_pager_statistics)), invalid);
    if (!buffers_.empty()) judge("adamw_pager_destroy", adamw_pager_destroy(pager_), invalid);
  }

  // Steps whose state lies here, partly; its buffers are gone afterwards.
  void step() {
    memory_.clear();
    const std::size_t kept = buffers_.size();
    const bool all = choices_.below(2) == 0;
    StepInput input = make_step(choices_, memory_, [&](std::size_t bytes) -> void * {
      return bytes == 0 || bytes > 200000 || !(all || choices_.below(2) == 0)
                 ? nullptr
                 : alloc_bytes(static_cast<std::int64_t>(bytes));
    });
    input.options->pager = pager_;
    std::vector<PagerBuffer> paged;
    for (std::size_t i = kept; i < buffers_.size(); ++i)
      if (buffers_[i].moves) paged.push_back({buffers_[i].at, buffers_[i].bytes});
    if (choices_.one_in(4)) spoil(input, choices_, memory_);
    Statuses broken = 0;
    for (const Loan &loan : loans_) broken |= buffers_[loan.buffer].moves ? invalid : either;
    story_ += " step(";
    for (int n = 1 + choices_.below(3); n > 0; --n) run_step(input, choices_, memory_, paged, broken);
    story_ += ")";
    // What a step left is what its buffers hold.
    for (std::size_t i = kept; i < buffers_.size(); ++i)
      std::copy_n(buffers_[i].at, buffers_[i].bytes, buffers_[i].holds.begin());
    while (buffers_.size() > kept) free_last();
    memory_.clear();
  }

  void end() {
    while (!loans_.empty()) give_back(loans_.size() - 1);
    for (std::size_t i = 0; i < buffers_.size(); ++i) check(i);
    while (!buffers_.empty()) free_last();
    judge("adamw_pager_destroy", adamw_pager_destroy(pager_), 0);
  }
};

}  // namespace

void fuzz_pager(Choices &choices, Memory &memory) { Life(choices, memory).live(); }
