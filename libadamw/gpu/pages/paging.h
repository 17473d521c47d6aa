// Owns what the backings of a pager for a CUDA device share: its context, and the order of the calls that use a pager.
#pragma once

#include <initializer_list>

#include "../device_state.h"
#include "slabs.h"

namespace adamw {
namespace gpu {

class DeviceBacking : public Backing {
 public:
  DeviceBacking(DeviceState &state, const PagerOptions &options, PagerCounts &counts)
      : Backing(counts), state_(state), chunk_(options.chunk_bytes) {}

  // The context stays with the parent, and so does all memory: nothing here may call the driver any more.
  void after_fork(bool in_child) override { forked_ = forked_ || in_child; }

 protected:
  // body(), with the device's context current.
  template <class Body>
  adamw_status current(const char *function, const Body &body) {
    Guard guard(state_);
    if (adamw_status s = guard.enter(function)) return s;
    if (adamw_status s = body()) return s;
    return guard.leave(function);
  }
  // The same where there is nobody to tell of a failure, nor may the message of an earlier one be lost.
  template <class Body>
  void quietly(const Body &body) {
    Context ours = nullptr;
    if (forked_ || state_.driver.cuCtxPushCurrent_v2(state_.context) != 0) return;
    body();
    state_.driver.cuCtxPopCurrent_v2(&ours);
  }

  // What a call leaves to those after it: where `stream` is now, with the calls before on other streams, and the
  // `others`.
  struct Mark {
    Event event;
    Stream stream;
  };
  adamw_status end_call(const char *function, Stream stream, std::initializer_list<Mark> others) {
    settled_ = false;
    const adamw_status status = current(function, [&] {
      ADAMW_CHECK(state_.driver, function, cuStreamWaitEvent, (stream, ended_, 0));
      ADAMW_CHECK(state_.driver, function, cuEventRecord, (ended_, stream));
      for (const Mark &mark : others) ADAMW_CHECK(state_.driver, function, cuEventRecord, (mark.event, mark.stream));
      return ADAMW_OK;
    });
    if (status != ADAMW_OK) wait_for(stream, others);
    return status;
  }
  void end_call_quietly(Stream stream, std::initializer_list<Mark> others) {
    bool marked = false;
    settled_ = false;
    quietly([&] {
      const Driver &driver = state_.driver;
      marked = driver.cuStreamWaitEvent(stream, ended_, 0) == 0 && driver.cuEventRecord(ended_, stream) == 0;
      for (const Mark &mark : others) marked = driver.cuEventRecord(mark.event, mark.stream) == 0 && marked;
    });
    if (!marked) wait_for(stream, others);
  }

  adamw_status find_capture(const char *function, Stream stream, bool *captures) {
    int status = 0;
    ADAMW_CHECK(state_.driver, function, cuStreamIsCapturing, (stream, &status));
    *captures = status != 0;
    return ADAMW_OK;
  }
  adamw_status make_event(const char *function, Event *event) {
    ADAMW_CHECK(state_.driver, function, cuEventCreate, (event, event_untimed));
    return ADAMW_OK;
  }
  adamw_status make_stream(const char *function, Stream *stream) {
    ADAMW_CHECK(state_.driver, function, cuStreamCreate, (stream, stream_alone));
    return ADAMW_OK;
  }
  void drop(Event event) {
    if (event != nullptr) state_.driver.cuEventDestroy_v2(event);
  }
  void drop(Stream stream) {
    if (stream != nullptr) state_.driver.cuStreamDestroy_v2(stream);
  }

  DeviceState &state_;
  const std::int64_t chunk_;
  Event ended_ = nullptr;    // the last call, on its stream, with all before it
  Stream stream_ = nullptr;  // of the last call
  bool in_session_ = false;  // between begin() and end() or abandon()
  bool settled_ = true;      // nothing has been queued since somebody waited for all
  bool forked_ = false;

 private:
  // Where no event can say it, nothing is left to be waited for.
  void wait_for(Stream stream, std::initializer_list<Mark> others) {
    quietly([&] {
      state_.driver.cuStreamSynchronize(stream);
      for (const Mark &mark : others) state_.driver.cuStreamSynchronize(mark.stream);
    });
  }
};

// Makes a backing of class B for the device that the options name.
template <class B>
adamw_status make(const char *function, const PagerOptions &options, PagerCounts &counts,
                  std::unique_ptr<Backing> *backing) {
  DeviceState *state = nullptr;
  if (adamw_status s = device_state(function, options.device, &state)) return s;
  auto fresh = std::make_unique<B>(*state, options, counts);
  if (adamw_status s = fresh->open(function)) return s;
  *backing = std::move(fresh);
  return ADAMW_OK;
}

inline Pointer device_pointer(const void *memory) { return reinterpret_cast<std::uintptr_t>(memory); }
inline void *host_pointer(Pointer memory) { return reinterpret_cast<void *>(static_cast<std::uintptr_t>(memory)); }

}  // namespace gpu
}  // namespace adamw
