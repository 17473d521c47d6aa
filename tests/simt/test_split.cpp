// Owns the law that splitting and joining master weights on a device leaves the CPU's bytes, through the public C API.
#include "both_sides.h"

using namespace simt;

namespace {

// What rounds, carries, overflows or is no number.
constexpr std::uint32_t special_weights[] = {
    0,          0x80000000, 1,          0x80000001, 0x00008000, 0x00007FFF, 0x3F808000, 0x3F807FFF, 0x3F80FFFF,
    0x3F80FF80, 0x3F80007F, 0x3F800080, 0xBF80FF7F, 0x7F7F7FFF, 0x7F7F8000, 0x7F7FFFFF, 0xFF7FFF80, 0x7F800000,
    0xFF800000, 0x7F800001, 0x7FC00000, 0xFFC12345, 0xFFFFFFFF, 0x7FFFFFFF, 0x7F7F7F7F, 0x7F7F7F80};

// What a call leaves unwritten differs, as on two sides it is.
void poison(Guarded &buffer, std::int32_t device) {
  std::memset(buffer.at(), device < 0 ? 0x5A : 0xC3, buffer.bytes());
}

void check(const adamw_split_options &options, std::size_t shift, std::uint64_t seed) {
  adamw_split_options o = options;
  o.seed = seed, o.step = static_cast<std::int64_t>(seed);
  char what[128];
  std::snprintf(what, sizeof what, "%lld elements, %d bits, rounding %d, shift %zu", static_cast<long long>(o.numel),
                o.remainder_bits, o.rounding, shift);
  const auto rest = static_cast<std::size_t>(o.remainder_bits) / 8;
  Random random(seed);
  Guarded weights(o.numel, 4, shift);
  for (std::int64_t i = 0; i < o.numel; ++i) {
    const std::uint32_t bits = random.below(3) == 0   ? special_weights[random.below(std::size(special_weights))]
                               : random.below(2) == 0 ? random.bits()
                                                      : bits_of(random.uniform());
    std::memcpy(weights.floats() + i, &bits, 4);
  }
  std::vector<Guarded> params, remainders, joined;
  for (std::int32_t device : {-1, 0}) {
    params.emplace_back(o.numel, 2, shift), remainders.emplace_back(o.numel, rest, shift);
    joined.emplace_back(o.numel, 4, shift);
    poison(params.back(), device), poison(remainders.back(), device), poison(joined.back(), device);
    o.device = device;
    on(device, what, [&] {
      return adamw_split_weights(&o, weights.floats(), reinterpret_cast<std::uint16_t *>(params.back().at()),
                                 remainders.back().at());
    });
  }
  if (!same(params[0], params[1], "param", what) || !same(remainders[0], remainders[1], "remainder", what)) return;
  // Pairs that no splitting makes are valid too.
  for (std::size_t i = 0; i < params[0].bytes(); i += 3)
    params[0].at()[i] = params[1].at()[i] = static_cast<std::uint8_t>(random.below(2) == 0 ? 0 : random.bits());
  for (std::int32_t device : {-1, 0}) {
    const auto side = static_cast<std::size_t>(device + 1);
    o.device = device;
    on(device, what, [&] {
      return adamw_join_weights(&o, reinterpret_cast<const std::uint16_t *>(params[side].at()), remainders[side].at(),
                                joined[side].floats());
    });
  }
  // Bits, but for what a NaN that a program has set is.
  CHECK(joined[0].intact() && joined[1].intact(), "%s: something beyond the weights was written", what);
  for (std::int64_t i = 0; i < o.numel; ++i) {
    const float a = joined[0].floats()[i], b = joined[1].floats()[i];
    if (bits_of(a) == bits_of(b) || (a != a && b != b)) continue;
    CHECK(false, "%s: weight %lld: CPU %08x, device %08x", what, static_cast<long long>(i), bits_of(a), bits_of(b));
    return;
  }
  check_clean(what);
}

}  // namespace

int main() {
  gpu::replace_driver(fake_driver());
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  std::uint64_t seed = 1;
  for (int bits : {8, 16}) {
    for (int rounding : {ADAMW_ROUND_NEAREST, ADAMW_ROUND_STOCHASTIC}) {
      for (std::int64_t numel : {1, 7, 255, 256, 257, 5000, 100003}) {
        for (std::int64_t offset : {std::int64_t{0}, std::int64_t{13}, (std::int64_t{1} << 35) - 24}) {
          for (std::size_t shift : {0, 1, 3}) {
            if (failures() != 0) return finish();
            adamw_split_options o = ADAMW_SPLIT_OPTIONS_INIT;
            o.remainder_bits = bits, o.rounding = rounding, o.numel = numel, o.global_offset = offset;
            check(o, shift, ++seed);
          }
        }
      }
    }
  }
  return finish();
}
