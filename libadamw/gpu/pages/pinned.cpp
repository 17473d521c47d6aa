// Owns state in page-locked host memory: a window is copied to one of a few slots in device memory while another is
// stepped and a third goes back. Knows no tensors.
//
// Two streams of its own copy, one each way. What they and the caller's stream wait for, so that no byte is read too
// early:
// - a copy in: that its slot is free again (slot.out, or slot.used if nothing went back), and that the calls before are
//   done with host memory (ended_, written_). Not the caller's stream as it is now, which may be in a backward pass.
// - the caller's stream: what was copied in (slot.arrived); before a call's first kernel, what others may have left in
//   host memory (written_) and done on other streams (ended_), since kernels may use it where it lies, too.
// - a copy out: the kernels before it (slot.used).
#include <cstring>

#include "../../status.h"
#include "paging.h"

namespace adamw {
namespace gpu {
namespace {

struct Slot {
  Pointer memory = 0;
  Event arrived = nullptr, used = nullptr, out = nullptr;
  bool out_last = false;  // what it did last was to be copied out
  bool lent = false;      // from arrive() to give_back()
  std::vector<Extent> extents;
};

class PinnedBacking final : public DeviceBacking {
 public:
  PinnedBacking(DeviceState &state, const PagerOptions &options, PagerCounts &counts)
      : DeviceBacking(state, options, counts),
        slabs_([this](const char *function, std::int64_t bytes, void **memory) { return get(function, bytes, memory); },
               [this](void *memory) { state_.driver.cuMemFreeHost(memory); }) {}

  ~PinnedBacking() override {
    quietly([&] {
      settle();
      for (Slot &slot : slots_) {
        if (slot.memory != 0) state_.driver.cuMemFree_v2(slot.memory);
        for (Event event : {slot.arrived, slot.used, slot.out}) drop(event);
      }
      slabs_.clear();
      drop(ended_), drop(written_);
      drop(in_), drop(out_);
    });
  }

  adamw_status open(const char *function) {
    return current(function, [&] {
      for (Stream *stream : {&in_, &out_})
        if (adamw_status s = make_stream(function, stream)) return s;
      for (Slot &slot : slots_) {
        for (Event *event : {&slot.arrived, &slot.used, &slot.out})
          if (adamw_status s = make_event(function, event)) return s;
      }
      for (Event *event : {&ended_, &written_})
        if (adamw_status s = make_event(function, event)) return s;
      return ADAMW_OK;
    });
  }

  std::int64_t windows_bytes() const override { return page_windows * chunk_; }

  // ---- buffers ----

  adamw_status allocate(const char *function, Buffer *buffer) override {
    Slab *slab = nullptr;
    Pointer device = 0;
    const adamw_status status = current(function, [&] {
      return buffer->resident ? zeroed(function, buffer->bytes, &device)
                              : slabs_.take(function, buffer->bytes, &slab, &buffer->memory);
    });
    if (status != ADAMW_OK) {
      quietly([&] {
        state_.driver.cuStreamSynchronize(in_);  // zeros may be on their way there
        if (device != 0) state_.driver.cuMemFree_v2(device);
        if (slab != nullptr) slabs_.give_back(slab, buffer->memory, buffer->bytes);
      });
      return status;
    }
    buffer->own = slab;
    buffer->place = slab != nullptr ? ADAMW_PLACE_PINNED : ADAMW_PLACE_DEVICE;
    if (slab == nullptr) {
      buffer->memory = host_pointer(device);
    } else {
      std::memset(buffer->memory, 0, static_cast<std::size_t>(round_up(buffer->bytes, slab_unit)));
    }
    return ADAMW_OK;
  }

  void free(Buffer &buffer) override {
    quietly([&] {
      settle();
      if (buffer.own != nullptr) {
        slabs_.give_back(static_cast<Slab *>(buffer.own), buffer.memory, buffer.bytes);
      } else {
        state_.driver.cuMemFree_v2(device_pointer(buffer.memory));
      }
    });
  }

  bool moves(const Buffer &buffer) const override { return buffer.own != nullptr; }

  // ---- calls ----

  adamw_status begin(const char *function, void *stream) override {
    const adamw_status status = current(function, [&] { return prepare(function, static_cast<Stream>(stream)); });
    in_session_ = status == ADAMW_OK;
    return status;
  }

  adamw_status end(const char *function, void *stream) override {
    in_session_ = false;
    return end_call(function, static_cast<Stream>(stream), {{written_, out_}});
  }

  // Of a window that was lent, some rows may have been stepped: it goes back, so that state agrees with parameters.
  void abandon() override {
    in_session_ = false;
    quietly([&] {
      for (Slot &slot : slots_)
        if (slot.lent) take_back(slot, stream_);
    });
    end_call_quietly(stream_, {{written_, out_}});
  }

  adamw_status wait(const char *function) override {
    return current(function, [&] {
      ADAMW_CHECK(state_.driver, function, cuEventSynchronize, (ended_));  // kernels may have used it where it lies
      ADAMW_CHECK(state_.driver, function, cuEventSynchronize, (written_));
      return ADAMW_OK;
    });
  }

  // ---- windows ----

