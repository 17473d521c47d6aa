// Owns fuzzed calls of adamw_norm() and adamw_clip_factor(): their verdicts, the sum of squares against a longer one,
// and every bit of the factor by its definition.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "finding.h"
#include "other_calls.h"
#include "reference.h"
#include "resize.h"
#include "step_run.h"

namespace {

// Not const: a careless caller's pointer may be anything.
template <class T>
T *beside(T *pointer, std::int64_t by) {
  return reinterpret_cast<T *>(reinterpret_cast<std::uintptr_t>(pointer) + static_cast<std::uintptr_t>(by));
}

bool holds(const Memory &memory, const void *pointer, Wide bytes) {
  const Buffer *const b = memory.containing(pointer);
  return b != nullptr && bytes <= Wide{b->at + b->bytes - static_cast<const std::uint8_t *>(pointer)};
}

// What every call must keep to. True if it did what it is for.
bool judge(const char *function, adamw_status status, Statuses errors, const Memory &memory) {
  ++tally.norms;
  const std::string error = adamw_last_error();
  if ((allowed(errors) & only(status)) == 0)
    finding("%s: status %d '%s', allowed: set %#x", function, status, error.c_str(), allowed(errors));
  if (!memory.canaries_live()) finding("%s: bytes beside a buffer were written", function);
  if (status == ADAMW_OK) return true;
  if (error.empty() || error.find('\n') != std::string::npos) finding("%s: its error is '%s'", function, error.c_str());
  if (memory.changed() != nullptr) finding("%s: refused (%s), but a buffer was written", function, error.c_str());
  return false;
}

void check_unwritten(Memory &memory, std::initializer_list<const void *> written) {
  for (std::size_t k = 0; k < memory.count(); ++k) {
    const auto is_it = [&](const void *p) { return memory.containing(p) == &memory[k]; };
    if (memory.is_changed(memory[k]) && std::none_of(written.begin(), written.end(), is_it))
      finding("what is read was written");
  }
}

// ---- the norm ----

struct NormInput {
  adamw_norm_options o = ADAMW_NORM_OPTIONS_INIT;
  const adamw_norm_options *options = &o, *passed = &o;
  adamw_gradient *gradients = nullptr;  // as today's header has them
  const adamw_gradient *passed_gradients = nullptr;
  std::size_t size = sizeof(adamw_gradient);
  std::int64_t rows = 0, count = 0;
  double *squares = nullptr;
  bool unknown = false;
};

void make_gradient(adamw_gradient &g, bool ordinary, bool not_finite, Random &random, Choices &choices,
                   Memory &memory) {
  g = {};
  g.dtype = choices.below(3);
  g.numel = choices.of<std::int64_t>({1, 0, 15, 255, 256, 257, 700, 4096, 4097}) * (choices.one_in(8) ? 20 : 1);
  const auto dtype = static_cast<adamw_dtype>(g.dtype);
  std::uint8_t *const at = memory.take(static_cast<std::size_t>(g.numel) * size_of(dtype), choices.below(2) == 0).at;
  g.grad = g.numel == 0 && choices.below(2) == 0 ? nullptr : at;
  if (!ordinary) return fill(at, dtype, g.numel, random, not_finite);
  for (std::int64_t i = 0; i < g.numel; ++i)
    put(at + static_cast<std::size_t>(i) * size_of(dtype), dtype, random.bits() >> 31, -1 - random.below(8),
        random.bits());
}

void spoil(NormInput &c, Choices &choices, Memory &memory) {
  adamw_gradient none{}, &g = c.rows > 0 ? c.gradients[choices.below(static_cast<int>(c.rows))] : none;
  switch (choices.below(13)) {
    case 0:
      g.numel = choices.hostile_integer();
      break;
    case 1:
      (choices.below(2) == 0 ? g.dtype : g.reserved) = static_cast<std::int32_t>(choices.hostile_integer());
      break;
    case 2:
      g.dtype += choices.of({1, -1, 2, 3});
      break;
    case 3:
      g.grad = choices.of<const void *>({nullptr, beside(g.grad, 1), beside(g.grad, 2), beside(g.grad, -4)});
      break;
    case 4:  // into the sum, or up to it
      g.grad = beside(static_cast<const void *>(c.squares), choices.of({0, 4, 8, -8}));
      g.numel = choices.below(5);
      break;
    case 5:
      g.grad = reinterpret_cast<const void *>(choices.of<std::uintptr_t>({8, UINTPTR_MAX - 7, UINTPTR_MAX - 4095}));
      break;
    case 6: {
      std::int32_t &field = choices.below(2) == 0 ? c.o.device : c.o.num_threads;
      field = static_cast<std::int32_t>(choices.hostile_integer());
      if (&field == &c.o.num_threads) field = -1 - (field & INT32_MAX);
      break;
    }
    case 7:
      c.o.size = choices.of<std::size_t>({0, 16, sizeof c.o + 4, 4104, SIZE_MAX});
      break;
    case 8:
      if (choices.below(2) == 0) c.options = c.passed = nullptr;
      if (choices.below(2) == 0) c.passed_gradients = c.gradients = nullptr;
      break;
    case 9:
      c.count = choices.of<std::int64_t>({-1, INT64_MIN, INT64_MAX, 0, (std::int64_t{1} << 54) + 1});
      break;
    case 10:
      c.size = choices.of<std::size_t>({0, 16, sizeof(adamw_gradient) + 4, 4104, SIZE_MAX});
      break;
    case 11:
      c.squares = choices.below(3) == 0 ? nullptr : beside(c.squares, choices.of({4, 1, -4}));
      break;
    default: {
      const auto r = resized(c.gradients, c.rows, adamw_gradient{}, sizeof(adamw_gradient), choices, memory);
      c.passed_gradients = r.at, c.size = r.size, c.unknown = r.unknown;
      break;
    }
  }
  if (choices.one_in(4) && c.options != nullptr && c.o.size == sizeof c.o && !c.unknown) {
    const auto r = resized_options(c.o, ADAMW_NORM_OPTIONS_INIT, sizeof c.o, choices, memory);
    c.passed = r.at, c.unknown = r.unknown;
  }
}

// Squares are exact in double precision: what is left are the roundings of sums of numbers that are not negative.
void compare_sum(const NormInput &c) {
  long double sum = 0;
  for (const adamw_gradient *g = c.gradients; g < c.gradients + c.count; ++g) {
    for (std::int64_t i = 0; i < g->numel; ++i) {
      const auto x = static_cast<long double>(element(g->grad, g->dtype, i));
      sum += x * x;
    }
    tally.elements += static_cast<std::uint64_t>(g->numel);
  }
  const auto is = static_cast<long double>(*c.squares);
  const bool right = std::isnan(sum)   ? std::isnan(is)
                     : std::isinf(sum) ? is == sum
                                       : std::fabs(is - sum) <= 1e-13L * sum;
  if (!right) finding("squares is %.17g, must be %.17Lg", *c.squares, sum);
}

// The same gradients with other threads: the same bits.
void replay(const NormInput &c, Choices &choices) {
  adamw_norm_options o = c.o;
  o.num_threads = choices.of({1, 2, 5});
  double again = -1.0;
  if (adamw_norm(&o, c.gradients, sizeof *c.gradients, c.count, &again) != ADAMW_OK)
    finding("again: %s", adamw_last_error());
  if (std::memcmp(&again, c.squares, sizeof again) != 0 && !(std::isnan(again) && std::isnan(*c.squares)))
    finding("with %d threads squares is %.17g, not %.17g", o.num_threads, again, *c.squares);
  ++tally.replays;
}

// ---- the factor ----

struct ClipInput {
  adamw_clip_options o = ADAMW_CLIP_OPTIONS_INIT;
  const adamw_clip_options *options = &o, *passed = &o;
  double *squares = nullptr;
  std::int64_t count = 0;
  float *norm = nullptr, *factor = nullptr;
  bool unknown = false;
};

void spoil(ClipInput &c, float *scale, Choices &choices) {
  switch (choices.below(9)) {
    case 0:
      c.o.max_norm = choices.hostile_real();
      break;
    case 1:
      (choices.below(2) == 0 ? c.o.device : c.o.reserved) = static_cast<std::int32_t>(choices.hostile_integer());
      break;
    case 2:
      *scale = static_cast<float>(choices.hostile_real());
      c.o.grad_scale = choices.one_in(4) ? beside(scale, choices.of({1, 2, -1})) : scale;
      break;
    case 3:
      c.o.size = choices.of<std::size_t>({0, 32, sizeof c.o + 4, 4104, SIZE_MAX});
      break;
    case 4:
      c.options = c.passed = nullptr;
      break;
    case 5:
      c.count = choices.of<std::int64_t>({0, -1, 4097, INT64_MIN, INT64_MAX});
      break;
    case 6:
      if (choices.below(2) == 0) c.squares = nullptr;
      if (choices.below(2) == 0) c.factor = nullptr;
      break;
    case 7: {
      const int by = choices.of({1, 2, 4, -4, -1});
      if (choices.below(2) == 0) c.squares = beside(c.squares, by);
      if (choices.below(2) == 0) c.norm = beside(c.norm, by);
      if (choices.below(2) == 0) c.factor = beside(c.factor, by);
      break;
    }
    default: {
      float *const end = reinterpret_cast<float *>(c.squares + c.count);
      float *&to = choices.below(2) == 0 ? c.norm : c.factor;
      to = choices.of({c.factor, c.norm, reinterpret_cast<float *>(c.squares), end - 1, scale, beside(c.factor, 2)});
      break;
    }
  }
}

void compare_factor(const ClipInput &c, const std::vector<double> &squares, double scale) {
  double sum = 0;
  for (double x : squares) sum += x;
  const double norm = std::sqrt(sum) / scale, factor = c.o.max_norm / (norm + 1e-6);
  const auto check = [&](const char *what, float is, double wanted) {
    const auto must = static_cast<float>(wanted);
    if (is != must && !(std::isnan(is) && std::isnan(must)))
      finding("%s is %.9g, must be %.9g: sum %.17g, grad_scale %.9g, max_norm %.17g", what, double{is}, double{must},
              sum, scale, c.o.max_norm);
  };
  if (c.norm != nullptr) check("norm", *c.norm, norm);
  check("factor", *c.factor, factor > 1.0 ? 1.0 : factor);
}

}  // namespace

