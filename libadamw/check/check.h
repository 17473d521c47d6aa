// Owns every check of what a caller passes. Nothing below it checks again; nothing here writes a caller's memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "../../include/adamw.h"

namespace adamw {

struct CheckMemory;  // overlap_cache.h

constexpr const char *step_name = "adamw_step", *norm_name = "adamw_norm", *clip_name = "adamw_clip_factor";
constexpr int64_t max_bytes = int64_t{1} << 62;

// Each returns ADAMW_OK or fails with a sentence that names the function, row, field and value. `o`: what the caller's
// options say, in this library's size.
adamw_status check_step_options(const adamw_step_options *options, adamw_step_options &o);
adamw_status check_rows(const adamw_step_options &options, const adamw_tensor *tensors, int64_t count,
                        CheckMemory &memory);
adamw_status check_quantize_options(const char *function, const adamw_quantize_options *options,
                                    adamw_quantize_options &o);
adamw_status check_split_options(const char *function, const adamw_split_options *options, adamw_split_options &o);
adamw_status check_norm_options(const adamw_norm_options *options, adamw_norm_options &o);
adamw_status check_clip_options(const adamw_clip_options *options, adamw_clip_options &o);
// Of the table of adamw_norm(); `squares` is written.
adamw_status check_gradients(const adamw_gradient *gradients, int64_t count, const double *squares);
adamw_status check_device(const char *function, int32_t device);
adamw_status check_layout(const char *function, int64_t numel, int64_t row_length);
adamw_status refuse_buffer(const char *function, int64_t row, const char *field, const void *pointer, int64_t bytes,
                           size_t alignment);

// bytes = 0: NULL is allowed. row = -1: not a row's. alignment: a power of two. Inline: thousands of rows are right.
inline adamw_status check_buffer(const char *function, int64_t row, const char *field, const void *pointer,
                                 int64_t bytes, size_t alignment) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  const bool valid = (pointer != nullptr || bytes <= 0) && (address & (alignment - 1)) == 0 &&
                     address + static_cast<std::uintptr_t>(bytes) >= address;
  return valid ? ADAMW_OK : refuse_buffer(function, row, field, pointer, bytes, alignment);
}

// A stretch of memory that a call uses.
struct Interval {
  std::uintptr_t begin, end;
  int64_t row;  // -1: not a row's
  const char *field;
};

inline Interval interval(const void *p, int64_t bytes, const char *field) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  return {begin, begin + static_cast<std::uintptr_t>(bytes), -1, field};
}

std::vector<Interval> by_address(const Interval *intervals, size_t count);

// Fails if two written stretches overlap, or one that is read overlaps one that is written. Both are by_address().
adamw_status check_overlap(const char *function, const std::vector<Interval> &written,
                           const std::vector<Interval> &read);

// The value of an enum argument, which C callers may give any: to load one that it does not name is undefined in C++.
template <class Enum>
int32_t raw_value(const Enum &value) {
  static_assert(sizeof(Enum) == sizeof(int32_t), "enums are 32 bits");
  int32_t raw;
  std::memcpy(&raw, &value, sizeof raw);
  return raw;
}

}  // namespace adamw
