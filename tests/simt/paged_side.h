// Owns a Side whose state lies in the buffers of a pager, and what tests of paging share.
#pragma once

#include "fake_driver.h"
#include "paging_mutants.h"
#include "runtime.h"
#include "sides.h"

namespace simt {

inline adamw_pager_options paging(int backing, std::int64_t resident = 0, std::int64_t chunk = 1 << 16) {
  adamw_pager_options o = ADAMW_PAGER_OPTIONS_INIT;
  o.backing = backing;
  o.device = 0;
  o.resident_bytes = resident;
  o.chunk_bytes = chunk;
  return o;
}

// Everything as at the beginning, with a mutant's faults for pagers of this backing.
inline void reset_for(int backing) {
  reset();
  fake().loses = backing == ADAMW_PLACE_PINNED ? loses_as_mutant : loses_as_managed_mutant;
}

inline adamw_pager *new_pager(const adamw_pager_options &options) {
  adamw_pager *pager = nullptr;
  CHECK(adamw_pager_create(&options, &pager) == ADAMW_OK && pager != nullptr, "create: %s", adamw_last_error());
  return pager;
}

inline adamw_pager_statistics stats_of(adamw_pager *pager) {
  adamw_pager_statistics s{};
  CHECK(adamw_pager_stats(pager, &s, sizeof s) == ADAMW_OK, "stats: %s", adamw_last_error());
  return s;
}

// Nothing of the library is left, and nothing wrong has been done.
inline void check_clean(const std::string &what) {
  CHECK(synchronize(), "%s: a kernel failed", what.c_str());
  CHECK(live_allocations() == 0, "%s: %zu allocations stay", what.c_str(), live_allocations());
  CHECK(handles() == 0, "%s: %d streams and events stay", what.c_str(), handles());
  CHECK(current_contexts().empty(), "%s: %zu contexts are current", what.c_str(), current_contexts().size());
  for (const std::string &misuse : fake().misuse) CHECK(false, "%s: misuse: %s", what.c_str(), misuse.c_str());
}

inline void fill(Side &side) {
  side.fill_params(1);
  side.fill_gradients(2, false);
}

// Where state lies in buffers: every moment, every scale and every remainder in one of its own, `offset` elements from
// its beginning; or all in one.
struct Placing {
  std::int64_t offset;
  bool together;
};

struct PagedSide : Side {
  struct Buffer {
    std::uint8_t *memory;
    Guarded *home;  // what it stands for in check_same()
    std::int32_t place;
  };
  adamw_pager *const pager;
  std::vector<void *> allocated;
  std::vector<Buffer> buffers;
  adamw_status status = ADAMW_OK;  // of the allocations: the first error

  PagedSide(adamw_pager *p, const adamw_step_options &o, const std::vector<TensorShape> &s,
            Placing placing = {0, false})
      : Side(o, s, 0), pager(p) {
    options.device = 0;
    options.pager = p;
    std::vector<void **> pointers;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      adamw_tensor &row = rows[i];
      void **const moments[] = {&row.exp_avg, &row.exp_avg_sq, &row.max_exp_avg_sq};
      float **const absmax[] = {&row.exp_avg_absmax, &row.exp_avg_sq_absmax, &row.max_exp_avg_sq_absmax};
      float **const floors[] = {nullptr, &row.exp_avg_sq_floor, &row.max_exp_avg_sq_floor};
      const auto add = [&](std::size_t b, void **pointer) {
        if (memory[i][b].bytes() == 0) return;
        buffers.push_back({nullptr, &memory[i][b], -1});
        pointers.push_back(pointer);
      };
      for (std::size_t k = 0; k < ((o.flags & ADAMW_STEP_AMSGRAD) != 0 ? 3 : 2); ++k) {
        add(exp_avg + k, moments[k]);
        add(absmax0 + k, reinterpret_cast<void **>(absmax[k]));
        if (k > 0) add(floor1 + k - 1, reinterpret_cast<void **>(floors[k]));
      }
      add(remainder, &row.param_remainder);
    }
    std::int64_t bytes = 0;
    for (const Buffer &b : buffers) bytes += room_of(b);
    std::uint8_t *at = nullptr;
    std::int32_t place = -1;
    if (placing.together) at = take(bytes, &place);
    for (std::size_t i = 0; i < buffers.size() && status == ADAMW_OK; ++i) {
      Buffer &b = buffers[i];
      const auto unit = static_cast<std::int64_t>(size_of_state(o.state_format)), offset = placing.offset * unit * 4;
      if (!placing.together) at = take(static_cast<std::int64_t>(b.home->bytes()) + offset, &place);
      if (at == nullptr) break;
      b.memory = at + (placing.together ? 0 : offset);
      b.place = place;
      *pointers[i] = b.memory;
      if (placing.together) at += room_of(b);
    }
  }
  ~PagedSide() { free_buffers(); }
  PagedSide(const PagedSide &) = delete;