void fuzz_norm(Choices &choices, Memory &memory) {
  NormInput c;
  c.o.num_threads = choices.of({1, 0, 3});
  if (choices.one_in(16)) c.o.stream = &c;
  Random random(choices.bits(4));
  const bool ordinary = choices.below(2) == 0, not_finite = choices.one_in(8);
  c.rows = c.count = choices.below(2) == 0 ? 1 : choices.below(choices.one_in(8) ? 60 : 6);
  const auto bytes = static_cast<std::size_t>(c.rows) * sizeof(adamw_gradient);
  c.gradients = reinterpret_cast<adamw_gradient *>(memory.take(bytes, choices.below(2) == 0).at);
  c.passed_gradients = c.gradients;
  for (std::int64_t i = 0; i < c.rows; ++i)
    make_gradient(c.gradients[i], ordinary, not_finite, random, choices, memory);
  c.squares = reinterpret_cast<double *>(memory.take(8, choices.below(2) == 0).at);
  *c.squares = -1.0;
  if (choices.one_in(3)) spoil(c, choices, memory);
  memory.remember();
  const Statuses errors = norm_errors({c.options, c.gradients, c.size, c.count, c.squares, kernel_missing, c.unknown});
  const bool may_work = (allowed(errors) & ok) != 0;
  for (std::int64_t i = 0; may_work && i < c.count; ++i) {
    const adamw_gradient &g = c.gradients[i];
    if (g.numel > 0 && !holds(memory, g.grad, Wide{g.numel} * static_cast<Wide>(dtype_bytes(g.dtype)))) return;
  }
  if (may_work && !holds(memory, c.squares, 8)) return;
  const Telling telling([&] {
    std::string text =
        "adamw_norm count " + std::to_string(c.count) + " of " + std::to_string(c.size) + " bytes, device " +
        std::to_string(c.o.device) + " num_threads " + std::to_string(c.o.num_threads) + " size " +
        std::to_string(c.passed != nullptr ? c.passed->size : 0) + (c.unknown ? " with unknown bytes" : "");
    for (std::int64_t i = 0; c.gradients != nullptr && i < c.rows; ++i)
      text += "\n  gradient " + std::to_string(i) + ": numel " + std::to_string(c.gradients[i].numel) + " dtype " +
              std::to_string(c.gradients[i].dtype) + (c.gradients[i].grad == nullptr ? " NULL" : "");
    return text;
  });
  const adamw_status status = adamw_norm(c.passed, c.passed_gradients, c.size, c.count, c.squares);
  if (!judge("adamw_norm", status, errors, memory)) return;
  check_unwritten(memory, {c.squares});
  compare_sum(c);
  if (!std::isnan(*c.squares)) add_to_digest(c.squares, sizeof *c.squares);
  if (choices.below(4) == 3) replay(c, choices);
}

