// Owns the laws of the arithmetic below the update: fma, binary16 and bfloat16 against definitions in exact double
// arithmetic; and which kernels there are.
#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "cpu/registers_scalar.h"
// The parts come first: vector.h is written against them.
#include "cpu/kernels.h"
#include "cpu/vector.h"
#include "inputs.h"

using namespace adamw;

namespace {

// A 16-bit format by its definition: (-1)^s * 2^(e - bias) * 1.m, denormals 2^(1 - bias) * 0.m.
struct Format {
  adamw_dtype dtype;
  const char *name;
  int mantissa, bias;

  int infinity() const { return (2 * bias + 1) << mantissa; }
  // Of a finite magnitude; that of infinity's bits is the power of two that rounding takes it for.
  double value(int half) const {
    const int e = half >> mantissa, m = half & ((1 << mantissa) - 1);
    return e == 0 ? std::ldexp(m, 1 - bias - mantissa) : std::ldexp((1 << mantissa) + m, e - bias - mantissa);
  }
  // Nearest to |x|, ties to even.
  int nearest(double a) const {
    int lo = 0, hi = infinity();
    if (a >= value(hi)) return hi;
    while (hi - lo > 1) (value((lo + hi) / 2) <= a ? lo : hi) = (lo + hi) / 2;
    const double middle = (value(lo) + value(hi)) / 2;
    return a < middle || (a == middle && lo % 2 == 0) ? lo : hi;
  }
} const formats[] = {{ADAMW_BFLOAT16, "bfloat16", 7, 127}, {ADAMW_FLOAT16, "float16", 10, 15}};

float to_float_scalar(const Format &f, std::uint32_t half) {
  float out[lanes];
  store(out, f.dtype == ADAMW_BFLOAT16 ? bfloat16_to_float<V>(I(half)) : float16_to_float(I(half)));
  return out[0];
}

// `count` floats, a multiple of the lanes, to halves; words: null for nearest.
std::vector<std::uint16_t> to_halves(const Format &f, const std::vector<float> &x,
                                     const std::uint32_t *words = nullptr) {
  std::vector<std::uint16_t> out(x.size());
  for (std::size_t i = 0; i < x.size(); i += lanes) {
    const V v = load(x.data() + i);
    if (words == nullptr) {
      store(out.data() + i, f.dtype == ADAMW_BFLOAT16 ? float_to_bfloat16(v) : float_to_float16(v));
    } else {
      const I w = load(words + i);
      store(out.data() + i,
            f.dtype == ADAMW_BFLOAT16 ? float_to_bfloat16_stochastic(v, w) : float_to_float16_stochastic(v, w));
    }
  }
  return out;
}

// Law: all 65536 halves become the float of the same value, and come back as themselves; a NaN stays one.
void check_halves(const Format &f) {
  for (std::uint32_t half = 0; half < 65536; ++half) {
    const int magnitude = static_cast<int>(half & 0x7FFF);
    const float x = to_float_scalar(f, half);
    const std::uint16_t back = to_halves(f, std::vector<float>(lanes, x))[0];
    if (magnitude > f.infinity()) {
      CHECK(x != x && (back & 0x7FFF) > f.infinity(), "%s: NaN %04x became %a and %04x", f.name, half, double{x}, back);
      continue;
    }
    const double expected = magnitude == f.infinity() ? HUGE_VAL : f.value(magnitude);
    CHECK(std::fabs(x) == expected && std::signbit(x) == (half >> 15 != 0), "%s: %04x became %a", f.name, half,
          double{x});
    CHECK(back == half, "%s: %04x came back as %04x", f.name, half, back);
  }
}

// Law: a float becomes the nearest half, ties to even, overflow to infinity: three floats beside every boundary and
// value.
void check_rounding(const Format &f) {
  std::vector<float> x;
  for (int half = 0; half < f.infinity(); ++half) {
    for (double centre : {f.value(half), (f.value(half) + f.value(half + 1)) / 2}) {
      const std::uint32_t b = bits_of(static_cast<float>(centre));  // exact: both have few bits
      for (std::uint32_t d = 0; d < 7; ++d) {
        if (b + d >= 3) x.push_back(float_from_bits((b + d - 3) | (static_cast<std::uint32_t>(half & 1) << 31)));
      }
    }
  }
  Random random(5);
  for (int i = 0; i < 100000; ++i) x.push_back(random.finite_float());
  for (float special : {INFINITY, -INFINITY, 3.4e38f, -3.4e38f}) x.push_back(special);
  x.resize((x.size() + lanes - 1) / lanes * lanes);
  const auto halves = to_halves(f, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const int expected = f.nearest(std::fabs(double{x[i]})) | (std::signbit(x[i]) ? 0x8000 : 0);
    CHECK(halves[i] == expected, "%s: %a became %04x, not %04x", f.name, double{x[i]}, halves[i], expected);
  }
}

// Law: stochastic rounding takes the half below or above, so often that the mean is the number: exactly over evenly
// spaced words (2^16 of them; where float16 is denormal, to the 2^-22 of a rounding number and the 2^-11 of a sum in
// units below 2^11).
void check_stochastic(const Format &f) {
  constexpr std::size_t count = 1 << 16;
  std::vector<std::uint32_t> words(count);
  for (std::size_t i = 0; i < count; ++i) words[i] = static_cast<std::uint32_t>(i << 16);
  Random random(6);
  for (int trial = 0; trial < 200; ++trial) {
    const int half = trial < 4 ? trial : random.below(f.infinity() - 1);
    const double lo = f.value(half), hi = f.value(half + 1);
    const float x = trial % 10 == 9 ? static_cast<float>(lo) : static_cast<float>(lo + (hi - lo) * random.unit());
    const double fraction = (x - lo) / (hi - lo);
    const bool denormal = f.dtype == ADAMW_FLOAT16 && half < 1 << f.mantissa;
    const float sign = trial % 2 == 0 ? 1.0f : -1.0f;
    int upper = 0;
    for (std::uint16_t result : to_halves(f, std::vector<float>(count, x * sign), words.data())) {
      const int magnitude = result & 0x7FFF;
      CHECK(magnitude == half || magnitude == half + 1, "%s: %a became %04x", f.name, double{x}, result);
      CHECK((result >> 15 != 0) == (sign < 0), "%s: the sign of %a", f.name, double{x * sign});
      upper += magnitude == half + 1;
    }
    // Both formats see as many bits below the kept ones as a float has there, if that is normal.
    const double tolerance = denormal ? 0x1p-11 : f.dtype == ADAMW_BFLOAT16 ? 0x1p-16 : 0x1p-13;
    CHECK(std::fabs(upper / double{count} - fraction) <= tolerance, "%s: %a went up %d times of 65536, fraction %f",
          f.name, double{x}, upper, fraction);
    if (fraction == 0.0) CHECK(upper == 0, "%s: %a is exact but moved", f.name, double{x});
  }
}

// Law: each kernel stores a parameter as the nearest half to p * decay: every half, and products that tie and that are
// denormal.
void check_kernel(const Kernels &kernels, const Format &f) {
  constexpr std::int64_t n = 65536;
  std::vector<std::uint16_t> start(n), p(n);
  for (std::size_t i = 0; i < start.size(); ++i) start[i] = static_cast<std::uint16_t>(i);
  std::vector<float> grad(n, 0.0f), m(n, 0.0f), v(n, 0.0f);
  const float tie = f.dtype == ADAMW_BFLOAT16 ? 1.0f + 0x1p-8f : 1.0f + 0x1p-11f;
  for (float decay : {1.0f, tie, 0.5f, 0.75f, 0.99999f, 0x1p-9f, 0x1.8p-12f}) {
    p = start;
    const StepKind kind = {f.dtype, ADAMW_FLOAT32, ADAMW_STATE_FLOAT32, 0, false, false, false};
    Row row{};
    row.tensor.param = p.data(), row.tensor.grad = grad.data();
    row.tensor.exp_avg = m.data(), row.tensor.exp_avg_sq = v.data();
    row.tensor.numel = row.tensor.row_length = n, row.tensor.step = 1;
    row.blocks = block_layout(n, n);
    row.coefficients = {1.0f, 0.9f, 0.999f, 0.1f, 0.001f, 0.0316f, 31.6f, 1e-8f, decay, -0.01f, 1, 2, 0.0};
    kernels.step(kind, row, nullptr, 0, row.blocks.count);
    for (std::size_t i = 0; i < p.size(); ++i) {
      const int magnitude = start[i] & 0x7FFF, got = p[i] & 0x7FFF;
      if (magnitude > f.infinity()) {
        CHECK(got > f.infinity(), "%s %s: NaN %04zx became %04x", kernels.name, f.name, i, p[i]);
        continue;
      }
      const float x = static_cast<float>(f.value(magnitude)) * decay;
      const int expected = magnitude == f.infinity() ? magnitude : f.nearest(x);
      CHECK(got == expected, "%s %s: %04zx * %a became %04x, not %04x", kernels.name, f.name, i, double{decay}, p[i],
            expected);
    }
  }
}

// Law: the portable fma is std::fma, for every kind of number: random bits, near cancellation, denormal results, edges.
void check_fma() {
  const auto check = [](float a, float b, float c) {
    const float got = register_fma(a, b, c), expected = std::fma(a, b, c);
    CHECK(bits_of(got) == bits_of(expected) || (got != got && expected != expected), "fma(%a, %a, %a) = %a, not %a",
          double{a}, double{b}, double{c}, double{got}, double{expected});
  };
  Random random(7);
  for (int i = 0; i < 1 << 20; ++i) {
    const float a = random.any_float(), b = random.any_float(), c = random.any_float();
    check(a, b, c);
    const float p = random.uniform(), q = random.uniform(), product = p * q;
    check(p, q, -product);  // only the rounding error is left
    check(p, q, -float_from_bits(bits_of(product) + static_cast<std::uint32_t>(random.below(9)) - 4));
    check(p, q, std::ldexp(random.uniform(), -random.below(60)));
    check(p * 0x1p-70f, q * 0x1p-70f, random.uniform() * 0x1p-130f);  // denormal results
    check(p * 0x1p100f, q * 0x1p27f, random.uniform() * 0x1p127f);    // about to overflow
    // Halfway between two floats up to something far below: where rounding twice goes wrong.
    check(1.0f + 0x1p-12f * static_cast<float>(random.below(4096)), 1.0f + 0x1p-12f,
          std::ldexp(random.uniform(), -40 - random.below(80)));
  }
  const float edges[] = {0.0f,    1.0f,     0x1p-149f, 0x1p-126f, 0x1.fffffcp-127f, 0x1.fffffep127f,
                         0x1p64f, 0x1p-75f, INFINITY,  NAN,       1.0f + 0x1p-23f};
  for (float a : edges)
    for (float b : edges)
      for (float c : edges)
        for (int signs = 0; signs < 4; ++signs) check((signs & 1) != 0 ? -a : a, b, (signs & 2) != 0 ? -c : c);
}

// Law: the names built in are those of the table, best first, and every kernel that can be used is among them.
void check_names() {
#if defined(__x86_64__)
  const std::string must = "avx512 avx2 scalar";
#elif defined(__aarch64__)
  const std::string must = "neon scalar";
#else
  const std::string must = "scalar";
#endif
  CHECK(built_kernels() == must, "'%s'", built_kernels());
  const auto list = usable_kernels();
  CHECK(!list.empty() && std::strcmp(list.back()->name, "scalar") == 0, "%zu kernels", list.size());
  std::size_t from = 0;
  for (const Kernels *kernels : list) {
    from = must.find(kernels->name, from);
    CHECK(from != std::string::npos, "%s is not built in, or out of order", kernels->name);
  }
}

}  // namespace

int main() {
  const auto list = usable_kernels();
  check_names();
  check_fma();
  for (const Format &f : formats) {
    check_halves(f);
    check_rounding(f);
    check_stochastic(f);
    for (const Kernels *kernels : list) check_kernel(*kernels, f);
  }
  return finish();
}
