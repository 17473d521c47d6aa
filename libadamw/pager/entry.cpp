// Owns the entry points adamw_pager_*: checks what callers pass, and lets no exception out.
#include <algorithm>
#include <cinttypes>

#include "../check/check.h"
#include "../check/sizes.h"
#include "../guarded.h"
#include "../platform.h"
#include "pager.h"

namespace adamw {
namespace {

constexpr std::int64_t largest_chunk = std::int64_t{1} << 40;
constexpr std::int64_t max_buffer_bytes = std::int64_t{1} << 60;  // whole pages of it are still a number

adamw_status create(const char *function, const adamw_pager_options *options, adamw_pager **pager) {
  const auto bad = [=](const char *field, std::int64_t value, const std::string &need) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.%s = %" PRId64 ": must be %s", function, field, value,
                need.c_str());
  };
  if (pager == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: pager is NULL", function);
  *pager = nullptr;
  adamw_pager_options o;
  if (adamw_status s = read_options(function, options, ADAMW_PAGER_OPTIONS_INIT, o)) return s;
  if (!names_backing(o.backing)) return bad("backing", o.backing, "ADAMW_PLACE_" + backings_with(is_backing, "or"));
  if (o.device < -1) return bad("device", o.device, "-1 (CPU) or a CUDA device number");
  const auto place = static_cast<adamw_place>(o.backing);
  const PlaceTraits traits = traits_of(place);
  if (traits.is(on_cpu) && o.device >= 0)
    return bad("device", o.device,
               "-1 for the backings " + backings_with(on_cpu, "and") + ": steps on a CUDA device take " +
                   backings_with(on_cpu, "or", false));
  if (!traits.is(on_cpu) && o.device < 0)
    return bad("device", o.device,
               "a CUDA device number for the backings " + backings_with(on_cpu, "and", false) + ": the CPU takes " +
                   backings_with(on_cpu, "or"));
  if (adamw_status s = check_device(function, o.device)) return s;
  if (traits.make == nullptr)
    return fail(ADAMW_ERROR_UNSUPPORTED,
                "%s: options.backing = %" PRId32 ": this build of the library has no backing ADAMW_PLACE_%s", function,
                o.backing, traits.name);
  if (o.resident_bytes < 0) return bad("resident_bytes", o.resident_bytes, "0 (the default) or above");
  if (o.chunk_bytes != 0 && (o.chunk_bytes < smallest_chunk || o.chunk_bytes > largest_chunk))
    return bad("chunk_bytes", o.chunk_bytes, "0 (the default) or in 65536 ... 2^40");
  if (!traits.is(in_files) && o.reserve_bytes != 0)
    return bad("reserve_bytes", o.reserve_bytes, "0 except for the backing " + backings_with(in_files, "or"));
  if (o.reserve_bytes < 0 || o.reserve_bytes > max_buffer_bytes)
    return bad("reserve_bytes", o.reserve_bytes, "in 0 ... 2^60");
  if (!traits.is(in_files) && o.directory != nullptr)
    return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options.directory = '%s': must be NULL except for the backing %s",
                function, o.directory, backings_with(in_files, "or").c_str());
  PagerOptions decided{place, o.device, o.resident_bytes, o.chunk_bytes, o.reserve_bytes, ""};
  const bool windows = traits.is(windows_in_budget);
  if (decided.chunk_bytes == 0) {
    // Half of a small budget for the windows.
    const std::int64_t fit = o.resident_bytes / (2 * page_windows) / page_bytes * page_bytes;
    decided.chunk_bytes =
        windows && o.resident_bytes != 0 ? std::clamp(fit, smallest_chunk, traits.usual_chunk) : traits.usual_chunk;
  }
  decided.chunk_bytes = round_up(decided.chunk_bytes, page_bytes);
  if (windows && o.resident_bytes != 0 && o.resident_bytes < page_windows * decided.chunk_bytes) {
    return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                "%s: options.resident_bytes = %" PRId64 ": must hold %d windows of chunk_bytes = %" PRId64
                ": 0 (the default) or at least %" PRId64,
                function, o.resident_bytes, page_windows, decided.chunk_bytes, page_windows * decided.chunk_bytes);
  }
  if (traits.is(in_files)) {
    decided.directory = o.directory != nullptr ? o.directory : temporary_directory();
  }
  auto fresh = std::make_unique<adamw_pager>(decided);
  if (adamw_status s = fresh->open(function, traits.make)) return s;
  *pager = fresh.release();
  return ADAMW_OK;
}

