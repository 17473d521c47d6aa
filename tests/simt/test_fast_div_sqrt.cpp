// Owns the law of fast_div_sqrt.h's division: its quotient is IEEE's, however the approximate reciprocal errs. One
// exhaustive search stands for all 2^46 pairs of mantissas. (That root and quotient are right in a step:
// test_step.cpp.)
#define ADAMW_DEVICE_HEADER "../../../tests/simt/device.h"
#include "../../libadamw/gpu/kernels/fast_div_sqrt.h"
#include "cpp/check.h"
#include "cpp/inputs.h"

using adamw::Quick;

namespace {

float quotient(std::uint32_t a, std::uint32_t b) {
  return (Quick(static_cast<float>(a)) / Quick(static_cast<float>(b))).x;
}

// The two pairs of 24-bit mantissas (a < 2^24, b) for which the reciprocal, if the approximation errs one way, is
// rounded the wrong way and the quotient with it; a second correction would not mend that.
bool known(std::uint64_t a, std::uint64_t b) {
  return (a == 8388608 && b == 16777215) || (a == 13981011 && b == 16777213);
}

long long checks = 0, wrong = 0, missed = 0;

void check_pair(std::uint64_t a, std::uint64_t b) {
  const auto x = static_cast<std::uint32_t>(a), y = static_cast<std::uint32_t>(b);
  const float expected = static_cast<float>(x) / static_cast<float>(y);
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    simt::settings().seed = seed;
    const bool right = quotient(x, y) == expected;
    ++checks;
    if (known(a, b)) {
      missed += !right;
    } else {
      wrong += !right;
    }
  }
}

// All a whose quotient by b lies so close to the middle of two floats that the last correction could miss it: before it
// is rounded, it is right to 1.5 * 2^-24 units, and a * 2^s - b * (q + 1/2) = k / 2 in whole numbers, so that only
// |k| <= 3 can matter. b's odd part has an inverse modulo powers of two, which leaves at most two q for each k.
void check_divisor(std::uint64_t b) {
  const int twos = __builtin_ctzll(b);
  const std::uint64_t odd = b >> twos;
  std::uint64_t inverse = 1;
  for (int i = 0; i < 6; ++i) inverse *= 2 - odd * inverse;
  for (int s = 23; s <= 24; ++s) {
    for (std::int64_t k = -3; k <= 3; ++k) {
      if (k == 0 || k % (std::int64_t{1} << twos) != 0) continue;
      const std::uint64_t step = std::uint64_t{1} << (s + 1 - twos);
      for (std::uint64_t m = inverse * static_cast<std::uint64_t>(-(k >> twos)) % step; m < 1u << 25; m += step) {
        if (m % 2 == 0 || m < 1u << 24) continue;  // m = 2 q + 1
        const auto product = static_cast<std::int64_t>(b * m) + k;
        if (product % (std::int64_t{1} << (s + 1)) != 0) continue;
        const std::int64_t a = product >> (s + 1);
        if (a >= 1 << 23 && a < 1 << 24) check_pair(static_cast<std::uint64_t>(a), b);
      }
    }
  }
}

}  // namespace

int main() {
  constexpr std::uint32_t stride = abridged ? 16 : 1;
  for (std::uint64_t b = (1u << 24) - 1; b >= 1u << 23; b -= stride) check_divisor(b);
  // The inverse of a scale takes the quick way where it is IEEE's: for every mantissa but the last.
  for (std::uint32_t b = (1u << 24) - 1; b >= 1u << 23; b -= stride) {
    const bool quick = adamw::has_quick_inverse(bits_of(static_cast<float>(b)));
    CHECK(quick == (b != 16777215), "%u", b);
    for (simt::settings().seed = 1; quick && simt::settings().seed <= 6; ++simt::settings().seed) {
      CHECK(inverse(Quick(static_cast<float>(b))).x == 1.0f / static_cast<float>(b), "1 / %u", b);
    }
    // The quotient that encoding takes: every width in one octave.
    const float width = static_cast<float>(b) * 0x1p-24f;
    for (simt::settings().seed = 1; simt::settings().seed <= 6; ++simt::settings().seed)
      CHECK(codes_over(Quick(width)).x == adamw::codes_over(width), "255 / %a", static_cast<double>(width));
  }
  CHECK(checks > 10000000 / stride, "%lld checks", checks);
  CHECK(wrong == 0, "%lld of %lld quotients are wrong", wrong, checks);
  CHECK(missed > 0, "the two known pairs are never missed: they need no exception");
  Random random(1);
  for (int i = 0; i < 1 << 20; ++i) {
    const std::uint32_t a = (1u << 23) + random.bits() % (1u << 23), b = (1u << 23) + random.bits() % (1u << 23);
    simt::settings().seed = static_cast<std::uint64_t>(i);
    CHECK(quotient(a, b) == static_cast<float>(a) / static_cast<float>(b), "%u / %u", a, b);
  }
  return finish();
}
