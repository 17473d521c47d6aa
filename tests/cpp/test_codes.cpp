// Owns the laws of root_codes.h by itself: roots and powers, and what adamw.h says of scales, floors, the first and the
// last code, and zeros: for every floor and every scale's mantissa. (Kernels: test_kernels.cpp.)
#include <algorithm>
#include <cmath>
#include <vector>

#include "check.h"
#include "cpu/registers_scalar.h"
// The parts come first: vector.h is written against them.
#include "codes.h"
#include "cpu/kernels.h"
#include "cpu/vector.h"

using namespace adamw;

namespace {

constexpr std::uint32_t one_bits = 0x3F800000u;
constexpr int most_noise = (1 << 14) - 1, least_noise = -(1 << 14);

float first_lane(V x) {
  float out[lanes];
  store(out, x);
  return out[0];
}
std::uint32_t first_lane(I x) {
  std::uint32_t out[lanes];
  store(out, x);
  return out[0];
}
int code_of(I rounded) {
  std::uint8_t out[lanes];
  store_codes(out, rounded);
  return out[0];
}

// Law: a root is that of adamw.h, cut to a float; its power is the number without its last s bits. So 1 and what is up
// to 2^s - 1 units above it have the root 1, and no root is larger than that of a larger number.
template <int s>
void check_roots() {
  constexpr std::uint32_t above = (1u << s) - 1, spacing = abridged ? 20011 : 997;
  const auto check = [&](std::uint32_t b) {
    const float a = float_from_bits(b), t = root<s>(a), back = first_lane(unroot<s>(V(t)));
    CHECK(t == cut_to_float(root_of(double{a}, s)), "root %d of %a is %a", s, double{a}, double{t});
    CHECK(bits_of(back) == (b & ~above), "%a came back from its root %d as %a", double{a}, s, double{back});
    CHECK(double{back} == power_of(double{t}, s), "power %d of %a", s, double{t});
  };
  for (std::uint32_t b = 0; b < one_bits; b += spacing) check(b);
  for (std::uint32_t b = 0; b < 64; ++b) check(b), check(one_bits - b), check(0x00800000u + b - 32);
  for (std::uint32_t b = one_bits; b <= one_bits + above; ++b) CHECK(root<s>(float_from_bits(b)) == 1.0f, "%08x", b);
  CHECK(first_lane(unroot<s>(V(0.0f))) == 0.0f, "the power of 0");
}

// Law: with any floor, the position of the root 1 is the middle of the last code, and that of the floor is the middle
// of code 0, or one unit of the noise above it. So with all noise the first stays below the end of its code, and the
// other in code 0 but for the greatest. Every float from the root of 0 to the largest floor. Positions increase with
// the root, so that all others lie between.
void check_every_floor() {
  const std::uint32_t first = bits_of(floor_of_zeros), last = bits_of(largest_floor), spacing = abridged ? 1009 : 1;
  std::uint32_t wrong = 0, low = ~0u, high = 0;
  for (std::uint32_t b = first; b <= last; b += spacing) {
    const float floor = float_from_bits(b), per_code = (255.0f - 0x1p-16f) / (1.0f - floor), start = 511.5f - per_code;
    wrong += std::fma(1.0f, per_code, start) != 511.5f;
    const std::uint32_t smallest = bits_of(std::fma(floor, per_code, start));
    low = std::min(low, smallest), high = std::max(high, smallest);
  }
  CHECK(wrong == 0, "%u floors with which the root 1 lies elsewhere", wrong);
  CHECK(low == bits_of(256.5f) && high == low + 1, "smallest numbers' positions: %a to %a",
        double{float_from_bits(low)}, double{float_from_bits(high)});
  CHECK(bits_of(511.5f) + most_noise < bits_of(512.0f) && bits_of(256.5f) + least_noise >= bits_of(256.0f), "noise");
  // That the scale is what was computed above.
  for (std::uint32_t b = first; b <= last; b += 1000003) {
    const float smallest = first_lane(unroot<3>(V(float_from_bits(b))));
    const Scale scale = exp_avg_sq_scale(1.0f, smallest);
    CHECK(bits_of(scale.floor) == b, "floor %a became %a", double{float_from_bits(b)}, double{scale.floor});
    CHECK(scale.per_code == (255.0f - 0x1p-16f) / (1.0f - scale.floor) && scale.start == 511.5f - scale.per_code, "%a",
          double{scale.floor});
    const V position = fma(V(1.0f), V(scale.per_code), V(scale.start));
    const I largest = encode_exp_avg_sq<false>(V(1.0f), scale, I(static_cast<std::uint32_t>(most_noise)));
    CHECK(first_lane(largest) == bits_of(first_lane(position)) + most_noise, "encoded otherwise");
    const I low = encode_exp_avg_sq<false>(V(smallest), scale, I(static_cast<std::uint32_t>(least_noise)));
    CHECK(code_of(low) == 0 && code_of(largest) == 255, "%d and %d", code_of(low), code_of(largest));
  }
  for (float smallest : {1.0f, 0.97f, 31.0f / 32.0f})
    CHECK(exp_avg_sq_scale(1.0f, smallest).floor == largest_floor, "%a",
          double{exp_avg_sq_scale(1.0f, smallest).floor});
}

// Law: the largest number's root is 1, or the float below 1 (its product with the rounded reciprocal of itself), for
// every mantissa of a scale; of scales above 2^126, whose reciprocals are subnormal, too. So its position is 255 to
// within 2^-24 of the codes' width.
void check_every_scale() {
  for (int exponent : {-126, -125, -20, 0, 1, 64, 125, 126, 127}) {
    for (std::uint32_t mantissa = 0; mantissa < 1u << 23; mantissa += abridged ? 997 : 7) {
      const float largest = float_from_bits(static_cast<std::uint32_t>(exponent + 127) << 23 | mantissa);
      const Scale scale = exp_avg_scale(largest);
      const float product = largest * scale.inverse, third = root<3>(product), second = root<2>(product);
      CHECK(third == 1.0f || third == 1.0f - 0x1p-24f, "%a: root %a", double{largest}, double{third});
      CHECK(scale.absmax == largest && std::fma(second, 127.0f, 384.5f) < 512.0f &&
                std::fma(second, 127.0f, 384.5f) >= 511.0f,
            "%a: %a", double{largest}, double{second});
    }
  }
  CHECK(exp_avg_scale(smallest_scale).absmax == 0x1p-126f, "2^-126 is no scale");
  const float below = std::nextafterf(smallest_scale, 0.0f);
  for (const Scale &scale : {exp_avg_scale(below), exp_avg_sq_scale(below, 0.0f), exp_avg_sq_scale(below, below)})
    CHECK(scale.absmax == 0.0f && scale.inverse == 0.0f, "%a is a scale", double{below});
}

// Law: zero stays zero with every noise, and what is above zero does not become zero; in blocks that have zeros, and in
// those whose other moment has some.
void check_zeros() {
  const Scale scales[] = {exp_avg_sq_scale(1.0f, 0.0f), exp_avg_sq_scale(0x1.fp127f, 0.0f),
                          exp_avg_sq_scale(0x1p-126f, 0x1p-149f), exp_avg_sq_scale(1.0f, 0.1f)};
  for (const Scale &scale : scales) {
    const bool zeros = scale.floor == floor_of_zeros;
    CHECK(scale.zeros() == zeros, "floor %a", double{scale.floor});
    for (int noise = least_noise; noise <= most_noise; ++noise) {
      const I n(static_cast<std::uint32_t>(noise));
      CHECK(code_of(encode_exp_avg_sq<true>(V(0.0f), scale, n)) == 0, "zero became another code");
      for (float zero : {0.0f, -0.0f})
        CHECK(code_of(encode_exp_avg(V(zero), scale, n)) == 128, "%a became another code", double{zero});
      if (!zeros) continue;
      for (float tiny : {0x1p-149f, 0x1p-140f, 1e-30f}) {
        const int code = code_of(encode_exp_avg_sq<true>(V(tiny * scale.absmax), scale, n));
        CHECK(tiny * scale.absmax == 0.0f ? code == 0 : code == 1, "%a became %d", double{tiny}, code);
      }
    }
  }
  CHECK(code_of(I(0u)) == 0 && RootCodes::zero.exp_avg == 128 && RootCodes::zero.exp_avg_sq == 0, "codes of zero");
}

// The figures of adamw.h: what code 0 of exp_avg and code 1 of both stand for, below what a number is taken for zero,
// and what nearest rounding turns to zero.
void check_figures() {
  const auto near = [](double x, double figure) { return std::fabs(x - figure) <= 0.05 * figure; };
  CHECK(near(exp_avg_value(128.0), 1.03) && near(exp_avg_value(1.0), 3.8e-9) && near(exp_avg_value(0.5), 2.4e-10),
        "%g, %g, %g", exp_avg_value(128.0), exp_avg_value(1.0), exp_avg_value(0.5));
  CHECK(near(exp_avg_sq_value(1.0, double{floor_of_zeros}), 5.8e-20), "%g",
        exp_avg_sq_value(1.0, double{floor_of_zeros}));
  CHECK(exp_avg_sq_scale(1.0f, 0x1.Cp-147f).zeros() && !exp_avg_sq_scale(1.0f, 0x1p-146f).zeros(), "2^-146");
  CHECK(near(0x1p-146, 1.1e-44), "%g", 0x1p-146);
  const Scale one = exp_avg_scale(1.0f);
  CHECK(code_of(encode_exp_avg(V(0.99f * 0x1.08p-32f), one, I(0u))) == 128 &&
            code_of(encode_exp_avg(V(1.01f * 0x1.08p-32f), one, I(0u))) == 129,
        "nearest rounding to zero");
}

}  // namespace

int main() {
  check_roots<2>();
  check_roots<3>();
  check_every_floor();
  check_every_scale();
  check_zeros();
  check_figures();
  return finish();
}
