// Owns the law that a step on a device leaves the CPU's bytes: every kernel, dtype and option, through adamw_step(),
// the real backend, the fake driver and the real kernels.
#include "fake_driver.h"
#include "parts.h"
#include "runtime.h"
#include "sides.h"

using namespace simt;

namespace {

// The last lie in runs of the unsharded tensor: of whole blocks, of rows that blocks follow, all in one.
const std::vector<TensorShape> shapes = {{1, 1, 0},
                                         {1, 7, 3},
                                         {1, 255, 0},
                                         {1, 256, 512},
                                         {1, 257, 0},
                                         {1, 1000, 13},
                                         {1, 4099, 0},
                                         {5, 100, 0},
                                         {3, 300, 600},
                                         {1, 0, 0},
                                         {2, 1000, 0},
                                         {9, 63, 0},
                                         {2, 512, 0},
                                         {4, 64, 0},
                                         {1, 9000, 0},
                                         {6, 512, 256, 256, 1024},
                                         {4, 300, 13, 600, 1001},
                                         {5, 88, 512, 88, 600},
                                         {2, 300, 8, 600, 700}};

struct Case {
  adamw_step_options options;
  int steps = 2, spread = 1;
  std::size_t shift = 0;
  int spoilt = 0;         // one of so many blocks has a NaN in its ordinary gradients; 0: none
  int spoilt_params = 0;  // and one of so many a master weight that is no number
  bool not_finite = false, ordinary = false, from_tensors = false, used_state = false;
  int device = 0;
  std::int64_t unread_step = 0;
};

std::string name_of(const Case &c) {
  static const char *const dtypes[] = {"f32", "bf16", "f16"};
  const adamw_step_options &o = c.options;
  char text[256];
  std::snprintf(text, sizeof text, "%s %s+%d %s flags %u clipping %d unorm %g%s%s%s%s shift %zu SIMT_SEED %llu",
                format_names[o.state_format], dtypes[o.param_dtype], o.remainder_bits, dtypes[o.grad_dtype], o.flags,
                o.percentile_clipping, o.max_unorm, o.grad_scale != nullptr ? " grad_scale" : "",
                c.not_finite ? " not_finite"
                : c.ordinary ? " ordinary"
                             : "",
                c.from_tensors ? " from_tensors" : "", c.used_state ? " used_state" : "", c.shift,
                static_cast<unsigned long long>(settings().seed));
  return text;
}

// Steps both sides and compares them after each.
void check(const Case &c, const std::vector<TensorShape> &tensors) {
  // One failure is enough to know; a mutant need not fail everywhere.
  if (failures() != 0) return;
  static const float lr = 3e-3f;
  adamw_step_options options = c.options;
  if (c.from_tensors) options.lr_tensor = &lr;
  Side cpu(options, tensors, c.shift), device(options, tensors, c.shift);
  const std::string what = name_of(c);
  for (Side *side : {&cpu, &device}) {
    side->fill_params(7, c.ordinary);
    if (c.spoilt_params != 0) side->spoil_params(8, c.spoilt_params);
    if (c.used_state) side->fill_state(11);
  }
  device.options.device = c.device;
  device.unread_step = c.unread_step;
  static std::map<int, gpu::Stream> streams;
  gpu::Stream &stream = streams[c.device];
  if (stream == nullptr) stream = new_stream(c.device);
  device.options.stream = stream;
  for (int step = 1; step <= c.steps; ++step) {
    const std::int64_t number = c.used_state ? 98 + step : step;
    for (Side *side : {&cpu, &device}) {
      if (c.ordinary)
        side->fill_ordinary_gradients(static_cast<std::uint64_t>(step));
      else
        side->fill_gradients(static_cast<std::uint64_t>(step), c.not_finite);
      if (c.spoilt != 0) side->spoil_gradients(static_cast<std::uint64_t>(step), c.spoilt);
      CHECK(side->step(number, c.from_tensors, c.spread) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    }
    CHECK(synchronize(), "%s: a kernel failed", what.c_str());
    if (!check_same(cpu, device, what + ", step " + std::to_string(step))) return;
  }
  for (const std::string &misuse : fake().misuse) CHECK(false, "%s: misuse: %s", what.c_str(), misuse.c_str());
  CHECK(current_contexts().empty(), "%s: a context stays current", what.c_str());
  CHECK(live_allocations() == 0, "%s: %zu allocations stay", what.c_str(), live_allocations());
}

adamw_step_options options_of(int format, int param, int grad, std::uint32_t flags, int remainder_bits = 0) {
  return step_options(static_cast<adamw_state_format>(format), flags, static_cast<adamw_dtype>(param),
                      static_cast<adamw_dtype>(grad), remainder_bits);
}

// Every choice of dtypes, and then those of bfloat16 parameters with remainders of both widths.
constexpr int all_dtypes = 15, bf16_bf16 = 4, bf16r8_bf16 = 10, bf16r16_bf16 = 13;
adamw_step_options options_of_dtypes(int format, int dtypes, std::uint32_t flags) {
  if (dtypes < 9) return options_of(format, dtypes / 3, dtypes % 3, flags);
  return options_of(format, ADAMW_BFLOAT16, dtypes % 3, flags, dtypes < 12 ? 8 : 16);
}

// Every kernel of a format with every option that it reads.
void check_all_kinds(int format) {
  static const float scale = 1024.0f, no_inf = 0.0f, factor = 0.375f;
  int number = format * all_dtypes * 16;
  for (int dtypes = 0; dtypes < all_dtypes; ++dtypes) {
    for (std::uint32_t amsgrad : {0u, unsigned{ADAMW_STEP_AMSGRAD}}) {
      for (int variant = 0; variant < 8; ++variant, ++number) {
        // Each option of each format still meets a third of the dtypes: this looks at memory, not at bits.
        if (abridged && (number / 8 + variant) % 3 != 0) continue;
        Case c{options_of_dtypes(format, dtypes, amsgrad)};
        c.shift = static_cast<std::size_t>(number % 7 == 0 ? number % 5 : 0);
        c.used_state = number % 3 == 1;
        c.ordinary = (number / 8 + number) % 2 == 0;
        adamw_step_options &o = c.options;
        if (variant == 1) o.flags |= ADAMW_STEP_MAXIMIZE | ADAMW_STEP_STOCHASTIC_ROUNDING;
        if (variant == 2) o.flags |= ADAMW_STEP_SKIP_ZEROS;
        if (variant == 3) o.percentile_clipping = 30, o.grad_factor = &factor;
        if (variant == 4) o.max_unorm = 0.01;
        if (variant == 5) {
          o.percentile_clipping = 99, o.max_unorm = 1.0;
          o.flags |= ADAMW_STEP_SKIP_ZEROS | ADAMW_STEP_STOCHASTIC_ROUNDING;
          c.spread = 3;
        }
        if (variant == 6) {
          o.grad_scale = &scale, o.grad_factor = &factor, o.found_inf = &no_inf, o.eps = 0.0, o.weight_decay = 0.3;
          c.from_tensors = true, c.spread = 20;  // more step numbers than a launch has room for coefficients
        }
        if (variant == 7) c.not_finite = true, c.ordinary = false;
        if (number % 2 == 0) c.spoilt_params = 1 + number % 5;
        settings().seed = settings().seed % 1000 + 1000 * static_cast<std::uint64_t>(number);
        // Some of the tensors: over the cases, all meet all.
        std::vector<TensorShape> some;
        for (std::size_t i = 0; i < shapes.size(); ++i)
          if ((i + static_cast<std::size_t>(number)) % 3 != 0) some.push_back(shapes[i]);
        check(c, some);
      }
    }
  }
}

// Thousands of rows in a call, several step numbers, empty rows among them, and some in runs: in more kinds of them
// than a launch has room for.
void check_many_rows() {
  Random random(3);
  std::vector<TensorShape> tensors;
  for (int i = 0; i < (abridged ? 1500 : 3000); ++i)
    tensors.push_back({1, random.below(8) == 0 ? 0 : 1 + random.below(70), 0});
  for (int i = 0; i < 30; ++i) tensors.push_back({2, 256, i, 256, 256 + i % 13});
  for (int format = 0; format < state_formats; ++format) {
    for (bool measured : {false, true}) {
      Case c{options_of(format, ADAMW_FLOAT32, ADAMW_BFLOAT16, measured ? unsigned{ADAMW_STEP_AMSGRAD} : 0u)};
      c.steps = 1;
      c.spread = measured ? 11 : 1;
      if (measured) c.options.percentile_clipping = 50, c.options.max_unorm = 0.1;
      check(c, tensors);
    }
  }
}

// One tensor of many segments; a tensor far into a sharded one; every misalignment.
void check_places() {
  for (int format = 0; format < state_formats; ++format) {
    for (int remainder : {0, 8, 16}) {
      Case c{options_of(format, ADAMW_BFLOAT16, ADAMW_BFLOAT16, ADAMW_STEP_STOCHASTIC_ROUNDING, remainder)};
      c.options.max_unorm = 0.02, c.options.percentile_clipping = 20, c.options.seed = 0x123456789ABCDEFu;
      check(c, {{1, 70001, (std::int64_t{1} << 35) + 24}, {300, 300, std::int64_t{1} << 41}});
      c.options.max_unorm = 0.0, c.options.percentile_clipping = 100;
      check(c, {{1, 40000, (std::int64_t{1} << 35) - 2048},
                {1, 3000, (std::int64_t{1} << 40) + 13},
                {9, 512, (std::int64_t{1} << 35) - 2048, 512, std::int64_t{1} << 34},
                {9, 300, (std::int64_t{1} << 41) + 5, 300, 3333}});
    }
    for (std::size_t shift = 1; shift <= 5; ++shift) {
      for (int dtypes : {0, 1, bf16_bf16, 8, bf16r8_bf16, bf16r16_bf16}) {
        Case shifted{options_of_dtypes(format, dtypes, ADAMW_STEP_AMSGRAD)};
        shifted.shift = shift;
        check(shifted, {{1, 2000, 0}, {3, 300, 0}, {1, 5, 0}});
      }
    }
  }
}

// Every buffer of a row in turn lies where the upper half of addresses changes, in the middle of a block or between
// two.
void check_carries(std::initializer_list<int> all) {
  fake().multiprocessors = fake().blocks_per_multiprocessor = 1;
  for (int dtypes : all) {
    for (std::uint32_t amsgrad : {0u, unsigned{ADAMW_STEP_AMSGRAD}}) {
      if (amsgrad != 0 && dtypes > bf16_bf16) continue;  // element by element
      Case c{options_of_dtypes(ADAMW_STATE_BLOCK8, dtypes, amsgrad)};
      c.ordinary = true;
      const std::size_t elements = 60000, rest = static_cast<std::size_t>(c.options.remainder_bits) / 8,
                        side = elements * ((dtypes == 0 ? 8 : 4) + 3 + rest);  // bytes, but for the scales
      for (std::size_t part = 0; part < 12; ++part) {
        arena().go_to_middle(side + 4000 + side * part / 12);  // the device's buffers come after the CPU's
        check(c, {{1, static_cast<std::int64_t>(elements), 0}});
      }
    }
  }
}

// A warp goes through many blocks of a row, of which some are short, misplaced or with elements to skip: neighbours of
// the other warps' in a long row, rounds of a chunk in short ones.
void check_orders(int format) {
  fake().multiprocessors = fake().blocks_per_multiprocessor = 1;
  const std::vector<TensorShape> long_rows = {{1, 60001, 0}, {1, 30000, (std::int64_t{1} << 35) - 16384}},
                                 short_rows(20, {1, 7100, 0});
  for (int dtypes : {0, 1, bf16_bf16, bf16r8_bf16, bf16r16_bf16}) {
    for (std::uint32_t amsgrad : {0u, unsigned{ADAMW_STEP_AMSGRAD}}) {
      for (bool ordinary : {false, true}) {
        Case c{options_of_dtypes(format, dtypes, amsgrad)};
        c.ordinary = ordinary, c.not_finite = !ordinary, c.spread = 3;
        if (dtypes > bf16_bf16) c.spoilt_params = 7;
        check(c, long_rows);
        check(c, short_rows);
      }
    }
  }
}

// Kernels of wide blocks keep their warps side by side in long rows, whatever comes: rows that end within a round,
// short blocks, rows of short rows, elements to skip at any place, group numbers that overflow 32 bits.
void check_side_by_side() {
  fake().multiprocessors = 2, fake().blocks_per_multiprocessor = 1;
  const std::vector<TensorShape> long_rows = {
      {1, 90001, 0}, {300, 300, 0}, {1, 102400, (std::int64_t{1} << 35) - 65536}, {1, 88200, 0}};
  for (int grad : {ADAMW_FLOAT32, ADAMW_BFLOAT16}) {
    for (std::uint32_t amsgrad : {0u, unsigned{ADAMW_STEP_AMSGRAD}}) {
      if (grad == ADAMW_BFLOAT16 && amsgrad != 0) continue;  // element by element
      for (int spoilt : {0, 40, 3}) {
        Case c{options_of(ADAMW_STATE_BLOCK8, ADAMW_FLOAT32, grad, amsgrad)};
        c.ordinary = true, c.spoilt = spoilt;
        fetches = 0;
        check(c, long_rows);
        CHECK(failures() != 0 || fetches > 100, "%s: nothing is read ahead", name_of(c).c_str());
      }
    }
  }
}

// The same bytes in whatever order threads run, however many blocks there are.
void check_schedules() {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    settings().seed = seed;
    settings().resident_blocks = static_cast<int>(seed);
    fake().multiprocessors = static_cast<int>(seed);
    for (int format = 0; format < state_formats; ++format) {
      Case c{options_of(format, ADAMW_FLOAT32, ADAMW_FLOAT16, ADAMW_STEP_AMSGRAD)};
      c.options.max_unorm = 0.01, c.options.percentile_clipping = 10, c.not_finite = seed % 2 == 0, c.used_state = true;
      check(c, {{1, 30000, 0}, {50, 300, 0}, {1, 9, 0}});
    }
  }
}

// found_inf, that only the device reads, keeps everything as it is.
void check_found_inf() {
  static const float found = 1.0f;
  for (int format = 0; format < state_formats; ++format) {
    Case c{options_of(format, ADAMW_FLOAT16, ADAMW_FLOAT16, ADAMW_STEP_AMSGRAD)};
    c.options.max_unorm = 0.01, c.options.percentile_clipping = 10;
    c.options.found_inf = &found, c.not_finite = c.used_state = true;
    check(c, shapes);
  }
}

// Where there is a step_tensor, `step` may be anything.
void check_unread_step() {
  for (std::int64_t unread : {std::int64_t{-1}, std::int64_t{0}, INT64_MIN, INT64_MAX}) {
    Case c{options_of(ADAMW_STATE_BLOCK8, ADAMW_FLOAT32, ADAMW_FLOAT32, 0)};
    c.from_tensors = true;
    c.unread_step = unread;
    check(c, shapes);
  }
}

// Steps that make no number of an infinite weight, or none of any: where weight decay takes all of it, or more than
// floats can say.
void check_no_numbers() {
  for (int format = 0; format < state_formats; ++format) {
    for (int remainder : {8, 16}) {
      for (double decay : {2.0, 1e39}) {
        Case c{options_of(format, ADAMW_BFLOAT16, ADAMW_BFLOAT16, 0, remainder)};
        c.options.lr = 0.5, c.options.weight_decay = decay;
        c.ordinary = true, c.spoilt_params = 1;
        check(c, {{1, 9000, 0}, {1, 300, 0}});
      }
    }
  }
}

// Work of several calls on several streams, all queued before any of it runs.
void check_streams() {
  std::vector<Side> cpu, device;
  for (int format = 0; format < state_formats; ++format) {
    adamw_step_options o = options_of(format, ADAMW_FLOAT32, ADAMW_BFLOAT16, ADAMW_STEP_AMSGRAD);
    o.max_unorm = 0.01, o.percentile_clipping = 60;
    for (std::vector<Side> *sides : {&cpu, &device}) {
      sides->emplace_back(o, shapes, 0);
      sides->back().fill_params(4), sides->back().fill_gradients(5, true);
    }
    device.back().options.device = 0;
    device.back().options.stream = new_stream();
  }
  for (int step = 1; step <= 4; ++step) {
    for (std::size_t i = 0; i < cpu.size(); ++i) {
      CHECK(cpu[i].step(step, false) == ADAMW_OK && device[i].step(step, false) == ADAMW_OK, "%s", adamw_last_error());
    }
  }
  CHECK(live_allocations() > cpu.size(), "nothing was queued");
  CHECK(synchronize(), "a kernel failed");
  for (std::size_t i = 0; i < cpu.size(); ++i) check_same(cpu[i], device[i], "stream " + std::to_string(i));
  CHECK(live_allocations() == 0 && fake().misuse.empty(), "%zu allocations stay", live_allocations());
}

void check_devices() {
  fake().devices = 3;
  for (int device : {0, 2, 1, 2}) {
    Case c{options_of(ADAMW_STATE_TENSOR8, ADAMW_FLOAT32, ADAMW_FLOAT32, 0)};
    c.device = device;
    current_contexts().push_back(context_of(1));  // the caller's: it must be current afterwards, and the only one
    fake().calls.clear();
    const int before = failures();
    Side cpu(c.options, shapes, 0), other(c.options, shapes, 0);
    for (Side *side : {&cpu, &other}) side->fill_params(1), side->fill_gradients(2, false);
    other.options.device = device;
    other.options.stream = new_stream(device);
    CHECK(cpu.step(1, false) == ADAMW_OK && other.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(current_contexts().size() == 1 && current_contexts()[0] == context_of(1), "the caller's context is gone");
    for (const Call &call : fake().calls) {
      CHECK(call.stream == nullptr || (call.stream == other.options.stream && call.device == device), "%s on device %d",
            call.function.c_str(), call.device);
    }
    CHECK(synchronize(), "a kernel failed");
    check_same(cpu, other, "device " + std::to_string(device));
    current_contexts().clear();
    if (failures() != before) return;
  }
}

}  // namespace

int main(int argc, char **argv) {
  static_assert(state_formats == 4, "a new format has its own parts, here and in CMakeLists.txt");
  return run_parts(argc, argv,
                   {{"kinds.32", [] { check_all_kinds(ADAMW_STATE_FLOAT32); }},
                    {"kinds.block8", [] { check_all_kinds(ADAMW_STATE_BLOCK8); }},
                    {"kinds.tensor8", [] { check_all_kinds(ADAMW_STATE_TENSOR8); }},
                    {"kinds.16", [] { check_all_kinds(ADAMW_STATE_BFLOAT16); }},
                    {"rows", check_many_rows},
                    {"places", check_places},
                    {"carries", [] { check_carries({0, bf16_bf16}); }},
                    {"carries.remainder", [] { check_carries({bf16r8_bf16, bf16r16_bf16}); }},
                    {"orders.32", [] { check_orders(ADAMW_STATE_FLOAT32); }},
                    {"orders.block8", [] { check_orders(ADAMW_STATE_BLOCK8); }},
                    {"orders.16", [] { check_orders(ADAMW_STATE_BFLOAT16); }},
                    {"side_by_side", check_side_by_side},
                    {"schedules", check_schedules},
                    {"found_inf", check_found_inf},
                    {"no_numbers", check_no_numbers},
                    {"devices", check_devices},
                    {"streams", check_streams},
                    {"unread_step", check_unread_step}},
                   [](void (*body)()) {
                     const Settings before = settings();
                     reset();
                     body();
                     settings() = before;
                   });
}
