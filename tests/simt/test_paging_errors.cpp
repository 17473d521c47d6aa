// Owns the law that every call of the driver may fail for a pager, too: an error that names it, nothing left behind,
// and a pager that can be used on.
#include "paged_side.h"
#include "parts.h"

using namespace simt;

namespace {

const std::vector<TensorShape> shapes = {{1, 40, 0}, {1, 13000, 0}, {20, 300, 0}, {3, 33, 0}};

struct Work {
  const char *name;
  int backing;
  std::int64_t resident;
  adamw_state_format format;
  bool measured, clipped;
};
constexpr std::int64_t windows = 4 << 16;
constexpr Work works[] = {
    {"pinned", ADAMW_PLACE_PINNED, 0, ADAMW_STATE_FLOAT32, false, false},
    {"pinned, some resident, clipped", ADAMW_PLACE_PINNED, windows + 20000, ADAMW_STATE_BLOCK8, false, true},
    {"pinned, in place", ADAMW_PLACE_PINNED, windows + 20000, ADAMW_STATE_BLOCK8, true, false},
    {"managed", ADAMW_PLACE_MANAGED, windows + 20000, ADAMW_STATE_FLOAT32, false, false},
    {"managed, no limit, in place", ADAMW_PLACE_MANAGED, 0, ADAMW_STATE_TENSOR8, true, false}};

adamw_step_options options_of(const Work &work) {
  adamw_step_options o = step_options(work.format, ADAMW_STEP_AMSGRAD);
  if (work.measured) o.max_unorm = 0.02;
  if (work.clipped) o.percentile_clipping = 40;
  return o;
}

std::string plain(const std::string &function) {
  const std::size_t at = function.rfind("_v2");
  return at == std::string::npos ? function : function.substr(0, at);
}

void fill_used(Side &side) {
  side.fill_params(1);
  side.fill_state(3);
  side.fill_gradients(2, false);
}

// Without paging, before and after the step that fails.
struct Unpaged {
  Contents before, after;
  explicit Unpaged(const Work &work) {
    Side side(options_of(work), shapes, 0);
    fill_used(side);
    before = contents_of(side);
    CHECK(side.step(2, false) == ADAMW_OK, "%s", adamw_last_error());
    after = contents_of(side);
  }
};

// A failed step: each row has been stepped, or not, as rows_stepped and the message say; the one it stopped at, in
// part.
void check_rows(const Unpaged &unpaged, const Side &side, std::int64_t rows_stepped, const std::string &what) {
  for (std::size_t row = 0; row < shapes.size(); ++row) {
    const auto number = static_cast<std::int64_t>(row);
    if (number < rows_stepped)
      CHECK(same_row(side, unpaged.after, row), "%s: row %zu of %lld has not been stepped", what.c_str(), row,
            static_cast<long long>(rows_stepped));
    else if (number > rows_stepped)
      CHECK(same_row(side, unpaged.after, row) || same_row(side, unpaged.before, row), "%s: row %zu is neither",
            what.c_str(), row);
  }
}

struct Result {
  adamw_status status;
  std::string message;
};

// Calls of an end that cannot be made up for: a context that cannot be made current takes with it what it has. Known
// from a life in which nothing fails.
struct Ends {
  std::vector<std::string> calls;
  std::size_t step = 0, begin = 0;  // where the first step begins, and the end
  bool has(int call) const {
    const auto i = static_cast<std::size_t>(call) - 1;
    return i >= begin && i < calls.size() && calls[i] == "cuCtxPushCurrent_v2";
  }
};

// One life of a pager, in which call number `failing_call` fails from the beginning, or from the first step on. true:
// it was made.
bool check_failure(const Work &work, const Unpaged &unpaged, int failing_call, gpu::Result failure, bool from_step,
                   Ends *ends) {
  fresh_driver();
  current_contexts() = {context_of(0)};  // the caller's
  const auto arm = [&] {
    fake().calls.clear();
    fake().failing_call = failing_call;
    fake().failure = failure;
  };
  const auto made = [&] { return failing_call > 0 && fake().calls.size() >= static_cast<std::size_t>(failing_call); };
  const auto call = [&] {
    return made() ? plain(fake().calls[static_cast<std::size_t>(failing_call) - 1].function) : "";
  };
  if (!from_step) arm();
  adamw_pager *pager = nullptr;
  const adamw_pager_options options = paging(work.backing, work.resident);
  std::vector<Result> results;
  const auto note = [&](adamw_status status) {
    if (status != ADAMW_OK) results.push_back({status, adamw_last_error()});
    return status == ADAMW_OK;
  };
  bool is_armed = !from_step;
  if (note(adamw_pager_create(&options, &pager))) {
    PagedSide side(pager, options_of(work), shapes);
    if (note(side.status)) {
      fill_used(side);
      side.put_state();
      side.options.stream = new_stream();
      if (from_step) {  // what is done once has been done
        Side warm(options_of(work), {{1, 40, 0}}, 0);
        warm.options.device = 0, warm.options.stream = side.options.stream;
        CHECK(warm.step(1, false) == ADAMW_OK && synchronize(), "%s", adamw_last_error());
        restart_count();
        arm(), is_armed = true;
      }
      std::int64_t rows = -1;
      side.options.rows_stepped = &rows;
      if (failing_call == 0) ends->step = fake().calls.size();
      const bool stepped = note(side.step(2, false));
      const std::string what = std::string(work.name) + ": call " + std::to_string(failing_call) + " (" + call() + ")";
      side.options.rows_stepped = nullptr;
      if (!stepped) {
        fake().failing_call = 0;
        side.get_state(what);
        check_rows(unpaged, side, rows, what);
        // On from there: nothing is in the way of another step, which takes what this one has left.
        CHECK(side.step(3, false) == ADAMW_OK, "%s, then: %s", what.c_str(), adamw_last_error());
        side.get_state(what);
      } else {
        note(adamw_pager_wait(pager));
      }
      if (failing_call == 0) ends->begin = fake().calls.size();
    } else {
      fake().failing_call = 0;
    }
  }
  const bool was_made = is_armed && made();
  const std::string what = std::string(work.name) + ": call " + std::to_string(failing_call) + " (" + call() + "), " +
                           std::to_string(failure);
  if (pager != nullptr) CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
  fake().failing_call = 0;
  CHECK(current_contexts() == std::vector<gpu::Context>{context_of(0)}, "%s: contexts", what.c_str());
  current_contexts().clear();
  CHECK(results.size() <= 1 && (results.empty() || was_made), "%s: %zu errors", what.c_str(), results.size());
  for (const Result &result : results) {
    CHECK(result.status == (failure == 2 ? ADAMW_ERROR_OUT_OF_MEMORY : ADAMW_ERROR_DEVICE), "%s: status %d",
          what.c_str(), result.status);
    CHECK(result.message.find(call()) != std::string::npos, "%s: '%s'", what.c_str(), result.message.c_str());
  }
  // A failure that nobody hears of: only of what gives something back.
  if (was_made && results.empty()) {
    const std::string f = call();
    CHECK(f.find("Free") != std::string::npos || f.find("Destroy") != std::string::npos || f == "cuCtxPushCurrent" ||
              f == "cuCtxPopCurrent" || f == "cuEventSynchronize" || f == "cuStreamSynchronize",
          "%s is swallowed", what.c_str());
  }
  check_clean(what);
  if (failing_call == 0)
    for (const Call &c : fake().calls) ends->calls.push_back(c.function);
  return made();
}

void check_failures() {
  constexpr int stride = abridged ? 6 : 1;
  int number = 0;
  for (const Work &work : works) {
    fresh_driver();
    const Unpaged unpaged(work);
    for (bool from_step : {false, true}) {
      for (gpu::Result failure : {719, 2}) {
        if (failure == 2 && (from_step || work.clipped || work.measured)) continue;  // as above
        Ends ends;
        check_failure(work, unpaged, 0, failure, from_step, &ends);
        int call = 1 + number++ % stride;
        // Lives from the beginning on look at every third call of the step, which those from there on look at, too.
        const auto next = [&] { return from_step || call < static_cast<int>(ends.step) ? stride : 3 * stride; };
        while (failures() == 0 && (ends.has(call) || check_failure(work, unpaged, call, failure, from_step, &ends)))
          call += next();
        CHECK(call > 20, "%s: only %d calls", work.name, call - 1);
      }
    }
  }
  fresh_driver();
}

// A failure while a loan is out.
void check_loan_failures() {
  for (int call = 1, made = 1; made != 0 && failures() == 0; ++call) {
    fresh_driver();
    adamw_pager *pager = new_pager(paging(ADAMW_PLACE_PINNED));
    const gpu::Stream stream = new_stream();
    void *buffer = nullptr;
    CHECK(adamw_pager_alloc(pager, 50000, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    restart_count();
    fake().calls.clear();
    fake().failing_call = call;
    std::uint8_t value = 1;
    // What a loan leaves is what the next one finds, whatever has failed between.
    for (int loan = 0; loan < 3; ++loan) {
      void *usable = nullptr;
      if (adamw_pager_acquire(pager, buffer, 50000, stream, &usable) != ADAMW_OK) continue;
      auto *bytes = static_cast<std::uint8_t *>(usable);
      enqueue(stream, [=] { std::memset(bytes, value, 50000); });
      const bool released = adamw_pager_release(pager, usable, 1, stream) == ADAMW_OK;
      const std::uint8_t expected = value++;
      if (!released) continue;
      CHECK(adamw_pager_acquire(pager, buffer, 50000, stream, &usable) == ADAMW_OK || fake().failing_call != 0, "%s",
            adamw_last_error());
      if (usable == nullptr) continue;
      bytes = static_cast<std::uint8_t *>(usable);
      enqueue(stream, [=] {
        CHECK(bytes[0] == expected && bytes[49999] == expected, "call %d: %d for %d", call, bytes[0], expected);
      });
      adamw_pager_release(pager, usable, 0, stream);
    }
    made = fake().calls.size() >= static_cast<std::size_t>(call);
    fake().failing_call = 0;
    CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
          adamw_last_error());
    check_clean("loans, call " + std::to_string(call));
  }
  fresh_driver();
}

void check_cycles() {
  for (int backing : {ADAMW_PLACE_PINNED, ADAMW_PLACE_MANAGED}) {
    for (int cycle = 0; cycle < 100 && failures() == 0; ++cycle) {
      adamw_pager *pager = new_pager(paging(backing, cycle % 2 == 0 ? 0 : windows + 20000));
      {
        PagedSide side(pager, step_options(ADAMW_STATE_BLOCK8), {{1, 40, 0}, {20, 300, 0}});
        fill_used(side);
        CHECK(side.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
        side.free_buffers();
        const adamw_pager_statistics s = stats_of(pager);
        CHECK(s.buffers == 0 && s.pinned_bytes == 0 && s.managed_bytes == 0 && s.device_bytes == 0, "cycle %d", cycle);
        CHECK(synchronize(), "a kernel failed");
      }
      CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
      check_clean("cycle " + std::to_string(cycle));
    }
  }
}

void check_machines() {
  fresh_driver();
  adamw_pager *pager = nullptr;
  fake().attributes[gpu::concurrent_managed_access] = 0;
  const adamw_pager_options managed = paging(ADAMW_PLACE_MANAGED), pinned = paging(ADAMW_PLACE_PINNED);
  CHECK(adamw_pager_create(&managed, &pager) == ADAMW_ERROR_UNSUPPORTED && pager == nullptr &&
            std::strstr(adamw_last_error(), "ADAMW_PLACE_PINNED") != nullptr,
        "no concurrent access: %s", adamw_last_error());
  // Pinned memory it can have. Windows that do not fit are an error of the step, which can be made up for.
  pager = new_pager(pinned);
  {
    Side cpu(step_options(), shapes, 0);
    PagedSide side(pager, step_options(), shapes);
    fill_used(cpu), fill_used(side);
    side.put_state();
    fake().memory = 100000;
    CHECK(side.step(1, false) == ADAMW_ERROR_OUT_OF_MEMORY && std::strstr(adamw_last_error(), "cuMemAlloc") != nullptr,
          "no memory: %s", adamw_last_error());
    side.get_state("no memory");
    check_same(cpu, side, "no memory");
    fake().memory = 1 << 20;
    CHECK(cpu.step(1, false) == ADAMW_OK && side.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
    side.get_state("some memory");
    check_same(cpu, side, "some memory");
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  check_clean("machines");
  fresh_driver();
}

}  // namespace

int main(int argc, char **argv) {
  return run_parts(argc, argv,
                   {{"failures", check_failures},
                    {"loans", check_loan_failures},
                    {"cycles", check_cycles},
                    {"machines", check_machines}});
}
