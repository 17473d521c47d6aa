// Owns state in CUDA unified memory: used where it lies, what the budget has room for after it was asked for on the
// caller's stream. Knows no tensors.
//
// Buffers beyond the budget prefer the host and stay there: kernels read and write them over the link, which takes a
// quarter of the time that the driver takes to bring pages in and out again (H200, PCIe 5: 84 GB/s against 19). The
// others stay on the device until the driver needs their room, and as long as it does not seem to, they are not asked
// for again: to ask for what is there takes the driver some 25 us a MiB (H200: a step took 18 times as long). All that
// is a matter of speed: the driver brings in what a kernel touches in any case.
#include <algorithm>

#include "../../status.h"
#include "paging.h"
#include "prefetch.h"

namespace adamw {
namespace gpu {
namespace {

constexpr std::size_t least_free_part = 32;  // of the device's memory: with less than that free it counts as full
constexpr std::int64_t calls_a_look = 8;     // to ask how much is free takes time, too

class ManagedBacking final : public DeviceBacking {
 public:
  ManagedBacking(DeviceState &state, const PagerOptions &options, PagerCounts &counts)
      : DeviceBacking(state, options, counts), resident_(slabs(false)), beyond_(slabs(true)) {}

  ~ManagedBacking() override {
    quietly([&] {
      settle();
      resident_.clear();
      beyond_.clear();
      drop(ended_);
      drop(zeroing_);
    });
  }

  adamw_status open(const char *function) {
    return current(function, [&] {
      int concurrent = 0;
      ADAMW_CHECK(state_.driver, function, cuDeviceGetAttribute,
                  (&concurrent, concurrent_managed_access, state_.device()));
      if (concurrent == 0) {
        return fail(ADAMW_ERROR_UNSUPPORTED,
                    "%s: options.backing = ADAMW_PLACE_MANAGED: this device does not support concurrent managed access "
                    "(like all devices on Windows and WSL): use ADAMW_PLACE_PINNED",
                    function);
      }
      if (adamw_status s = make_stream(function, &zeroing_)) return s;
      return make_event(function, &ended_);
    });
  }

  std::int64_t windows_bytes() const override { return 0; }

  // ---- buffers ----

  adamw_status allocate(const char *function, Buffer *buffer) override {
    Slab *slab = nullptr;
    const adamw_status status = current(function, [&] {
      if (adamw_status s = slabs_of(*buffer).take(function, buffer->bytes, &slab, &buffer->memory)) return s;
      const auto words = static_cast<std::size_t>(round_up(buffer->bytes, slab_unit) / 4);
      ADAMW_CHECK(state_.driver, function, cuMemsetD32Async, (device_pointer(buffer->memory), 0, words, zeroing_));
      ADAMW_CHECK(state_.driver, function, cuStreamSynchronize, (zeroing_));
      return ADAMW_OK;
    });
    buffer->own = slab;
    buffer->place = ADAMW_PLACE_MANAGED;
    if (status == ADAMW_OK || slab == nullptr) return status;
    quietly([&] {
      state_.driver.cuStreamSynchronize(zeroing_);
      slabs_of(*buffer).give_back(slab, buffer->memory, buffer->bytes);
    });
    return status;
  }

  void free(Buffer &buffer) override {
    quietly([&] {
      settle();
      slabs_of(buffer).give_back(static_cast<Slab *>(buffer.own), buffer.memory, buffer.bytes);
    });
  }

  bool moves(const Buffer &buffer) const override { return buffer.resident; }

  // ---- calls ----

  adamw_status begin(const char *function, void *stream) override {
    note_inside(-inside_);
    const adamw_status status = current(function, [&] { return prepare(function, static_cast<Stream>(stream)); });
    in_session_ = status == ADAMW_OK;
    return status;
  }

  adamw_status end(const char *function, void *stream) override {
    in_session_ = false;
    if (captures_) return ADAMW_OK;  // the event would be the graph's
    return end_call(function, static_cast<Stream>(stream), {});
  }

  void abandon() override {
    in_session_ = false;
    if (!captures_) end_call_quietly(stream_, {});
  }

  // The host is about to touch it, which moves it.
  adamw_status wait(const char *) override {
    stale_ = call_;
    return ADAMW_OK;
  }

  // ---- windows ----

  adamw_status fetch(const char *function, Loan &loan, void *stream) override {
    const adamw_status status = current(function, [&] {
      if (!in_session_) {  // a loan of the public interface: a call of its own
        if (adamw_status s = prepare(function, static_cast<Stream>(stream))) return s;
      }
      return ask(function, loan, static_cast<Stream>(stream));
    });
    return end_loan(function, status, static_cast<Stream>(stream));
  }

