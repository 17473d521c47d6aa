// Owns master weights by adamw.h's words, in plain integers and apart from the library: what a weight is split into,
// and what a parameter and a remainder are together.
#pragma once

#include <cstdint>

#include "inputs.h"

inline bool is_nan(std::uint32_t weight) { return (weight & 0x7FFFFFFFu) > 0x7F800000u; }
inline bool is_nan(std::uint16_t param) { return (param & 0x7FFF) > 0x7F80; }

// The numbers of a bfloat16 follow each other as their bits do, and so do those of a float: half a unit of the one is
// 2^15 of the other. With 8 bits, noise decides whether what is below 24 bits is rounded up: so many of 256 do not
// suffice. 128: to nearest, half a unit away from zero.
constexpr std::uint32_t to_nearest = 128;
inline std::uint32_t kept_of(int bits, std::uint32_t weight, std::uint32_t noise = to_nearest) {
  if (is_nan(weight)) return 0x7FC00000u;
  if (bits == 16) return weight;
  const std::uint32_t magnitude = weight & 0x7FFFFFFFu, up = (magnitude & 0xFFu) >= 256u - noise ? 1u : 0u;
  return (weight & 0x80000000u) | ((magnitude >> 8) + up) << 8;
}
inline std::uint16_t param_by_definition(int bits, std::uint32_t weight, std::uint32_t noise = to_nearest) {
  const std::uint32_t kept = kept_of(bits, weight, noise), magnitude = kept & 0x7FFFFFFFu;
  const std::uint32_t up = (magnitude & 0xFFFFu) >= 0x8000u ? 1u : 0u;
  return static_cast<std::uint16_t>((kept & 0x80000000u) >> 16 | ((magnitude >> 16) + up));
}
// What the parameter lacks, in units of its last bit; negative where it was rounded up.
inline int remainder_by_definition(int bits, std::uint32_t weight, std::uint32_t noise = to_nearest) {
  const std::uint32_t kept = kept_of(bits, weight, noise);
  const int low = static_cast<int>(kept & 0xFFFFu), rest = low >= 0x8000 ? low - 0x10000 : low;
  return bits == 16 ? rest : rest / 256;
}
inline std::uint32_t joined_by_definition(int bits, std::uint16_t param, int remainder) {
  const auto upper = static_cast<std::uint32_t>(param) << 16;
  const std::uint32_t sum = upper + static_cast<std::uint32_t>(bits == 16 ? remainder : remainder * 256);
  return is_nan(sum) ? upper : sum;
}
// The byte of a random word with which a step rounds to 24 bits: bits 8 to 15.
inline std::uint32_t noise_by_definition(std::uint32_t word) { return word >> 8 & 0xFFu; }
