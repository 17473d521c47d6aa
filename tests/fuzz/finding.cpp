// Owns telling of findings, see finding.h.
#include "finding.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

std::uint64_t current_seed = 0, current_call = 0, digest = 0;
bool numbered = false;
Tally tally{};

namespace {

std::function<std::string()> describe_now;

void tell_where() {
  if (numbered)
    std::fprintf(stderr, "seed %llu, input %llu (again: --seed %llu --input %llu)\n",
                 static_cast<unsigned long long>(current_seed), static_cast<unsigned long long>(current_call),
                 static_cast<unsigned long long>(current_seed), static_cast<unsigned long long>(current_call));
  std::fflush(stderr);
  const auto describe = std::exchange(describe_now, {});  // once, whatever happens in it
  if (describe) std::fprintf(stderr, "%s\n", describe().c_str());
  std::fflush(stderr);
}

// It allocates and prints, which a handler should not: the process is about to end, and what it said first is out.
void on_signal(int number) {
  std::signal(number, SIG_DFL);
  std::fprintf(stderr, "FINDING: %s\n", number == SIGALRM ? "a call hangs" : strsignal(number));
  tell_where();
  std::signal(SIGABRT, SIG_DFL);
  std::abort();
}

template <class... Arguments>
void append(std::string &text, const char *format, Arguments... arguments) {
  char piece[256];
  std::snprintf(piece, sizeof piece, format, arguments...);
  text += piece;
}

}  // namespace

void finding(const char *format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fprintf(stderr, "FINDING: ");
  std::vfprintf(stderr, format, arguments);
  std::fprintf(stderr, "\n");
  va_end(arguments);
  tell_where();
  if (numbered) std::signal(SIGABRT, SIG_DFL);  // libFuzzer's own handler keeps the input
  std::abort();
}

Telling::Telling(std::function<std::string()> describe) : describe_(std::move(describe)), outer_(describe_now) {
  describe_now = describe_;
}
Telling::~Telling() { describe_now = outer_; }

void tell_of_signals() {
  for (int number : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) std::signal(number, on_signal);
}

std::string describe_options(const adamw_step_options &o) {
  std::string text = "adamw_step, ADAMW_STEP_OPTIONS_INIT but";
  const adamw_step_options usual = ADAMW_STEP_OPTIONS_INIT;
#define REAL(field) \
  if (std::memcmp(&o.field, &usual.field, sizeof o.field) != 0) append(text, " ." #field "=%.17g", o.field)
#define WHOLE(field) \
  if (o.field != usual.field) append(text, " ." #field "=%lld", static_cast<long long>(o.field))
#define POINTER(field) \
  if (o.field != usual.field) append(text, " ." #field "=%p", static_cast<const void *>(o.field))
  WHOLE(size);
  REAL(lr);
  REAL(beta1);
  REAL(beta2);
  REAL(eps);
  REAL(weight_decay);
  REAL(max_unorm);
  WHOLE(param_dtype);
  WHOLE(grad_dtype);
  WHOLE(state_format);
  WHOLE(flags);
  WHOLE(percentile_clipping);
  WHOLE(device);
  WHOLE(num_threads);
  WHOLE(remainder_bits);
  WHOLE(seed);
  POINTER(grad_scale);
  POINTER(found_inf);
  POINTER(skipped);
  POINTER(stream);
  POINTER(lr_tensor);
  POINTER(pager);
  POINTER(rows_stepped);
  POINTER(grad_factor);
#undef REAL
#undef WHOLE
#undef POINTER
  return text;
}

std::string describe_row(const adamw_tensor &t, std::int64_t number) {
  std::string text;
  append(text, "\n  row %lld: param %p grad %p exp_avg %p %p %p scales %p %p %p floors %p %p remainder %p history %p",
         static_cast<long long>(number), t.param, t.grad, t.exp_avg, t.exp_avg_sq, t.max_exp_avg_sq,
         static_cast<const void *>(t.exp_avg_absmax), static_cast<const void *>(t.exp_avg_sq_absmax),
         static_cast<const void *>(t.max_exp_avg_sq_absmax), static_cast<const void *>(t.exp_avg_sq_floor),
         static_cast<const void *>(t.max_exp_avg_sq_floor), t.param_remainder,
         static_cast<const void *>(t.gnorm_history));
  append(text, " numel %lld row_length %lld step %lld global_offset %lld runs %lld %lld step_tensor %p",
         static_cast<long long>(t.numel), static_cast<long long>(t.row_length), static_cast<long long>(t.step),
         static_cast<long long>(t.global_offset), static_cast<long long>(t.run_length),
         static_cast<long long>(t.run_stride), static_cast<const void *>(t.step_tensor));
  return text;
}

void add_to_digest(const void *bytes, std::size_t count) {
  const auto *at = static_cast<const std::uint8_t *>(bytes);
  std::uint64_t d = digest ^ count;
  for (; count >= 8; at += 8, count -= 8) {
    std::uint64_t word;
    std::memcpy(&word, at, 8);
    d = (d ^ word) * 0x9E3779B97F4A7C15u;
    d ^= d >> 29;
  }
  for (; count > 0; ++at, --count) d = (d ^ *at) * 0x9E3779B97F4A7C15u;
  digest = d;
}
