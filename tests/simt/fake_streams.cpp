// Owns the functions of the fake driver for streams, events, copies and memory that is not a pool's: what each checks
// and does.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "fake_world.h"

namespace simt {
namespace {

constexpr std::size_t page = 4096;

int number_of(gpu::Stream stream) {
  const auto it = world().own_streams.find(stream);
  return it == world().own_streams.end() ? -1 : it->second;
}

bool loses(const Wait &wait) { return world().driver.loses != nullptr && world().driver.loses(wait); }

std::shared_ptr<EventState> state_of(gpu::Event event) {
  const auto it = world().events.find(event);
  return it == world().events.end() ? nullptr : it->second;
}

// What no graph can take.
Result refuse_capture(const char *function, gpu::Stream stream) {
  return is_captured(stream) ? refuse(function, capture_unsupported, "on a stream that is being captured") : 0;
}
// What an application that captures, on whatever stream, does not want to happen.
Result refuse_any_capture(const char *function) {
  return world().captures.empty() ? 0 : refuse(function, capture_unsupported, "while a stream is being captured");
}

Result allocate(const char *function, gpu::Pointer *memory, std::size_t bytes, Kind kind) {
  if (const Result failed = refuse_any_capture(function)) return failed;
  if (bytes == 0) return refuse(function, invalid_value, "0 bytes");
  *memory = allocate_pages(bytes, kind, current_device());
  return *memory != 0 ? 0 : out_of_memory;
}

// Frees even if `result` is an error: see FakeDriver::failing_call.
Result give_back(const char *function, gpu::Pointer memory, bool (*fits)(Kind), Result result) {
  const auto it = world().allocations.find(memory);
  if (it == world().allocations.end() || !fits(it->second.kind))
    return refuse(function, invalid_value, "memory that is not allocated");
  release_pages(memory);
  return result;
}

Result copy(const char *function, void *to, const void *from, std::size_t bytes, gpu::Stream stream, bool to_device) {
  const auto device = reinterpret_cast<gpu::Pointer>(to_device ? to : from),
             host = reinterpret_cast<gpu::Pointer>(to_device ? from : to);
  const auto lives = [=] { return find(Kind::device, device, bytes) && find(Kind::host, host, bytes); };
  if (const Result failed = refuse_capture(function, stream)) return failed;
  if (!lives()) return refuse(function, invalid_value, "not between device memory and page-locked memory");
  queue(stream, [=] {
    if (!lives()) return note(function, "of memory that has been freed meanwhile");
    std::memcpy(to, from, bytes);
  });
  return 0;
}

Result hint(const char *function, gpu::Pointer memory, std::size_t bytes, gpu::Location where) {
  const bool to_host = where.type == gpu::location_host && where.id == 0;
  if (!to_host && (where.type != gpu::location_device || where.id != current_device()))
    return refuse(function, invalid_value, "a wrong place");
  if (bytes == 0 || !find(Kind::managed, memory, bytes)) return refuse(function, invalid_value, "not unified memory");
  if (world().driver.attributes[gpu::concurrent_managed_access] == 0)
    return refuse(function, invalid_device, "a device without concurrent access");
  return 0;
}

Result prefetch(const char *function, gpu::Pointer memory, std::size_t bytes, gpu::Location where, gpu::Stream stream) {
  if (const Result failed = hint(function, memory, bytes, where)) return failed;
  if (const Result failed = refuse_capture(function, stream)) return failed;
  const bool to_device = where.type == gpu::location_device;
  queue(stream, [=] {
    Allocation *allocation = find(Kind::managed, memory, bytes);
    if (allocation == nullptr) return note(function, "of memory that has been freed meanwhile");
    const gpu::Pointer begin = allocation->begin;
    for (std::size_t i = (memory - begin) / page; i * page < memory - begin + bytes; ++i) {
      if (allocation->pages[i] != to_device) note_device_bytes(to_device ? page : -static_cast<std::int64_t>(page));
      allocation->pages[i] = to_device;
    }
  });
  return 0;
}

gpu::Location location_of(gpu::Device device) {
  return device == gpu::host_device ? gpu::Location{gpu::location_host, 0}
                                    : gpu::Location{gpu::location_device, device};
}

}  // namespace

namespace entries {

// ---- streams and events ----

Result cuStreamCreate(gpu::Stream *stream, unsigned flags) {
  ENTER(context);
  if (flags != gpu::stream_alone) return refuse(__func__, invalid_value, "a stream that waits for the default stream");
  *stream = new_stream(current_device());
  world().own_streams[*stream] = world().streams_made++;
  world().events_made = 0;
  ++world().handles;
  return 0;
}
Result cuStreamDestroy_v2(gpu::Stream stream) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context_and_stream, stream);
  if (world().own_streams.erase(stream) == 0)
    return refuse(__func__, invalid_handle, "a stream that the library has not made");
  *reinterpret_cast<int *>(stream) = -1;  // nobody's: its work is done all the same
  --world().handles;
  return result;
}
Result cuStreamSynchronize(gpu::Stream stream) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context_and_stream, stream);
  if (const Result failed = refuse_capture(__func__, stream)) return failed;
  if (loses({true, number_of(stream), -1})) return 0;
  run_until([=] { return world().queues.count(stream) == 0; });
  return result != 0 ? result : world().broken;
}
Result cuStreamIsCapturing(gpu::Stream stream, int *status) {
  ENTER(context_and_stream, stream);
  *status = is_captured(stream) ? 1 : 0;
  return 0;
}
Result cuStreamWaitEvent(gpu::Stream stream, gpu::Event event, unsigned flags) {
  ENTER(context_and_stream, stream);
  const auto state = state_of(event);
  if (state == nullptr || flags != 0) return refuse(__func__, invalid_handle, "not an event");
  if (is_captured(stream)) return refuse(__func__, capture_isolation, "a captured stream waits for what is not");
  if (loses({false, number_of(stream), state->number})) return 0;
  queue(stream, [] {}, state, state->recorded);  // for the last record so far, if there is one
  return 0;
}

