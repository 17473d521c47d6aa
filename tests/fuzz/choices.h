// Owns reading choices from the bytes of an input. Where the bytes end every choice is 0, and 0 is always the ordinary
// choice: an empty input is a plain valid call. Knows nothing of what is chosen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>

class Choices {
 public:
  Choices(const std::uint8_t *data, std::size_t size) : data_(data), size_(size) {}

  std::uint64_t bits(std::size_t bytes = 8) {
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < bytes && at_ < size_; ++i) word |= std::uint64_t{data_[at_++]} << (8 * i);
    return word;
  }
  int below(int n) { return static_cast<int>(bits(n <= 256 ? 1 : 4) % static_cast<std::uint64_t>(n)); }
  bool one_in(int n) { return below(n) == n - 1; }
  template <class T>
  T of(std::initializer_list<T> list) {
    return list.begin()[below(static_cast<int>(list.size()))];
  }

  // A number that a careless caller might pass: ends of ranges, one beyond them, any bits.
  std::int64_t hostile_integer() {
    const std::int64_t near[] = {0, 1, -1, 2, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    const int shift = below(63), kind = below(4);
    const std::int64_t delta = below(3) - 1;
    if (kind == 0) return near[below(8)];
    if (kind == 1) return (std::int64_t{1} << shift) + delta;
    if (kind == 2) return -(std::int64_t{1} << shift) + delta;
    return static_cast<std::int64_t>(bits());
  }
  double hostile_real() {
    const double list[] = {0.0,     -0.0,   1.0,     -1.0,    __builtin_inf(), -__builtin_inf(), __builtin_nan(""),
                           0x1p-60, 5e-324, 1.7e308, -5e-324, 1.0 - 0x1p-53,   1.0 + 0x1p-52,    1e300};
    if (one_in(4)) {
      const std::uint64_t word = bits();
      double x;
      std::memcpy(&x, &word, 8);
      return x;
    }
    return list[below(14)];
  }

 private:
  const std::uint8_t *data_;
  std::size_t size_, at_ = 0;
};