  void free_buffers() {
    for (void *buffer : allocated) CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK, "%s", adamw_last_error());
    allocated.clear();
  }
  // What the host has, to the buffers.
  void put_state() {
    for (const Buffer &b : buffers) copy_to_device(b.memory, b.home->at(), b.home->bytes());
  }
  // And back, when all work is done. What the host can see in pinned memory after adamw_pager_wait() alone is the same.
  void get_state(const std::string &what) {
    CHECK(adamw_pager_wait(pager) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    for (const Buffer &b : buffers)
      if (b.place == ADAMW_PLACE_PINNED) std::memcpy(b.home->at(), b.memory, b.home->bytes());
    CHECK(synchronize(), "%s: a kernel failed", what.c_str());
    bool same = true;
    for (const Buffer &b : buffers) {
      if (b.place == ADAMW_PLACE_PINNED) same = same && std::memcmp(b.home->at(), b.memory, b.home->bytes()) == 0;
      copy_from_device(b.home->at(), b.memory, b.home->bytes());
    }
    CHECK(same, "%s: adamw_pager_wait() has not waited", what.c_str());
  }
  std::int64_t bytes() const {
    std::int64_t all = 0;
    for (const Buffer &b : buffers) all += static_cast<std::int64_t>(b.home->bytes());
    return all;
  }

 private:
  static std::int64_t room_of(const Buffer &b) { return (static_cast<std::int64_t>(b.home->bytes()) + 15) / 16 * 16; }
  std::uint8_t *take(std::int64_t bytes, std::int32_t *place) {
    void *buffer = nullptr;
    const adamw_status s = adamw_pager_alloc(pager, bytes, &buffer, place);
    CHECK((s == ADAMW_OK) == (buffer != nullptr), "alloc: status %d, %p", s, buffer);
    if (status == ADAMW_OK) status = s;
    if (buffer == nullptr) return nullptr;
    allocated.push_back(buffer);
    std::vector<std::uint8_t> seen(static_cast<std::size_t>(bytes), 1), zeros(static_cast<std::size_t>(bytes), 0);
    copy_from_device(seen.data(), buffer, seen.size());
    CHECK(seen == zeros && reinterpret_cast<std::uintptr_t>(buffer) % 64 == 0, "a fresh buffer at %p", buffer);
    return static_cast<std::uint8_t *>(buffer);
  }
};

// body(pager, cpu, side), with the same tensors on both sides; after it nothing is left.
template <class Body>
void with_both(const adamw_pager_options &pages, const adamw_step_options &options,
               const std::vector<TensorShape> &shapes, const std::string &what, const Body &body) {
  reset_for(pages.backing);
  adamw_pager *pager = new_pager(pages);
  {
    Side cpu(options, shapes, 0);
    PagedSide side(pager, options, shapes);
    fill(cpu), fill(side);
    body(pager, cpu, side);
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  check_clean(what);
}

}  // namespace simt