  adamw_status fetch(const char *function, Loan &loan, void *stream) override {
    return current(function, [&] {
      if (!in_session_) {  // a loan of the public interface: a call of its own
        if (adamw_status s = prepare(function, static_cast<Stream>(stream))) return s;
      }
      Slot &slot = slots_[loan.window];
      slot.lent = false;
      lay_out(loan.pieces, slab_unit, false, static_cast<char *>(host_pointer(slot.memory)), &slot.extents);
      // A buffer's end is moved with the rest of its unit, where there is room for that.
      if (!slot.extents.empty()) {
        Extent &last = slot.extents.back();
        const std::int64_t beyond = last.at + last.bytes - chunk_;
        if (beyond >= slab_unit) {
          return fail(ADAMW_ERROR_INTERNAL, "%s: a window is too small for its contents", function);
        }
        if (beyond > 0) last.bytes -= beyond;
      }
      if (slot.out_last) {
        ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (in_, slot.out, 0));
      } else {
        ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (in_, slot.used, 0));
      }
      for (const Extent &e : slot.extents) {
        ADAMW_CHECK(state_.driver, function, cuMemcpyHtoDAsync_v2,
                    (slot.memory + static_cast<Pointer>(e.at), e.home(), static_cast<std::size_t>(e.bytes), in_));
        counts_.came_in(e.bytes);
      }
      ADAMW_CHECK(state_.driver, function, cuEventRecord, (slot.arrived, in_));
      return ADAMW_OK;
    });
  }

  adamw_status arrive(const char *function, Loan &loan, void *stream) override {
    return current(function, [&] {
      Slot &slot = slots_[loan.window];
      ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (static_cast<Stream>(stream), slot.arrived, 0));
      slot.lent = true;
      return ADAMW_OK;
    });
  }

  adamw_status give_back(const char *function, Loan &loan, bool dirty, void *stream) override {
    Slot &slot = slots_[loan.window];
    const adamw_status status = current(function, [&] {
      if (dirty) {
        const auto [call, result] = take_back(slot, static_cast<Stream>(stream));
        return check(state_.driver, function, call, result);
      }
      slot.lent = slot.out_last = false;
      ADAMW_CHECK(state_.driver, function, cuEventRecord, (slot.used, static_cast<Stream>(stream)));
      return ADAMW_OK;
    });
    if (status == ADAMW_OK || in_session_) return status;  // abandon() takes back what is lent still
    if (dirty && slot.lent) quietly([&] { take_back(slot, static_cast<Stream>(stream)); });
    end_call_quietly(static_cast<Stream>(stream), {{written_, out_}});
    return status;
  }

 private:
  struct Outcome {
    const char *call;
    Result result;
  };

  // Copies a slot out behind what `stream` does with it now. After an error it may be tried again.
  Outcome take_back(Slot &slot, Stream stream) {
    const Driver &driver = state_.driver;
    if (const Result r = driver.cuEventRecord(slot.used, stream)) return {"cuEventRecord", r};
    slot.out_last = false;
    if (const Result r = driver.cuStreamWaitEvent(out_, slot.used, 0)) return {"cuStreamWaitEvent", r};
    for (const Extent &e : slot.extents) {
      const Result r = driver.cuMemcpyDtoHAsync_v2(e.home(), slot.memory + static_cast<Pointer>(e.at),
                                                   static_cast<std::size_t>(e.bytes), out_);
      if (r != 0) return {"cuMemcpyDtoHAsync_v2", r};
      counts_.out += e.bytes;
    }
    if (const Result r = driver.cuEventRecord(slot.out, out_)) return {"cuEventRecord", r};
    slot.out_last = true;
    slot.lent = false;
    return {"", 0};
  }

  // The context must be current.
  adamw_status prepare(const char *function, Stream stream) {
    bool captures = false;
    if (adamw_status s = find_capture(function, stream, &captures)) return s;
    if (captures) {
      return fail(ADAMW_ERROR_UNSUPPORTED,
                  "%s: a graph cannot capture a step with state in pinned pages: step outside of the capture, or "
                  "make the pager with ADAMW_PLACE_MANAGED",
                  function);
    }
    if (adamw_status s = make_windows(function)) return s;
    stream_ = stream;
    settled_ = false;
    ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (in_, ended_, 0));
    ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (in_, written_, 0));
    ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (stream, ended_, 0));
    ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (stream, written_, 0));
    return ADAMW_OK;
  }

  adamw_status make_windows(const char *function) {
    for (Slot &slot : slots_) {
      if (slot.memory != 0) continue;
      ADAMW_CHECK(state_.driver, function, cuMemAlloc_v2, (&slot.memory, static_cast<std::size_t>(chunk_)));
      counts_.add_resident(chunk_);
    }
    return ADAMW_OK;
  }

  adamw_status get(const char *function, std::int64_t bytes, void **memory) {
    ADAMW_CHECK(state_.driver, function, cuMemHostAlloc,
                (memory, static_cast<std::size_t>(bytes), host_portable | host_mapped));
    return ADAMW_OK;
  }

  adamw_status zeroed(const char *function, std::int64_t bytes, Pointer *memory) {
    const auto size = static_cast<std::size_t>(round_up(bytes, slab_unit));
    ADAMW_CHECK(state_.driver, function, cuMemAlloc_v2, (memory, size));
    ADAMW_CHECK(state_.driver, function, cuMemsetD32Async, (*memory, 0, size / 4, in_));
    ADAMW_CHECK(state_.driver, function, cuStreamSynchronize, (in_));
    return ADAMW_OK;
  }

  // Waits for all that has been queued. The context must be current.
  void settle() {
    if (settled_) return;
    settled_ = true;
    if (ended_ != nullptr) state_.driver.cuEventSynchronize(ended_);
    for (Stream stream : {in_, out_})
      if (stream != nullptr) state_.driver.cuStreamSynchronize(stream);
  }

  Slabs slabs_;
  Slot slots_[page_windows];
  Stream in_ = nullptr, out_ = nullptr;
  Event written_ = nullptr;  // all that went back up to the end of the last call
};

}  // namespace

adamw_status pinned_backing(const char *function, const PagerOptions &options, PagerCounts &counts,
                            std::unique_ptr<Backing> *backing) {
  return make<PinnedBacking>(function, options, counts, backing);
}

}  // namespace gpu
}  // namespace adamw