void fuzz_clip(Choices &choices, Memory &memory) {
  ClipInput c;
  Random random(choices.bits(4));
  c.count = choices.of({1, 2, 3, 100, 4096});
  c.squares = reinterpret_cast<double *>(memory.take(static_cast<std::size_t>(c.count) * 8, choices.below(2) == 0).at);
  const bool hostile = choices.one_in(4);
  for (std::int64_t i = 0; i < c.count; ++i) c.squares[i] = std::ldexp(1 + random.unit(), random.below(20) - 10);
  for (int n = hostile ? 3 : 0; n > 0; --n)
    c.squares[choices.below(static_cast<int>(c.count))] = choices.hostile_real();
  c.norm = reinterpret_cast<float *>(memory.take(4, choices.below(2) == 0).at);
  c.factor = reinterpret_cast<float *>(memory.take(4, choices.below(2) == 0).at);
  auto *const scale = reinterpret_cast<float *>(memory.take(4, choices.below(2) == 0).at);
  *c.norm = *c.factor = -1.0f;
  *scale = choices.of({1024.0f, 1.0f, 3.0f, 0x1p-10f, 65536.0f});
  c.o.max_norm = choices.of({1.0, 0.0, 0.1, 100.0, 2.0, 1e-30, std::numeric_limits<double>::infinity()});
  if (choices.below(3) == 2) c.o.max_norm = std::sqrt(c.squares[0]) + 1e-6;  // or nearly the factor 1
  if (choices.below(3) == 2) c.o.grad_scale = scale;
  if (choices.one_in(4)) c.norm = nullptr;
  if (choices.one_in(16)) c.o.stream = &c;
  if (choices.one_in(3)) spoil(c, scale, choices);
  if (choices.one_in(8) && c.options != nullptr && c.o.size == sizeof c.o) {
    const auto r = resized_options(c.o, ADAMW_CLIP_OPTIONS_INIT, sizeof c.o, choices, memory);
    c.passed = r.at, c.unknown = r.unknown;
  }
  memory.remember();
  const Statuses errors = clip_errors({c.options, c.squares, c.count, c.norm, c.factor, c.unknown});
  const bool may_work = (allowed(errors) & ok) != 0;
  if (may_work && !(holds(memory, c.squares, Wide{c.count} * 8) && holds(memory, c.factor, 4) &&
                    (c.norm == nullptr || holds(memory, c.norm, 4))))
    return;
  std::vector<double> squares;
  if (may_work) squares.assign(c.squares, c.squares + c.count);
  const double divisor = may_work && c.o.grad_scale != nullptr ? double{*c.o.grad_scale} : 1.0;
  const Telling telling([&] {
    return "adamw_clip_factor count " + std::to_string(c.count) + " max_norm " + std::to_string(c.o.max_norm) +
           " device " + std::to_string(c.o.device) + " reserved " + std::to_string(c.o.reserved) + " size " +
           std::to_string(c.passed != nullptr ? c.passed->size : 0) + (c.unknown ? " with unknown bytes" : "");
  });
  const adamw_status status = adamw_clip_factor(c.passed, c.squares, c.count, c.norm, c.factor);
  if (!judge("adamw_clip_factor", status, errors, memory)) return;
  check_unwritten(memory, {c.norm, c.factor});
  compare_factor(c, squares, divisor);
  if (!std::isnan(*c.factor)) add_to_digest(c.factor, sizeof *c.factor);
}
