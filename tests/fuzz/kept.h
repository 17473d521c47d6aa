// Owns what 8-bit state may hold of numbers that are known to some error, by adamw.h's words. Knows nothing of steps.
#pragma once

#include <cstdint>
#include <vector>

// Lies between both. Zero if both are 0.
struct Known {
  double low, high;
};

// Ends in a finding unless the codes and what is beside them may stand for the numbers, all that have this scale.
// moment: 0, 1, 2. row and first tell where they are.
void compare_kept(const std::vector<Known> &numbers, int moment, const std::uint8_t *codes, float absmax, float floor,
                  std::int64_t row, std::int64_t first);

// What a code stands for, bit for bit.
float decoded(bool is_exp_avg, std::uint8_t code, float absmax, float floor);
