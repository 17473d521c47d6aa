// Owns the law of test_out_of_memory.cpp for the other calls: pagers, quantization, what a process asks first.
#include <dirent.h>

#include <memory>

#include "out_of_memory.h"

namespace {

int open_files() {
  DIR *const folder = opendir("/proc/self/fd");
  int count = 0;
  while (folder != nullptr && readdir(folder) != nullptr) ++count;
  if (folder != nullptr) closedir(folder);
  return count;
}

struct Held {
  adamw_pager *pager = nullptr;
  void *buffer = nullptr, *usable = nullptr;
  std::uint8_t *bytes() const { return static_cast<std::uint8_t *>(buffer); }
};
constexpr std::int64_t held_bytes = 30000;

std::shared_ptr<Held> held(int backing, bool filled, bool acquired = false) {
  auto h = std::make_shared<Held>();
  h->pager = new_pager(backing == ADAMW_PLACE_FILE ? quick_file() : adamw_pager_options ADAMW_PAGER_OPTIONS_INIT);
  if (!filled) return h;
  CHECK(adamw_pager_alloc(h->pager, held_bytes, &h->buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  std::memset(h->buffer, 5, held_bytes);
  if (acquired) {
    CHECK(adamw_pager_acquire(h->pager, h->buffer, held_bytes, nullptr, &h->usable) == ADAMW_OK, "%s",
          adamw_last_error());
    std::memset(h->usable, 9, held_bytes);
  }
  return h;
}

std::vector<Case> pager_cases(int backing) {
  const std::string place = backing == ADAMW_PLACE_FILE ? "FILE: " : "HOST: ";
  const auto holds = [](const std::uint8_t *at, int byte) {
    return std::all_of(at, at + held_bytes, [=](std::uint8_t x) { return x == byte; }) ? std::string() : "other bytes";
  };
  std::vector<Case> cases;
  cases.push_back({place + "adamw_pager_create", [=] {
                     auto h = std::make_shared<Held>();
                     const int files = open_files();
                     const auto call = [=] {
                       const adamw_pager_options o =
                           backing == ADAMW_PLACE_FILE ? quick_file() : adamw_pager_options ADAMW_PAGER_OPTIONS_INIT;
                       return adamw_pager_create(&o, &h->pager);
                     };
                     return Trial{call, [=](adamw_status s) -> std::string {
                                    if ((s == ADAMW_OK) != (h->pager != nullptr)) return "*pager";
                                    return s == ADAMW_OK || open_files() == files ? "" : "a file stays open";
                                  }};
                   }});
  cases.push_back({place + "adamw_pager_alloc", [=] {
                     auto h = held(backing, false);
                     const auto call = [=] { return adamw_pager_alloc(h->pager, held_bytes, &h->buffer, nullptr); };
                     return Trial{call, [=](adamw_status s) -> std::string {
                                    adamw_pager_statistics stats = stats_of(h->pager);
                                    if (stats.buffers != (s == ADAMW_OK))
                                      return "stats: " + std::to_string(stats.buffers);
                                    if (s != ADAMW_OK) return h->buffer == nullptr ? "" : "*buffer";
                                    return holds(h->bytes(), 0);
                                  }};
                   }});
  cases.push_back(
      {place + "adamw_pager_acquire", [=] {
         auto h = held(backing, true);
         const auto call = [=] { return adamw_pager_acquire(h->pager, h->buffer, held_bytes, nullptr, &h->usable); };
         return Trial{call,
                      [=](adamw_status s) -> std::string {
                        if (s != ADAMW_OK) return h->usable == nullptr ? holds(h->bytes(), 5) : "*usable";
                        const std::string wrong_bytes = holds(static_cast<std::uint8_t *>(h->usable), 5);
                        return adamw_pager_release(h->pager, h->usable, 0, nullptr) == ADAMW_OK ? wrong_bytes
                                                                                                : "release";
                      },
                      call};
       }});
  cases.push_back({place + "adamw_pager_release", [=] {
                     auto h = held(backing, true, true);
                     auto released = std::make_shared<bool>(false);
                     const auto call = [=] { return adamw_pager_release(h->pager, h->usable, 1, nullptr); };
                     return Trial{call,
                                  [=](adamw_status s) {
                                    *released = s == ADAMW_OK;
                                    return *released ? holds(h->bytes(), 9) : std::string();
                                  },
                                  [=] {
                                    const adamw_status s = *released ? ADAMW_OK : call();
                                    return s == ADAMW_OK && holds(h->bytes(), 9).empty()
                                               ? adamw_pager_free(h->pager, h->buffer)
                                               : s;
                                  }};
                   }});
  cases.push_back({place + "adamw_pager_prefetch, then acquire", [=] {
                     auto h = held(backing, true);
                     const auto call = [=] { return adamw_pager_prefetch(h->pager, h->buffer, held_bytes, nullptr); };
                     return Trial{call, [=](adamw_status) { return holds(h->bytes(), 5); },
                                  [=] {
                                    const adamw_status s =
                                        adamw_pager_acquire(h->pager, h->buffer, held_bytes, nullptr, &h->usable);
                                    return s == ADAMW_OK && holds(static_cast<std::uint8_t *>(h->usable), 5).empty()
                                               ? s
                                               : ADAMW_ERROR_INTERNAL;
                                  }};
                   }});
  cases.push_back({place + "adamw_pager_free, then destroy", [=] {
                     auto h = held(backing, true);
                     auto gone = std::make_shared<bool>(false);
                     const auto call = [=] { return adamw_pager_free(h->pager, h->buffer); };
                     return Trial{call, [=](adamw_status s) { return *gone = s == ADAMW_OK, std::string(); },
                                  [=] {
                                    if (!*gone && call() != ADAMW_OK) return ADAMW_ERROR_INTERNAL;
                                    return adamw_pager_destroy(h->pager);
                                  }};
                   }});
  cases.push_back({place + "adamw_pager_wait, stats, destroy", [=] {
                     auto h = held(backing, false);
                     return Trial{[=] {
                                    adamw_pager_statistics stats;
                                    if (const adamw_status s = adamw_pager_wait(h->pager)) return s;
                                    if (const adamw_status s = adamw_pager_stats(h->pager, &stats, sizeof stats))
                                      return s;
                                    if (const adamw_status s = adamw_pager_destroy(h->pager)) return s;
                                    h->pager = nullptr;
                                    return ADAMW_OK;
                                  },
                                  [](adamw_status) { return std::string(); },
                                  [=] { return adamw_pager_destroy(h->pager); }};
                   }});
  return cases;
}

Trial quantize_trial(int format, bool back) {
  struct Buffers {
    adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
    std::vector<float> floats = std::vector<float>(5000, 0.25f), scales = std::vector<float>(20, 0.25f),
                       floors = std::vector<float>(20, 0.5f);
    std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(5000, 77);
  };
  auto b = std::make_shared<Buffers>();
  b->o.moment = ADAMW_MOMENT_EXP_AVG_SQ;
  b->o.numel = b->o.row_length = 5000, b->o.state_format = format, b->o.num_threads = ADAMW_TEST_THREADS;
  const auto call = [=] {
    return back ? adamw_dequantize(&b->o, b->codes.data(), b->scales.data(), b->floors.data(), b->floats.data())
                : adamw_quantize(&b->o, b->floats.data(), b->codes.data(), b->scales.data(), b->floors.data());
  };
  return {call,
          [=](adamw_status s) -> std::string {
            const Buffers fresh;
            const bool same = b->floats == fresh.floats && b->codes == fresh.codes && b->scales == fresh.scales &&
                              b->floors == fresh.floors;
            return same == (s != ADAMW_OK) ? "" : "written though it failed, or not though it did not";
          },
          call, b};
}

Trial split_trial(int bits, bool back) {
  struct Buffers {
    adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
    std::vector<float> weights = std::vector<float>(50000, 0.3f);
    std::vector<std::uint16_t> param = std::vector<std::uint16_t>(50000, 0x3F00);
    std::vector<std::int16_t> remainder = std::vector<std::int16_t>(50000, 77);
  };
  auto b = std::make_shared<Buffers>();
  b->o.remainder_bits = bits, b->o.numel = 50000, b->o.num_threads = ADAMW_TEST_THREADS;
  b->o.rounding = ADAMW_ROUND_STOCHASTIC;
  const auto call = [=] {
    return back ? adamw_join_weights(&b->o, b->param.data(), b->remainder.data(), b->weights.data())
                : adamw_split_weights(&b->o, b->weights.data(), b->param.data(), b->remainder.data());
  };
  return {call,
          [=](adamw_status s) -> std::string {
            const Buffers fresh;
            const bool same = b->weights == fresh.weights && b->param == fresh.param && b->remainder == fresh.remainder;
            return same == (s != ADAMW_OK) ? "" : "written though it failed, or not though it did not";
          },
          call, b};
}

// Of `count` gradients, whose table is of the header's version or of a newer one.
struct Gradients {
  struct Newer {
    adamw_gradient gradient;
    std::int64_t more;
  };
  adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
  std::vector<float> values;
  std::vector<adamw_gradient> table;
  std::vector<Newer> newer;
  double squares = -1.0;

  Gradients(std::int64_t count, std::int64_t numel, bool is_newer) : values(static_cast<std::size_t>(numel), 0.5f) {
    const adamw_gradient g{values.data(), numel, ADAMW_FLOAT32, 0};
    o.num_threads = ADAMW_TEST_THREADS;
    if (is_newer) newer.assign(static_cast<std::size_t>(count), {g, 0});
    if (!is_newer) table.assign(static_cast<std::size_t>(count), g);
  }
  std::int64_t count() const { return static_cast<std::int64_t>(table.size() + newer.size()); }
  double right() const { return 0.25 * static_cast<double>(count()) * static_cast<double>(values.size()); }
  adamw_status norm() {
    return newer.empty() ? adamw_norm(&o, table.data(), sizeof table[0], count(), &squares)
                         : adamw_norm(&o, &newer[0].gradient, sizeof newer[0], count(), &squares);
  }
};

Trial norm_trial(std::int64_t count, std::int64_t numel, bool is_newer) {
  auto g = std::make_shared<Gradients>(count, numel, is_newer);
  return {[=] { return g->norm(); },
          [=](adamw_status s) -> std::string {
            const double must = s == ADAMW_OK ? g->right() : -1.0;
            return g->squares == must ? "" : "squares is " + std::to_string(g->squares);
          },
          [=] { return g->norm() == ADAMW_OK && g->squares == g->right() ? ADAMW_OK : ADAMW_ERROR_INTERNAL; }};
}

Trial clip_trial() {
  auto out = std::make_shared<std::pair<float, float>>(-1.0f, -1.0f);
  return {[=] {
            const adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
            const double squares[2] = {4.0, 5.0};
            return adamw_clip_factor(&o, squares, 2, &out->first, &out->second);
          },
          [=](adamw_status s) -> std::string {
            return out->first == (s == ADAMW_OK ? 3.0f : -1.0f) ? "" : "norm is " + std::to_string(out->first);
          }};
}

// Law: the norm of a table as large as one before allocates nothing.
void check_steady_norms() {
  if (!ADAMW_FAILING_ALLOCATIONS) return;
  for (bool is_newer : {false, true}) {
    Gradients large(300, 9000, is_newer), small(7, 100, is_newer);
    large.o.num_threads = small.o.num_threads = 1;  // threads are made and end
    CHECK(large.norm() == ADAMW_OK, "%s", adamw_last_error());
    allocations::fail_after(0, true);
    const adamw_status statuses[] = {large.norm(), small.norm(), large.norm()};
    const bool allocated = allocations::succeed_again();
    for (adamw_status status : statuses) CHECK(status == ADAMW_OK, "newer %d: status %d", is_newer, status);
    CHECK(!allocated, "newer %d: a norm of what was measured before allocates", is_newer);
    CHECK(large.squares == large.right() && small.squares == small.right(), "newer %d: %g", is_newer, small.squares);
  }
}

Trial process_trial() {  // what a process asks first
  return {[] {
    const char *name;
    adamw_state_layout layout;
    if (const adamw_status s = adamw_cpu_kernel(&name)) return s;
    if (const adamw_status s = adamw_set_num_threads(2)) return s;
    if (adamw_get_num_threads() != 2 || adamw_build_info() == nullptr || adamw_status_string(ADAMW_OK) == nullptr)
      return ADAMW_ERROR_INTERNAL;
    // A refusal, with its sentence.
    if (adamw_get_state_layout(ADAMW_STATE_BLOCK8, -1, 1, 0, 0, &layout) == ADAMW_OK || adamw_last_error() == nullptr)
      return ADAMW_ERROR_INTERNAL;
    return adamw_get_state_layout(ADAMW_STATE_BLOCK8, 100, 100, 0, 0, &layout);
  }};
}

}  // namespace

int main() {
  std::vector<Case> cases;
  for (int format : {1, 2})
    for (bool back : {false, true})
      cases.push_back(
          {std::string(back ? "adamw_dequantize" : "adamw_quantize") + (format == 1 ? ", block8" : ", tensor8"),
           [=] { return quantize_trial(format, back); }});
  for (int bits : {8, 16})
    for (bool back : {false, true})
      cases.push_back({std::string(back ? "adamw_join_weights, " : "adamw_split_weights, ") + std::to_string(bits),
                       [=] { return split_trial(bits, back); }});
  for (bool newer : {false, true}) {
    const std::string table = newer ? ", newer" : "";
    cases.push_back({"adamw_norm, 1 gradient" + table, [=] { return norm_trial(1, 5000, newer); }});
    cases.push_back({"adamw_norm, 400 gradients" + table, [=] { return norm_trial(400, 9000, newer); }});
  }
  cases.push_back({"adamw_clip_factor", clip_trial});
  cases.push_back({"kernel, threads, texts, layout", process_trial});
  for (int backing : {ADAMW_PLACE_HOST, ADAMW_PLACE_FILE})
    for (Case &c : pager_cases(backing)) cases.push_back(std::move(c));
  try_all(cases);
  check_steady_norms();  // after the processes of the others, in which nothing was called before
  return finish();
}
