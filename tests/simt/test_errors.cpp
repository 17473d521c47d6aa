// Owns the law that every call of the driver may fail: it becomes a status that names the call, nothing leaks, the
// caller's context is as it was, nothing is written before the first launch, and the next call works.
#include "fake_driver.h"
#include "runtime.h"
#include "sides.h"

using namespace simt;

namespace {

// As the library finds a process in which nothing has been called yet.
void fresh_driver() {
  gpu::replace_driver(nullptr);
  CHECK(held() == 0, "%d contexts, libraries and pools were not given back", held());
  gpu::replace_driver(fake_driver());
  restart();
}

struct Work {
  const char *name;
  adamw_state_format format;
  bool clipped, measured;
  int rows;
};
constexpr Work works[] = {{"32 bits", ADAMW_STATE_FLOAT32, false, false, 3},
                          {"blocks", ADAMW_STATE_BLOCK8, false, false, 3},
                          {"clipped and limited", ADAMW_STATE_BLOCK8, true, true, 3},
                          {"tensor-wise", ADAMW_STATE_TENSOR8, true, true, 3},
                          {"several launches", ADAMW_STATE_TENSOR8, false, true, 300}};

Side side_of(const Work &work, int device) {
  adamw_step_options o = step_options(work.format, work.measured ? unsigned{ADAMW_STEP_AMSGRAD} : 0u);
  if (work.clipped) o.percentile_clipping = 40;
  if (work.measured) o.max_unorm = 0.01;
  o.device = device;
  const std::vector<TensorShape> shapes(static_cast<std::size_t>(work.rows), TensorShape{3, 70, 0});
  Side side(o, shapes, 0);
  side.fill_params(1);
  side.fill_state(3);
  side.fill_gradients(2, false);
  return side;
}

// The name without the version that the ABI gives it: cuCtxPushCurrent_v2 is cuCtxPushCurrent to a user.
std::string plain(std::string function) {
  const std::size_t at = function.rfind("_v2");
  return at == std::string::npos ? function : function.substr(0, at);
}

// true: the call that was to fail was made.
bool check_failure(const Work &work, int failing_call, gpu::Result failure, bool fresh) {
  if (fresh) fresh_driver();
  Side untouched = side_of(work, -1), side = side_of(work, 0);
  if (!fresh) {
    reset();
    // A first call, so that everything that is done once has been done.
    Side first = side_of(work, 0);
    CHECK(first.step(2, false) == ADAMW_OK && synchronize(), "%s: %s", work.name, adamw_last_error());
    reset();
  }
  current_contexts() = {context_of(0)};  // the caller's
  fake().failing_call = failing_call;
  fake().failure = failure;
  const adamw_status status = side.step(2, false);
  const bool made = fake().calls.size() >= static_cast<std::size_t>(failing_call);
  const std::string call = made ? plain(fake().calls[static_cast<std::size_t>(failing_call) - 1].function) : "";
  char what[128];
  std::snprintf(what, sizeof what, "%s: call %d (%s) fails with %d", work.name, failing_call, call.c_str(), failure);
  CHECK(current_contexts() == std::vector<gpu::Context>{context_of(0)}, "%s: %zu contexts are current", what,
        current_contexts().size());
  current_contexts().clear();
  fake().failing_call = 0;
  CHECK(synchronize(), "%s: a kernel failed", what);
  CHECK(live_allocations() == 0, "%s: %zu allocations stay", what, live_allocations());
  CHECK(fake().misuse.empty(), "%s: misuse: %s", what, fake().misuse.empty() ? "" : fake().misuse[0].c_str());
  if (!made) {
    CHECK(status == ADAMW_OK, "%s: %s", what, adamw_last_error());
    return false;
  }
  CHECK(status != ADAMW_OK, "%s: the call returns success", what);
  if (status == ADAMW_OK) return true;
  CHECK(status == (failure == 2 ? ADAMW_ERROR_OUT_OF_MEMORY : ADAMW_ERROR_DEVICE) || status == ADAMW_ERROR_UNSUPPORTED,
        "%s: status %d", what, status);
  CHECK(std::strstr(adamw_last_error(), call.c_str()) != nullptr, "%s: '%s'", what, adamw_last_error());
  if (!fake().launched.empty()) return true;
  check_same(untouched, side, std::string(what) + ", before any launch");
  // The next call works as if nothing had been.
  CHECK(untouched.step(2, false) == ADAMW_OK && side.step(2, false) == ADAMW_OK && synchronize(), "%s, then: %s", what,
        adamw_last_error());
  check_same(untouched, side, std::string(what) + ", and then none");
  return true;
}

void check_failures() {
  for (const Work &work : works) {
    for (bool fresh : {true, false}) {
      for (gpu::Result failure : {719, 2, 100001}) {                 // the last one has no name
        if (work.rows > 100 && (fresh || failure != 719)) continue;  // for the launches: the rest is as above
        int call = 1;
        while (failures() < 20 && check_failure(work, call, failure, fresh)) ++call;
        CHECK(call > 3, "%s: only %d calls", work.name, call - 1);
      }
    }
  }
}

// What a machine may lack: a status, and a message with `word`.
void check_machine(const char *what, adamw_status expected, const char *word, void (*change)(), int device = 0) {
  fresh_driver();
  change();
  for (int repetition = 0; repetition < 2; ++repetition) {  // the answer is kept
    Side side = side_of(works[3], device), untouched = side_of(works[3], -1);
    const adamw_status status = side.step(1, false);
    CHECK(status == expected, "%s: status %d: %s", what, status, adamw_last_error());
    CHECK(std::strstr(adamw_last_error(), word) != nullptr, "%s: '%s'", what, adamw_last_error());
    check_same(untouched, side, what);
    CHECK(current_contexts().empty() && live_allocations() == 0, "%s", what);
  }
}

void check_machines() {
  check_machine("no GPU", ADAMW_ERROR_DEVICE, "cuInit", [] { fake().at_init = 100; });
  check_machine("a driver beside its module", ADAMW_ERROR_DEVICE, "cuInit", [] { fake().at_init = 803; });
  check_machine("an old driver", ADAMW_ERROR_UNSUPPORTED, "driver", [] { fake().driver_version = 11040; });
  check_machine("no pools", ADAMW_ERROR_UNSUPPORTED, "pool", [] { fake().memory_pools = false; });
  check_machine("no device", ADAMW_ERROR_UNSUPPORTED, "device", [] { fake().devices = 0; });
  check_machine("no such device", ADAMW_ERROR_UNSUPPORTED, "device", [] { fake().devices = 2; }, 2);
  check_machine("no memory", ADAMW_ERROR_OUT_OF_MEMORY, "cuMemAllocFromPoolAsync", [] { fake().memory = 100; });
  fresh_driver();
}

}  // namespace

int main() {
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  check_failures();
  check_machines();
  return finish();
}
