// Owns reading and writing structs in the size that they have in the caller's version of adamw.h. Knows of no field
// more than where those begin that a caller may lack.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "../status.h"

namespace adamw {

// The least size of each struct: what follows may be missing.
template <class Struct>
inline constexpr size_t min_size = sizeof(Struct);
template <>
inline constexpr size_t min_size<adamw_step_options> = offsetof(adamw_step_options, lr_tensor);
template <>
inline constexpr size_t min_size<adamw_quantize_options> = offsetof(adamw_quantize_options, stream);
template <>
inline constexpr size_t min_size<adamw_split_options> = offsetof(adamw_split_options, stream);
template <>
inline constexpr size_t min_size<adamw_pager_options> = offsetof(adamw_pager_options, reserve_bytes);
template <>
inline constexpr size_t min_size<adamw_pager_statistics> = offsetof(adamw_pager_statistics, bytes_in);
template <>
inline constexpr size_t min_size<adamw_tensor> = offsetof(adamw_tensor, run_length);

// Fails unless a struct of which this library knows `known` bytes may have this size. `what` names it.
adamw_status check_size(const char *function, const char *what, size_t size, size_t least, size_t known);
template <class Struct>
adamw_status check_size_of(const char *function, const char *what, size_t size) {
  static_assert(sizeof(Struct) % 8 == 0 && min_size<Struct> % 8 == 0, "as adamw.h says of sizes");
  return check_size(function, what, size, min_size<Struct>, sizeof(Struct));
}

// Fails unless all bytes of a struct beyond the `known` ones are 0. row = -1: not a row's. The size is right.
adamw_status check_tail(const char *function, int64_t row, const char *what, const void *at, size_t size, size_t known);

// options: what a caller gave; read: all fields, of which those that it lacks are the defaults.
template <class Options>
adamw_status read_options(const char *function, const Options *options, const Options &defaults, Options &read) {
  if (options == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options is NULL", function);
  const size_t size = options->size;
  if (adamw_status s = check_size_of<Options>(function, "options.size", size)) return s;
  if (adamw_status s = check_tail(function, -1, "options.size", options, size, sizeof read)) return s;
  read = defaults;
  std::memcpy(&read, options, std::min(size, sizeof read));
  read.size = sizeof read;
  return ADAMW_OK;
}

// Writes `value` to a caller's struct of this size, and zeros beyond what this library knows. The size is right.
template <class Struct>
void write_struct(void *target, size_t size, const Struct &value) {
  const size_t written = std::min(size, sizeof value);
  std::memcpy(target, &value, written);
  std::memset(static_cast<char *>(target) + written, 0, size - written);
}

// Checks a table but for what is in its entries. `name`, `size_name`: of the arguments that point to it, and that say
// how large an entry is; known: this library's size.
adamw_status check_table(const char *function, const char *name, const char *size_name, const void *table, size_t size,
                         size_t least, size_t known, size_t alignment, int64_t count);

// The same, and makes `table` point to entries of this library's size: the caller's own, or `copies`.
template <class Entry>
adamw_status read_table(const char *function, const char *name, const char *size_name, const Entry *&table, size_t size,
                        int64_t count, std::vector<Entry> &copies) {
  constexpr size_t known = sizeof(Entry);
  static_assert(known % 8 == 0 && min_size<Entry> % 8 == 0, "as adamw.h says of sizes");
  if (adamw_status s =
          check_table(function, name, size_name, table, size, min_size<Entry>, known, alignof(Entry), count)) {
    return s;
  }
  if (count == 0 || size == known) return ADAMW_OK;  // nearly always: nothing is copied
  copies.assign(static_cast<size_t>(count), Entry{});
  const auto *entry = reinterpret_cast<const char *>(table);
  for (int64_t i = 0; i < count; ++i, entry += size) {
    if (adamw_status s = check_tail(function, i, size_name, entry, size, known)) return s;
    std::memcpy(&copies[static_cast<size_t>(i)], entry, std::min(size, known));
  }
  table = copies.data();
  return ADAMW_OK;
}

}  // namespace adamw
