// Owns the table of places, see places.h.
#include "places.h"

#include "../platform.h"

namespace adamw {
namespace {

// Windows of unified memory take no memory, but a launch each.
constexpr std::int64_t default_chunk = std::int64_t{16} << 20, managed_chunk = std::int64_t{1} << 30;

#ifdef ADAMW_HAS_FILE_PAGES
constexpr MakesBacking *file = file_backing;
#else
constexpr MakesBacking *file = nullptr;
#endif
#ifdef ADAMW_CUDA_MAJOR
constexpr MakesBacking *pinned = gpu::pinned_backing, *managed = gpu::managed_backing;
#else
constexpr MakesBacking *pinned = nullptr, *managed = nullptr;
#endif

}  // namespace

// One row per place. A place without one does not compile (-Werror=switch).
PlaceTraits traits_of(adamw_place place) {
  using Statistics = adamw_pager_statistics;
  switch (place) {
    case ADAMW_PLACE_HOST:
      return {"HOST", is_backing | on_cpu, &Statistics::host_bytes, default_chunk, host_backing};
    case ADAMW_PLACE_FILE:
      return {"FILE", is_backing | on_cpu | brought_in | windows_in_budget | in_files, &Statistics::file_bytes,
              default_chunk, file};
    case ADAMW_PLACE_PINNED:
      return {"PINNED", is_backing | brought_in | windows_in_budget, &Statistics::pinned_bytes, default_chunk, pinned};
    case ADAMW_PLACE_MANAGED:
      return {"MANAGED", is_backing | brought_in | unlimited_budget | counts_residents, &Statistics::managed_bytes,
              managed_chunk, managed};
    case ADAMW_PLACE_DEVICE:
      return {"DEVICE", 0, &Statistics::device_bytes, 0, nullptr};
  }
  return {};
}

namespace {

// Calls body(number, traits) for each place, in order: they are numbered from 0 on.
template <class Body>
void over_places(const Body &body) {
  for (std::int32_t number = 0;; ++number) {
    const PlaceTraits traits = traits_of(static_cast<adamw_place>(number));
    if (traits.name == nullptr) return;
    body(number, traits);
  }
}

}  // namespace

bool names_backing(std::int32_t wanted) {
  bool found = false;
  over_places(
      [&](std::int32_t number, const PlaceTraits &p) { found = found || (number == wanted && p.is(is_backing)); });
  return found;
}

std::string backings_with(PlaceTrait trait, const char *conjunction, bool has) {
  std::string text, last;
  over_places([&](std::int32_t, const PlaceTraits &p) {
    if (!p.is(is_backing) || p.is(trait) != has) return;
    if (!last.empty()) text += (text.empty() ? "" : ", ") + last;
    last = p.name;
  });
  return text.empty() ? last : text + ' ' + conjunction + ' ' + last;
}

}  // namespace adamw
