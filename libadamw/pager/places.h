// Owns what is true of a place where buffers may lie, and of the backing that is called after it: one row each, in
// places.cpp. Whoever must treat places differently asks here. Knows no way of moving bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "../../include/adamw.h"

namespace adamw {

class Backing;  // pager.h
struct PagerCounts;
struct PagerOptions;

using MakesBacking = adamw_status(const char *function, const PagerOptions &, PagerCounts &,
                                  std::unique_ptr<Backing> *backing);

// The backings, each in a file of its own; those in gpu are in the builds for CUDA alone.
MakesBacking host_backing, file_backing;
namespace gpu {
MakesBacking pinned_backing, managed_backing;
}

// What a place is, and a backing called after it; or-ed.
enum PlaceTrait : unsigned {
  is_backing = 1,         // a pager can be made with it
  on_cpu = 2,             // steps of such a pager run on the CPU, not on a device
  brought_in = 4,         // its state is brought in for a step, not only used where it lies
  windows_in_budget = 8,  // resident_bytes holds its windows, too
  unlimited_budget = 16,  // resident_bytes = 0: everything is resident
  counts_residents = 32,  // its Backing counts the resident bytes of buffers, which only it can know
  in_files = 64           // it has a directory, and can reserve space there
};

struct PlaceTraits {
  const char *name;                             // in messages; null: there is no such place
  unsigned what;                                // PlaceTrait
  std::int64_t adamw_pager_statistics::*bytes;  // of the buffers that lie there
  std::int64_t usual_chunk;                     // for chunk_bytes = 0
  MakesBacking *make;                           // null: not in this build

  bool is(PlaceTrait trait) const { return (what & trait) != 0; }
};

PlaceTraits traits_of(adamw_place place);

// Whether a caller's number is a place that can be a backing.
bool names_backing(std::int32_t number);

// For messages, "HOST, FILE or PINNED": the backings that have `trait`, or that have it not.
std::string backings_with(PlaceTrait trait, const char *conjunction, bool has = true);

}  // namespace adamw
