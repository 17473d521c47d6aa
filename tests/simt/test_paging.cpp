// Owns the law that a step over pages of a device leaves the CPU's bytes, in whatever order streams run as far as they
// need not wait for each other; and that it keeps to its budget. (Loans, graphs: test_paging_loans.cpp. Failures:
// test_paging_errors.cpp.)
#include <algorithm>

#include "paged_side.h"
#include "parts.h"

using namespace simt;

namespace {

// Some lie in runs of the unsharded tensor, and windows begin in the middle of one.
const std::vector<TensorShape> shapes = {{1, 1, 0},
                                         {5, 100, 0},
                                         {1, 0, 0},
                                         {40, 512, 100, 512, 1300},
                                         {60, 301, 0, 602, 1505},
                                         {1, 33, 0},
                                         {7, 256, 512},
                                         {1, 30001, 256},
                                         {3, 7003, 0},
                                         {1, 257, 0}};

struct Case {
  adamw_step_options options;
  adamw_pager_options paging;
  Placing placing;
  bool used_state, at_once = false;  // at_once: work runs within the call that queues it
};

std::string name_of(const Case &c) {
  const adamw_step_options &o = c.options;
  char text[256];
  std::snprintf(text, sizeof text,
                "%s, resident %lld: %s %d %d remainder %d flags %u clipping %d unorm %g, offset %lld%s, SIMT_SEED %llu",
                c.paging.backing == ADAMW_PLACE_PINNED ? "pinned" : "managed",
                static_cast<long long>(c.paging.resident_bytes), format_names[o.state_format], o.param_dtype,
                o.grad_dtype, o.remainder_bits, o.flags, o.percentile_clipping, o.max_unorm,
                static_cast<long long>(c.placing.offset), c.placing.together ? ", together" : "",
                static_cast<unsigned long long>(settings().seed));
  return text;
}

// Several steps are queued before any of them runs; then both sides are compared.
void check(const Case &c) {
  if (failures() != 0) return;
  const std::string what = name_of(c);
  reset_for(c.paging.backing);
  fake().queued = !c.at_once;
  adamw_pager *pager = new_pager(c.paging);
  {
    Side cpu(c.options, shapes, 0);
    PagedSide paged(pager, c.options, shapes, c.placing);
    paged.options.stream = new_stream();
    for (Side *side : {&cpu, static_cast<Side *>(&paged)}) {
      side->fill_params(7, true);
      side->spoil_params(8, 9);
      if (c.used_state) side->fill_state(11);
    }
    paged.put_state();
    std::int64_t rows = -1;
    for (int round = 0; round < 2; ++round) {
      for (Side *side : {&cpu, static_cast<Side *>(&paged)}) {
        side->fill_ordinary_gradients(static_cast<std::uint64_t>(round));
        rows = -1;
        side->options.rows_stepped = &rows;
        for (int step = 1; step <= 2; ++step) {
          // In another order windows are others, and what one of them needs is what another has left.
          if (step == 2) std::reverse(side->rows.begin(), side->rows.end());
          CHECK(side->step(2 * round + step, false) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
          if (step == 2) std::reverse(side->rows.begin(), side->rows.end());
          CHECK(rows == static_cast<std::int64_t>(shapes.size()), "%s: %lld rows", what.c_str(),
                static_cast<long long>(rows));
        }
      }
      paged.get_state(what);
      if (!check_same(cpu, paged, what + ", round " + std::to_string(round))) break;
    }
    const adamw_pager_statistics s = stats_of(pager);
    const std::int64_t budget = c.paging.resident_bytes != 0             ? c.paging.resident_bytes
                                : c.paging.backing == ADAMW_PLACE_PINNED ? 4 * c.paging.chunk_bytes
                                                                         : std::int64_t{1} << 40;
    const auto peak = static_cast<std::int64_t>(fake().device_bytes_peak);
    CHECK(peak <= budget && s.resident_peak_bytes <= budget, "%s: %lld bytes on the device, %lld counted", what.c_str(),
          static_cast<long long>(peak), static_cast<long long>(s.resident_peak_bytes));
    if (c.paging.backing == ADAMW_PLACE_PINNED) {
      const bool in_place = c.options.max_unorm > 0.0 || c.options.state_format == ADAMW_STATE_TENSOR8;
      const bool moves = !in_place && s.pinned_bytes > 0, moves_all = moves && c.paging.resident_bytes == 0;
      CHECK(s.bytes_in == s.bytes_out && (s.bytes_in > 0) == moves && (!moves_all || s.bytes_in >= 4 * paged.bytes()),
            "%s: %lld bytes in, %lld out, of %lld", what.c_str(), static_cast<long long>(s.bytes_in),
            static_cast<long long>(s.bytes_out), static_cast<long long>(paged.bytes()));
    }
    CHECK(s.buffers == static_cast<std::int64_t>(paged.allocated.size()), "%s", what.c_str());
    // Buffers may be given back at once: that waits for what is being done with them.
    CHECK(paged.step(5, false) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    paged.free_buffers();
    CHECK(synchronize(), "%s: a kernel failed", what.c_str());
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
  check_clean(what);
}

void check_kinds(int backing) {
  constexpr std::int64_t chunk = 1 << 16, windows = 4 * chunk;
  int number = 0;
  for (int format = 0; format < state_formats; ++format) {
    for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD | ADAMW_STEP_STOCHASTIC_ROUNDING}}) {
      for (int measures = 0; measures < 3; ++measures) {
        for (std::int64_t resident : {std::int64_t{0}, windows + 150000, windows + 4000000}) {
          ++number;
          if (abridged && number % 5 % 3 != 0) continue;
          Case c{step_options(static_cast<adamw_state_format>(format), flags, static_cast<adamw_dtype>(number % 3),
                              static_cast<adamw_dtype>(number / 3 % 3)),
                 paging(backing, resident, chunk),
                 {number % 4 == 0 ? number % 5 : 0, number % 5 == 0},
                 number % 2 == 0};
          if (c.options.param_dtype == ADAMW_BFLOAT16) c.options.remainder_bits = number / 3 % 3 * 8;
          if (measures >= 1) c.options.percentile_clipping = 30;
          if (measures == 2) c.options.max_unorm = 0.01;
          settings().seed += static_cast<std::uint64_t>(number);
          c.at_once = number % 9 == 5;
          check(c);
        }
      }
    }
  }
}
void check_pinned() { check_kinds(ADAMW_PLACE_PINNED); }
void check_managed() { check_kinds(ADAMW_PLACE_MANAGED); }

// Calls that use the same state where it lies and in windows, in turn, on two streams, with parameters of their own:
// only the pager can order them.
void check_order_of_calls() {
  const std::vector<TensorShape> tensors = {{1, 20000, 0}, {30, 300, 0}};
  for (int repetition = 0; repetition < 20 && failures() == 0; ++repetition) {
    ++settings().seed;
    reset_for(ADAMW_PLACE_PINNED);
    adamw_pager *pager = new_pager(paging(ADAMW_PLACE_PINNED));
    {
      const adamw_step_options in_windows = step_options(ADAMW_STATE_BLOCK8);
      adamw_step_options in_place = in_windows;
      in_place.max_unorm = 0.02;
      Side cpu(in_windows, tensors, 0), other_cpu(in_place, tensors, 0);
      PagedSide side(pager, in_windows, tensors);
      Side other(in_place, tensors, 0);
      other.options.device = 0, other.options.pager = pager;
      const gpu::Stream streams[] = {new_stream(), new_stream(), new_stream()};
      int seed = 0;
      for (Side *s : {&cpu, static_cast<Side *>(&side), &other_cpu, &other}) {
        s->fill_params(static_cast<std::uint64_t>(seed / 2));
        s->fill_gradients(static_cast<std::uint64_t>(seed++ / 2), false);
      }
      const auto share_state = [](const Side &from, Side *to) {
        for (std::size_t i = 0; i < from.rows.size(); ++i) {
          to->rows[i].exp_avg = from.rows[i].exp_avg, to->rows[i].exp_avg_sq = from.rows[i].exp_avg_sq;
          to->rows[i].exp_avg_absmax = from.rows[i].exp_avg_absmax;
          to->rows[i].exp_avg_sq_absmax = from.rows[i].exp_avg_sq_absmax;
          to->rows[i].exp_avg_sq_floor = from.rows[i].exp_avg_sq_floor;
        }
      };
      share_state(cpu, &other_cpu);
      share_state(side, &other);
      // In windows twice, in place, in windows, in place; below in place on a third stream.
      int step = 0;
      Side *const first = &side;
      for (Side *s : {first, first, &other, first, &other}) {
        s->options.stream = streams[s == &other];
        (s == &other ? other_cpu : cpu).step(++step, false);
        CHECK(s->step(step, false) == ADAMW_OK, "%s", adamw_last_error());
      }
      // A third owner of parameters, in place on a third stream.
      Side third_cpu(in_place, tensors, 0), third(in_place, tensors, 0);
      third.options.device = 0, third.options.pager = pager, third.options.stream = streams[2];
      for (Side *s : {&third_cpu, &third}) s->fill_params(8), s->fill_gradients(9, false);
      share_state(cpu, &third_cpu);
      share_state(side, &third);
      third_cpu.step(++step, false);
      CHECK(third.step(step, false) == ADAMW_OK, "%s", adamw_last_error());
      const std::string what = "order of calls, SIMT_SEED " + std::to_string(settings().seed);
      side.get_state(what);
      check_same(cpu, side, what);
      CHECK(std::memcmp(third_cpu.memory[0][Side::param].at(), third.memory[0][Side::param].at(), 80000) == 0,
            "%s: third", what.c_str());
      CHECK(std::memcmp(other_cpu.memory[0][Side::param].at(), other.memory[0][Side::param].at(), 80000) == 0,
            "%s: other", what.c_str());
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
    check_clean("order of calls");
  }
}

// A step that has been done once neither waits on the host nor allocates.
void check_steady() {
  for (int backing : {ADAMW_PLACE_PINNED, ADAMW_PLACE_MANAGED}) {
    for (double unorm : {0.0, 0.01}) {
      reset_for(backing);
      adamw_pager *pager = new_pager(paging(backing, (4 << 16) + 100000));
      {
        adamw_step_options o = step_options(ADAMW_STATE_BLOCK8);
        o.max_unorm = unorm;
        o.percentile_clipping = 30;
        PagedSide side(pager, o, shapes);
        side.fill_params(1), side.fill_gradients(1, false);
        side.options.stream = new_stream();
        CHECK(side.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
        fake().calls.clear();
        CHECK(side.step(2, false) == ADAMW_OK, "%s", adamw_last_error());
        for (const Call &call : fake().calls) {
          const std::string &f = call.function;
          const bool waits = f == "cuEventSynchronize" || f == "cuStreamSynchronize";
          const bool makes = f == "cuMemAlloc_v2" || f == "cuMemHostAlloc" || f == "cuMemAllocManaged" ||
                             f == "cuStreamCreate" || f == "cuEventCreate" || f == "cuMemFree_v2" ||
                             f == "cuMemFreeHost";
          CHECK(!waits && !makes, "backing %d: a step calls %s", backing, f.c_str());
        }
        CHECK(synchronize(), "a kernel failed");
      }
      CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
      check_clean("steady");
    }
  }
}

}  // namespace

int main(int argc, char **argv) {
  return run_parts(argc, argv,
                   {{"pinned", check_pinned},
                    {"order", check_order_of_calls},
                    {"managed", check_managed},
                    {"steady", check_steady}});
}
