// Owns the random words by their definition, apart from the library: adamw.h promises a word per (seed, step, global
// element index).
#pragma once

#include <cstdint>

// Of a group of eight neighbours one hash, of which each takes a product.
inline std::uint32_t word_by_definition(std::uint32_t key, std::uint64_t index) {
  const auto mix = [](std::uint32_t x) {
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    return x ^ x >> 16;
  };
  static const std::uint32_t odd[] = {0x9E3779B1u, 0x85EBCA77u, 0xC2B2AE3Du, 0x27D4EB2Fu,
                                      0x165667B1u, 0xD3A2646Du, 0xFD7046C5u, 0xB55A4F09u};
  const std::uint64_t group = index / 8;
  const std::uint32_t upper = mix(key ^ static_cast<std::uint32_t>(group >> 32) * 0x85EBCA6Bu);
  return mix(static_cast<std::uint32_t>(group) ^ upper) * odd[index % 8];
}

// The key of the words that round state: the lower half of two rounds of splitmix64's finalizer.
inline std::uint32_t state_key_by_definition(std::uint64_t seed, std::int64_t step) {
  const auto mix = [](std::uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
  };
  return static_cast<std::uint32_t>(mix(mix(seed + 0x9E3779B97F4A7C15u) + static_cast<std::uint64_t>(step)));
}