// Every function but create() and destroy(): a pager is given, and then body().
template <class Body>
adamw_status with_pager(const char *function, const adamw_pager *pager, const Body &body) {
  return guarded(function, [&] {
    if (pager == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: pager is NULL", function);
    return body(function);
  });
}

adamw_status is_null(const char *function, const char *field) {
  return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: %s is NULL", function, field);
}

}  // namespace
}  // namespace adamw

using namespace adamw;

adamw_status adamw_pager_create(const adamw_pager_options *options, adamw_pager **pager) {
  return guarded("adamw_pager_create", [&] { return create("adamw_pager_create", options, pager); });
}

adamw_status adamw_pager_destroy(adamw_pager *pager) {
  return guarded("adamw_pager_destroy", [&] {
    if (pager != nullptr && !pager->empty())
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "adamw_pager_destroy: the pager still has buffers: free them first");
    delete pager;
    return ADAMW_OK;
  });
}

adamw_status adamw_pager_alloc(adamw_pager *pager, int64_t bytes, void **buffer, int32_t *place) {
  return with_pager("adamw_pager_alloc", pager, [&](const char *function) {
    if (buffer == nullptr) return is_null(function, "buffer");
    *buffer = nullptr;
    if (bytes < 1 || bytes > max_buffer_bytes)
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: bytes = %" PRId64 ": must be in 1 ... 2^60", function, bytes);
    return pager->allocate(function, bytes, buffer, place);
  });
}

adamw_status adamw_pager_free(adamw_pager *pager, void *buffer) {
  return with_pager("adamw_pager_free", pager,
                    [&](const char *function) { return buffer == nullptr ? ADAMW_OK : pager->free(function, buffer); });
}

adamw_status adamw_pager_acquire(adamw_pager *pager, void *address, int64_t bytes, void *stream, void **usable) {
  return with_pager("adamw_pager_acquire", pager, [&](const char *function) {
    if (usable == nullptr) return is_null(function, "usable");
    return pager->acquire(function, address, bytes, stream, usable);
  });
}

adamw_status adamw_pager_release(adamw_pager *pager, void *usable, int32_t dirty, void *stream) {
  return with_pager("adamw_pager_release", pager,
                    [&](const char *function) { return pager->release(function, usable, dirty != 0, stream); });
}

adamw_status adamw_pager_prefetch(adamw_pager *pager, void *address, int64_t bytes, void *stream) {
  return with_pager("adamw_pager_prefetch", pager,
                    [&](const char *function) { return pager->prefetch(function, address, bytes, stream); });
}

adamw_status adamw_pager_wait(adamw_pager *pager) {
  return with_pager("adamw_pager_wait", pager, [&](const char *function) { return pager->wait(function); });
}

adamw_status adamw_pager_stats(adamw_pager *pager, adamw_pager_statistics *statistics, size_t size) {
  return with_pager("adamw_pager_stats", pager, [&](const char *function) {
    if (statistics == nullptr) return is_null(function, "statistics");
    if (adamw_status s = check_size_of<adamw_pager_statistics>(function, "size", size)) return s;
    adamw_pager_statistics found{};
    const adamw_status status = pager->statistics(function, &found);
    if (status == ADAMW_OK) write_struct(statistics, size, found);
    return status;
  });
}