  // Pages are asked for; where they are changes nothing of what they hold.
  void hint(const Piece &piece, void *stream) override {
    quietly([&] {
      bool captures = false;
      if (find_capture("", static_cast<Stream>(stream), &captures) != ADAMW_OK || captures) return;
      pieces_.assign(1, piece);
      lay_out(pieces_, page_bytes, true, nullptr, &extents_);
      for (const Extent &e : extents_) {
        if (prefetch(state_, "", e.home(), e.bytes, static_cast<Stream>(stream)) == ADAMW_OK) counts_.came_in(e.bytes);
      }
    });
  }

  adamw_status arrive(const char *, Loan &loan, void *) override {
    for (Piece &piece : loan.pieces) piece.usable = piece.home;
    return ADAMW_OK;
  }

  adamw_status give_back(const char *function, Loan &loan, bool, void *stream) override {
    if (!in_session_ && !captures_)
      for (const Piece &piece : loan.pieces) note_inside(-piece.bytes);
    return end_loan(function, ADAMW_OK, static_cast<Stream>(stream));
  }

 private:
  Slabs slabs(bool prefers_host) {
    return {[this, prefers_host](const char *function, std::int64_t bytes, void **memory) {
              Pointer fresh = 0;
              ADAMW_CHECK(state_.driver, function, cuMemAllocManaged,
                          (&fresh, static_cast<std::size_t>(bytes), managed_global));
              *memory = host_pointer(fresh);
              const adamw_status s = prefers_host ? prefer_host(state_, function, *memory, bytes) : ADAMW_OK;
              if (s != ADAMW_OK) state_.driver.cuMemFree_v2(fresh);
              return s;
            },
            [this](void *memory) { state_.driver.cuMemFree_v2(device_pointer(memory)); }};
  }
  // Of their own, since pages are hinted at, not bytes.
  Slabs &slabs_of(const Buffer &buffer) { return buffer.resident ? resident_ : beyond_; }

  // The context must be current.
  adamw_status prepare(const char *function, Stream stream) {
    if (adamw_status s = find_capture(function, stream, &captures_)) return s;
    if (captures_) return ADAMW_OK;
    stream_ = stream;
    settled_ = false;
    ++call_;
    if (call_ % calls_a_look == 1) {
      std::size_t free = 0, all = 0;
      ADAMW_CHECK(state_.driver, function, cuMemGetInfo_v2, (&free, &all));
      full_ = free < all / least_free_part;
    }
    if (full_) stale_ = call_;  // the driver may have moved out what was there, for somebody else
    ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (stream, ended_, 0));
    return ADAMW_OK;
  }

  // Whether it was brought in by a call before, and nothing is known to have moved it since. Notes that this call does.
  bool is_there(const Buffer &buffer) const {
    const bool known = buffer.brought > stale_;
    if (!known) buffer.brought = call_;
    return known && buffer.brought < call_;
  }

  adamw_status end_loan(const char *function, adamw_status status, Stream stream) {
    if (in_session_ || captures_) return status;
    if (status == ADAMW_OK) return end_call(function, stream, {});
    end_call_quietly(stream, {});
    return status;
  }

  // Asks for the pages of a loan that may be elsewhere.
  adamw_status ask(const char *function, const Loan &loan, Stream stream) {
    if (captures_) return ADAMW_OK;  // a graph cannot take hints
    pieces_.clear();
    for (const Piece &piece : loan.pieces) {
      note_inside(piece.bytes);
      if (!in_session_ || !is_there(*piece.buffer)) pieces_.push_back(piece);
    }
    lay_out(pieces_, page_bytes, true, nullptr, &extents_);
    for (const Extent &e : extents_) {
      if (adamw_status s = prefetch(state_, function, e.home(), e.bytes, stream)) return s;
      counts_.came_in(e.bytes);
    }
    return ADAMW_OK;
  }

  // What is given back after a step may have been counted before it, and counts no longer.
  void note_inside(std::int64_t bytes) {
    bytes = std::max(bytes, -inside_);
    inside_ += bytes;
    counts_.add_resident(bytes);
  }

  // Waits for all that has been queued. The context must be current.
  void settle() {
    if (!settled_ && ended_ != nullptr) state_.driver.cuEventSynchronize(ended_);
    settled_ = true;
  }

  Slabs resident_, beyond_;
  Stream zeroing_ = nullptr;
  std::vector<Piece> pieces_;
  std::vector<Extent> extents_;
  std::int64_t inside_ = 0;  // bytes that were brought in and have not been let go
  std::int64_t call_ = 0;    // numbers the calls
  std::int64_t stale_ = 0;   // what calls up to this one have brought in may be elsewhere now
  bool full_ = false;        // the device
  bool captures_ = false;    // the stream of the call
};

}  // namespace

adamw_status managed_backing(const char *function, const PagerOptions &options, PagerCounts &counts,
                             std::unique_ptr<Backing> *backing) {
  return make<ManagedBacking>(function, options, counts, backing);
}

}  // namespace gpu
}  // namespace adamw
