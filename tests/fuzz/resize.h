// Owns how fuzzed calls pass a struct in the size of another version of adamw.h. Knows nothing of what the call does.
#pragma once

#include <algorithm>
#include <cstring>

#include "choices.h"
#include "memory.h"

// What a call is given, beside a guard page, in the place of a struct.
template <class Struct>
struct Resized {
  Struct *at;
  std::size_t size;
  bool unknown;  // something is in it that today's header does not know
};

inline std::size_t other_size(Choices &choices, std::size_t least, std::size_t known) {
  if (choices.below(2) == 0)
    return least + static_cast<std::size_t>(choices.below(static_cast<int>(known - least) / 8 + 1)) * 8;
  return choices.of<std::size_t>({known + 8, known + 16, known + 256, 4096});
}

// `count` structs that lie side by side, each in another size. What is cut off becomes the default in `values`, too.
template <class Struct>
Resized<Struct> resized(Struct *values, std::int64_t count, const Struct &defaults, std::size_t least, Choices &choices,
                        Memory &memory) {
  const std::size_t size = other_size(choices, least, sizeof defaults), kept = std::min(size, sizeof defaults);
  const std::size_t bytes = static_cast<std::size_t>(count) * size;
  std::uint8_t *const at = memory.take(bytes, true).at;
  std::memset(at, 0, bytes);
  for (std::int64_t i = 0; i < count; ++i) {
    std::memcpy(at + static_cast<std::size_t>(i) * size, values + i, kept);
    std::memcpy(reinterpret_cast<char *>(values + i) + kept, reinterpret_cast<const char *>(&defaults) + kept,
                sizeof defaults - kept);
  }
  Resized<Struct> result{reinterpret_cast<Struct *>(at), size, false};
  if (size > sizeof defaults && count > 0 && choices.below(3) == 0) {
    const std::size_t row = static_cast<std::size_t>(choices.below(static_cast<int>(count)));
    const std::size_t byte = choices.of<std::size_t>({sizeof defaults, size - 1, (sizeof defaults + size) / 2});
    at[row * size + byte] = static_cast<std::uint8_t>(1 + choices.below(255));
    result.unknown = true;
  }
  return result;
}

// Options, which say themselves how large they are.
template <class Options>
Resized<Options> resized_options(Options &values, const Options &defaults, std::size_t least, Choices &choices,
                                 Memory &memory) {
  const Resized<Options> result = resized(&values, 1, defaults, least, choices, memory);
  result.at->size = result.size;
  return result;
}
