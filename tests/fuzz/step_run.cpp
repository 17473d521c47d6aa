// Owns the checks of a fuzzed step, see step_run.h.
#include "step_run.h"

#include <algorithm>
#include <string>

#include "finding.h"
#include "reference.h"

bool kernel_missing = false;

namespace {

std::string describe(const StepInput &input) {
  std::string text = input.options != nullptr ? describe_options(*input.options) : "adamw_step, options NULL";
  text += "\n  tensors " + std::string(input.tensors != nullptr ? "" : "NULL ") + "of " +
          std::to_string(input.tensor_size) + " bytes, count " + std::to_string(input.count);
  if (input.passed_options != nullptr) text += ", options of " + std::to_string(input.passed_options->size) + " bytes";
  if (input.unknown) text += ", with unknown bytes";
  if (input.tensors != nullptr && reinterpret_cast<std::uintptr_t>(input.tensors) % 8 == 0)
    for (std::int64_t i = 0; i < std::min(input.rows, input.count); ++i) text += describe_row(input.tensors[i], i);
  return text;
}

std::uint8_t *address(Wide number) { return reinterpret_cast<std::uint8_t *>(static_cast<std::uintptr_t>(number)); }

// Every stretch lies in one buffer: else the call is right only on paper, and nobody may make it.
bool has_its_memory(const std::vector<Stretch> &used, const Memory &memory) {
  return std::all_of(used.begin(), used.end(), [&](const Stretch &s) {
    const Buffer *const b = memory.containing(address(s.begin));
    return b != nullptr && address(s.end) <= b->at + b->bytes;
  });
}

// What no stretch that is written has.
void check_unwritten(Memory &memory, const std::vector<Stretch> &used) {
  for (std::size_t k = 0; k < memory.count(); ++k) {
    const Buffer &b = memory[k];
    for (std::size_t i = 0; i < b.bytes; ++i) {
      if (b.at[i] == b.before[i]) continue;
      const Wide at = Wide{reinterpret_cast<std::uintptr_t>(b.at)} + static_cast<Wide>(i);
      const auto holds = [&](const Stretch &s) { return s.written && at >= s.begin && at < s.end; };
      const auto s = std::find_if(used.begin(), used.end(), holds);
      if (s == used.end())
        finding("byte %zu of a buffer of %zu bytes was written, which is none that the call writes", i, b.bytes);
      i = static_cast<std::size_t>(s->end - Wide{reinterpret_cast<std::uintptr_t>(b.at)}) - 1;
    }
  }
}

// The bytes of pointer p as they were before the call.
template <class T>
T *old(const Memory &memory, T *p) {
  const Buffer *const b = memory.containing(p);
  return b == nullptr ? nullptr
                      : reinterpret_cast<T *>(const_cast<std::uint8_t *>(b->before.data()) +
                                              (reinterpret_cast<const std::uint8_t *>(p) - b->at));
}
void *old_bytes(const Memory &memory, const void *p) {
  return old(memory, static_cast<std::uint8_t *>(const_cast<void *>(p)));
}

RowBytes bytes_of(const adamw_tensor &t) {
  return {t.param,
          t.param_remainder,
          t.grad,
          {t.exp_avg, t.exp_avg_sq, t.max_exp_avg_sq},
          {t.exp_avg_absmax, t.exp_avg_sq_absmax, t.max_exp_avg_sq_absmax},
          {nullptr, t.exp_avg_sq_floor, t.max_exp_avg_sq_floor},
          t.gnorm_history};
}

adamw_tensor old_row(const Memory &memory, const adamw_tensor &now) {
  adamw_tensor t = now;
  t.param = old_bytes(memory, t.param);
  t.grad = old_bytes(memory, t.grad);
  t.param_remainder = old_bytes(memory, t.param_remainder);
  for (void **p : {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq}) *p = old_bytes(memory, *p);
  for (float **p : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax, &t.exp_avg_sq_floor,
                    &t.max_exp_avg_sq_floor, &t.gnorm_history})
    *p = old(memory, *p);
  return t;
}

// *rows_stepped may be set by a call that steps nothing: to 0, or the rows without elements that come first.
bool says_that_none_was_stepped(const StepInput &input, const Memory &memory, const Buffer &b) {
  const std::int64_t *const counter = input.options != nullptr ? input.options->rows_stepped : nullptr;
  std::int64_t empty = 0;
  while (empty < std::min(input.rows, input.count) && input.tensors[empty].numel == 0) ++empty;
  return counter != nullptr && memory.containing(counter) == &b && *counter >= 0 && *counter <= empty;
}

void check_values(const StepInput &input, const Memory &memory, std::int64_t skipped) {
  SkippedRange range{0, 0};
  for (std::int64_t i = 0; i < input.rows; ++i) {
    adamw_tensor t = input.tensors[i];
    if (t.numel == 0) continue;
    if (t.step_tensor != nullptr) t.step = static_cast<std::int64_t>(*t.step_tensor);
    compare_step(*input.options, t, i, bytes_of(old_row(memory, t)), bytes_of(t), range);
  }
  if (input.options->skipped != nullptr && (skipped < range.min || skipped > range.max))
    finding("skipped rose by %lld, must be in %lld ... %lld", static_cast<long long>(skipped),
            static_cast<long long>(range.min), static_cast<long long>(range.max));
}