Result cuEventCreate(gpu::Event *event, unsigned flags) {
  ENTER(context);
  if (flags != gpu::event_untimed) return refuse(__func__, invalid_value, "an event that takes the time");
  auto state = std::make_shared<EventState>();
  state->device = current_device();
  state->number = world().events_made++;
  world().streams_made = 0;
  *event = reinterpret_cast<gpu::Event>(state.get());
  world().events[*event] = state;
  ++world().handles;
  return 0;
}
Result cuEventDestroy_v2(gpu::Event event) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context);
  if (world().events.erase(event) == 0) return refuse(__func__, invalid_handle, "not an event");
  --world().handles;
  return result;
}
Result cuEventRecord(gpu::Event event, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  const auto state = state_of(event);
  if (state == nullptr || state->device != current_device())
    return refuse(__func__, invalid_handle, "not an event here");
  if (const Result failed = refuse_capture(__func__, stream)) return failed;
  const std::uint64_t ticket = ++state->recorded;
  queue(stream, [=] { state->done = std::max(state->done, ticket); });
  return 0;
}
Result cuEventSynchronize(gpu::Event event) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context);
  const auto state = state_of(event);
  if (state == nullptr) return refuse(__func__, invalid_handle, "not an event");
  if (loses({true, -1, state->number})) return 0;
  run_until([=] { return state->done == state->recorded; });
  return result != 0 ? result : world().broken;
}

// ---- memory ----

Result cuMemGetInfo_v2(std::size_t *free, std::size_t *all) {
  ENTER(context);
  *all = world().driver.memory;
  *free = *all - std::min(*all, world().device_bytes);
  return 0;
}
Result cuMemAlloc_v2(gpu::Pointer *memory, std::size_t bytes) {
  ENTER(context);
  return allocate(__func__, memory, bytes, Kind::device);
}
Result cuMemFree_v2(gpu::Pointer memory) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context);
  return give_back(__func__, memory, [](Kind kind) { return kind == Kind::device || kind == Kind::managed; }, result);
}
Result cuMemHostAlloc(void **memory, std::size_t bytes, unsigned flags) {
  ENTER(context);
  if (flags != (gpu::host_portable | gpu::host_mapped)) return refuse(__func__, invalid_value, "kernels cannot use it");
  gpu::Pointer pointer = 0;
  const Result result = allocate(__func__, &pointer, bytes, Kind::host);
  if (result == 0) *memory = reinterpret_cast<void *>(pointer);
  return result;
}
Result cuMemFreeHost(void *memory) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context);
  return give_back(
      __func__, reinterpret_cast<gpu::Pointer>(memory), [](Kind kind) { return kind == Kind::host; }, result);
}
Result cuMemAllocManaged(gpu::Pointer *memory, std::size_t bytes, unsigned flags) {
  ENTER(context);
  if (flags != gpu::managed_global) return refuse(__func__, invalid_value, "a wrong argument");
  return allocate(__func__, memory, bytes, Kind::managed);
}

Result cuMemcpyHtoDAsync_v2(gpu::Pointer to, const void *from, std::size_t bytes, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  return copy(__func__, reinterpret_cast<void *>(to), from, bytes, stream, true);
}
Result cuMemcpyDtoHAsync_v2(void *to, gpu::Pointer from, std::size_t bytes, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  return copy(__func__, to, reinterpret_cast<const void *>(from), bytes, stream, false);
}

Result cuMemPrefetchAsync_v2(gpu::Pointer memory, std::size_t bytes, gpu::Location where, unsigned flags,
                             gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  if (flags != 0) return refuse(__func__, invalid_value, "a wrong argument");
  return prefetch(__func__, memory, bytes, where, stream);
}
Result cuMemPrefetchAsync(gpu::Pointer memory, std::size_t bytes, gpu::Device device, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  return prefetch(__func__, memory, bytes, location_of(device), stream);
}
Result cuMemAdvise_v2(gpu::Pointer memory, std::size_t bytes, int advice, gpu::Location where) {
  ENTER(context);
  if (advice != gpu::prefer_location) return refuse(__func__, invalid_value, "a wrong argument");
  return hint(__func__, memory, bytes, where);
}
Result cuMemAdvise(gpu::Pointer memory, std::size_t bytes, int advice, gpu::Device device) {
  ENTER(context);
  if (advice != gpu::prefer_location) return refuse(__func__, invalid_value, "a wrong argument");
  return hint(__func__, memory, bytes, location_of(device));
}

}  // namespace entries
}  // namespace simt
