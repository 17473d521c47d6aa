// Owns the laws of unified memory: what drivers of different ages are asked for, when, and of which buffers.
#include <algorithm>
#include <array>

#include "paged_side.h"
#include "parts.h"

using namespace simt;

namespace {

const std::vector<TensorShape> shapes = {{1, 30000, 0}, {30, 301, 0}, {1, 33, 0}};

// Which functions a driver has makes no difference but in speed.
void check_hints() {
  for (int hints : {2, 1, 0}) {
    reset_for(ADAMW_PLACE_MANAGED);
    fake().hints = hints;
    fake_driver();
    adamw_pager *pager = new_pager(paging(ADAMW_PLACE_MANAGED, 1 << 18));
    {
      const adamw_step_options o = step_options(ADAMW_STATE_FLOAT32, ADAMW_STEP_AMSGRAD);
      Side cpu(o, shapes, 0);
      PagedSide side(pager, o, shapes);
      fill(cpu), fill(side);
      CHECK(cpu.step(1, false) == ADAMW_OK && side.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
      side.get_state("hints");
      check_same(cpu, side, "hints");
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
    std::array<int, 4> made{};  // by version: prefetches, 2 * version + advice
    int others = 0;
    for (const Call &call : fake().calls) {
      if (call.function == "cuMemPrefetchAsync_v2" || call.function == "cuMemAdvise_v2") ++made[2];
      if (call.function == "cuMemPrefetchAsync" || call.function == "cuMemAdvise") ++made[1];
    }
    for (int version = 1; version <= 2; ++version)
      if (version != hints) others += made[static_cast<std::size_t>(version)];
    CHECK(others == 0 && (hints == 0 || made[static_cast<std::size_t>(hints)] > 2), "hints %d: %d %d", hints, made[1],
          made[2]);
    check_clean("hints " + std::to_string(hints));
  }
  reset();
  fake_driver();
}

// Unified memory beyond the budget is told to prefer the host, and used there: nobody asks for it.
void check_beyond() {
  constexpr std::int64_t budget = 1 << 16;
  const auto body = [&](adamw_pager *pager, Side &cpu, PagedSide &side) {
    const auto called = [](const char *function) {
      return std::count_if(fake().calls.begin(), fake().calls.end(),
                           [&](const Call &call) { return call.function == function; });
    };
    CHECK(called("cuMemAdvise_v2") > 0 && stats_of(pager).managed_bytes > 2 * budget, "%lld bytes",
          static_cast<long long>(stats_of(pager).managed_bytes));
    for (int number = 1; number <= 3; ++number) {
      fake().calls.clear();
      CHECK(cpu.step(number, false) == ADAMW_OK && side.step(number, false) == ADAMW_OK, "%s", adamw_last_error());
      CHECK(synchronize(), "a kernel failed");
      const adamw_pager_statistics s = stats_of(pager);
      CHECK((called("cuMemPrefetchAsync_v2") > 0) == (number == 1), "step %d", number);
      CHECK(s.resident_bytes > budget / 2 && s.resident_peak_bytes <= budget && s.bytes_in < 2 * budget &&
                s.bytes_out == 0,
            "step %d: %lld bytes on the device, %lld asked for", number, static_cast<long long>(s.resident_bytes),
            static_cast<long long>(s.bytes_in));
    }
    side.get_state("beyond");
    check_same(cpu, side, "beyond");
  };
  with_both(paging(ADAMW_PLACE_MANAGED, budget), step_options(ADAMW_STATE_FLOAT32), shapes, "beyond", body);
}

// Unified memory that the budget has room for is asked for once, and again only after the host has been at it, or while
// the device is full.
void check_asked_once() {
  const auto body = [&](adamw_pager *pager, Side &cpu, PagedSide &side) {
    int number = 0;
    const auto prefetches = [&] {
      fake().calls.clear();
      ++number;
      CHECK(cpu.step(number, false) == ADAMW_OK && side.step(number, false) == ADAMW_OK, "%s", adamw_last_error());
      CHECK(synchronize(), "a kernel failed");
      return std::count_if(fake().calls.begin(), fake().calls.end(),
                           [](const Call &call) { return call.function == "cuMemPrefetchAsync_v2"; });
    };
    const auto first = prefetches();
    const std::int64_t inside = stats_of(pager).resident_bytes, moved = stats_of(pager).bytes_in;
    CHECK(first > 0 && inside > 0 && moved > 0, "%td prefetches, %lld bytes", first, static_cast<long long>(inside));
    for (int k = 0; k < 3; ++k) CHECK(prefetches() == 0, "step %d asks again", number);
    CHECK(stats_of(pager).bytes_in == moved, "what has not moved is counted");
    for (int k = 0; k < 3; ++k) {
      void *usable = nullptr;
      CHECK(adamw_pager_acquire(pager, side.rows[0].exp_avg, 4096, side.options.stream, &usable) == ADAMW_OK &&
                adamw_pager_release(pager, usable, 1, side.options.stream) == ADAMW_OK,
            "%s", adamw_last_error());
    }
    CHECK(stats_of(pager).resident_bytes == inside, "loans that are over are counted");
    CHECK(adamw_pager_wait(pager) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(prefetches() == first && prefetches() == 0, "after the host");
    const std::size_t memory = fake().memory;
    fake().memory = 1000;
    std::ptrdiff_t asked = 0;
    for (int k = 0; k < 9; ++k) asked = prefetches();
    CHECK(asked == first, "%td prefetches on a full device", asked);
    fake().memory = memory;
    for (int k = 0; k < 9; ++k) asked = prefetches();
    CHECK(asked == 0, "%td prefetches when it is no longer full", asked);
    side.get_state("asked once");
    check_same(cpu, side, "asked once");
  };
  with_both(paging(ADAMW_PLACE_MANAGED), step_options(ADAMW_STATE_FLOAT32), shapes, "asked once", body);
}

}  // namespace

int main(int argc, char **argv) {
  return run_parts(argc, argv, {{"hints", check_hints}, {"beyond", check_beyond}, {"asked", check_asked_once}});
}