// The same rows from the same bytes, each in a call of its own, with another number of threads and without a pager.
void replay(const StepInput &input, Choices &choices, const Memory &memory, const std::vector<Stretch> &used,
            std::int64_t skipped) {
  adamw_step_options o = *input.options;
  std::int64_t again = 0, stepped = 0;
  o.skipped = &again, o.rows_stepped = &stepped, o.pager = nullptr;
  o.num_threads = choices.of({1, 2, 5});
  std::vector<adamw_tensor> rows;
  for (std::int64_t i = 0; i < input.rows; ++i) rows.push_back(old_row(memory, input.tensors[i]));
  const bool at_once = choices.one_in(4);
  if (at_once) std::reverse(rows.begin(), rows.end());
  for (std::size_t i = 0; i < rows.size(); i += at_once ? rows.size() : 1) {
    const auto count = static_cast<std::int64_t>(at_once ? rows.size() : 1);
    if (adamw_step(&o, &rows[i], sizeof rows[i], count) != ADAMW_OK)
      finding("row %zu alone: %s", i, adamw_last_error());
    if (stepped != count && o.found_inf == nullptr)
      finding("row %zu alone: rows_stepped %lld", i, static_cast<long long>(stepped));
  }
  if (again != skipped && input.options->skipped != nullptr)
    finding("row by row %lld elements are skipped, together %lld", static_cast<long long>(again),
            static_cast<long long>(skipped));
  for (const Stretch &s : used) {
    const std::uint8_t *const now = address(s.begin);
    const auto bytes = static_cast<std::size_t>(s.end - s.begin);
    const auto *const counter = reinterpret_cast<const std::int64_t *>(now);
    if (!s.written || counter == input.options->skipped || counter == input.options->rows_stepped) continue;
    const std::uint8_t *const other = old(memory, now);
    for (std::size_t i = 0; i < bytes; ++i)
      if (now[i] != other[i])
        finding("row by row, with %d threads, byte %zu of %zu at %p is %d, not %d", o.num_threads, i, bytes,
                static_cast<const void *>(now), other[i], now[i]);
  }
  ++tally.replays;
}

}  // namespace

void run_step(StepInput &input, Choices &choices, Memory &memory, const std::vector<PagerBuffer> &paged,
              Statuses broken) {
  const Telling telling([&] { return describe(input); });
  std::vector<Stretch> used;
  const StepCall call{input.options, input.tensors,  input.tensor_size, input.count,
                      paged,         kernel_missing, input.unknown};
  Statuses errors = step_errors(call, &used);
  const auto works = [&] {
    return std::any_of(input.tensors, input.tensors + input.count, [](const adamw_tensor &t) { return t.numel > 0; });
  };
  if (broken != 0 && errors == 0 && input.count > 0) errors = works() ? broken : broken | ok;
  if (broken != 0 && errors != 0 && input.count > 0) errors |= broken;
  const Statuses may = allowed(errors);
  if ((may & ok) != 0 && !has_its_memory(used, memory)) return;
  memory.remember();
  const adamw_status status = adamw_step(input.passed_options != nullptr ? input.passed_options : input.options,
                                         input.passed_tensors != nullptr ? input.passed_tensors : input.tensors,
                                         input.tensor_size, input.count);
  const std::string error = adamw_last_error();
  ++tally.steps;
  if ((may & only(status)) == 0) finding("status %d '%s', allowed: set %#x", status, error.c_str(), may);
  if (!memory.canaries_live()) finding("status %d: bytes beside a buffer were written", status);
  if (status != ADAMW_OK) {
    ++tally.refused;
    if (error.empty() || error.find('\n') != std::string::npos) finding("adamw_last_error() is '%s'", error.c_str());
    for (std::size_t i = 0; i < memory.count(); ++i)
      if (memory.is_changed(memory[i]) && !says_that_none_was_stepped(input, memory, memory[i]))
        finding("refused (%s), but a buffer of %zu bytes was written", error.c_str(), memory[i].bytes);
    return;
  }
  ++tally.accepted;
  check_unwritten(memory, used);
  const adamw_step_options &o = *input.options;
  for (std::size_t i = 0; i < memory.count(); ++i)
    if (input.comparable && memory.is_changed(memory[i])) add_to_digest(memory[i].at, memory[i].bytes);
  const bool nothing = o.found_inf != nullptr && *o.found_inf != 0.0f;
  const std::int64_t skipped = o.skipped != nullptr ? *o.skipped - *old(memory, o.skipped) : 0;
  if (o.rows_stepped != nullptr && !nothing && *o.rows_stepped != input.count)
    finding("OK, but rows_stepped is %lld", static_cast<long long>(*o.rows_stepped));
  if (nothing) {
    for (std::size_t i = 0; i < memory.count(); ++i)
      if (memory.is_changed(memory[i]) && memory.containing(o.rows_stepped) != &memory[i])
        finding("found_inf is not 0, but a buffer of %zu bytes was written", memory[i].bytes);
    return;
  }
  if (input.count != input.rows || input.count == 0) return;
  check_values(input, memory, skipped);
  if (choices.below(4) == 3) replay(input, choices, memory, used, skipped);
}
