// Owns what tests of struct sizes share: structs in the size of another version of adamw.h, and the laws of options and
// of the functions that initialise them. Knows no call.
#pragma once

#include <algorithm>
#include <string>

#include "model.h"

constexpr unsigned char garbage = 0xEE;
constexpr std::size_t largest = 4096;

// A struct in another size, first in memory that has garbage behind it.
template <class Struct>
struct Sized {
  std::vector<std::uint64_t> words;
  std::size_t size;

  Sized(const Struct &value, std::size_t bytes) : words(bytes / 8 + sizeof(Struct) / 8 + 1), size(bytes) {
    std::memset(words.data(), garbage, words.size() * 8);
    std::memset(words.data(), 0, size);
    std::memcpy(words.data(), &value, std::min(size, sizeof value));
  }
  unsigned char *at() { return reinterpret_cast<unsigned char *>(words.data()); }
  Struct *get() { return reinterpret_cast<Struct *>(words.data()); }
  bool lives_behind() const {
    const auto *all = reinterpret_cast<const unsigned char *>(words.data());
    return std::all_of(all + size, all + words.size() * 8, [](unsigned char byte) { return byte == garbage; });
  }
};

template <class Options>
Sized<Options> options_of_size(Options value, std::size_t size) {
  value.size = size;
  return Sized<Options>(value, size);
}

// Sizes that no struct has, of which `known` bytes are known and `least` needed.
inline std::vector<std::size_t> wrong_sizes(std::size_t least, std::size_t known) {
  return {0, 4, least - 8, least - 1, least + 4, known + 1, known + 4, largest + 8, ~std::size_t{0}, ~std::size_t{7}};
}

// Refused as of another version, with these words.
inline void check_refused(adamw_status status, const std::string &words, const char *what) {
  const std::string message = adamw_last_error();
  CHECK(status == ADAMW_ERROR_VERSION, "%s: status %d: %s", what, status, message.c_str());
  CHECK(message.find(words) != std::string::npos, "%s: \"%s\" lacks \"%s\"", what, message.c_str(), words.c_str());
}

// Every size that is right, and what makes one wrong. call(options) is the function; same() says whether it did what it
// does with all fields at their defaults, unchanged() whether it wrote nothing.
template <class Options, class Call, class Same, class Unchanged>
void check_options(const char *what, const Options &value, std::size_t least, const Call &call, const Same &same,
                   const Unchanged &unchanged) {
  for (std::size_t size = least; size <= largest; size += size < sizeof value + 16 ? 8 : 1000) {
    Sized<Options> sized = options_of_size(value, size);
    const adamw_status status = call(sized.get());
    CHECK(status == ADAMW_OK, "%s of %zu bytes: %s", what, size, adamw_last_error());
    CHECK(same(), "%s of %zu bytes does something else", what, size);
    for (std::size_t byte : {sizeof value, size - 1}) {
      if (byte >= size || byte < sizeof value) continue;
      sized.at()[byte] = 7;
      const std::string words =
          "options.size = " + std::to_string(size) + ", and byte " + std::to_string(byte) + " is 7";
      check_refused(call(sized.get()), words, what);
      CHECK(unchanged(), "%s: byte %zu: something was written", what, byte);
      sized.at()[byte] = 0;
    }
  }
  for (std::size_t size : wrong_sizes(least, sizeof value)) {
    Sized<Options> sized(value, sizeof value);
    sized.get()->size = size;
    check_refused(call(sized.get()), "options.size = " + std::to_string(size), what);
    CHECK(unchanged(), "%s: size %zu: something was written", what, size);
  }
}

// Law: what an *_init() function writes in any size is the beginning of what its macro says, then zeros, and is read by
// the function that takes it.
template <class Options>
void check_init(const char *what, adamw_status (*init)(Options *, std::size_t), const Options &defaults,
                std::size_t least) {
  for (std::size_t size = least; size <= largest; size += size < sizeof defaults + 16 ? 8 : 1000) {
    Sized<Options> is(defaults, size), must = options_of_size(defaults, size);
    std::memset(is.at(), garbage, size);
    CHECK(init(is.get(), size) == ADAMW_OK, "%s of %zu bytes: %s", what, size, adamw_last_error());
    CHECK(is.words == must.words, "%s of %zu bytes writes something else", what, size);
  }
  for (std::size_t size : wrong_sizes(least, sizeof defaults)) {
    Sized<Options> is(defaults, sizeof defaults), was = is;
    check_refused(init(is.get(), size), "size = " + std::to_string(size), what);
    CHECK(is.words == was.words, "%s: size %zu: something was written", what, size);
  }
}
