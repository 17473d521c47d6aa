// Owns the law that the common path takes every code to the value that root_codes.h gives it, bit for bit, with every
// floor that it takes at all.
#define ADAMW_DEVICE_HEADER "../../../tests/simt/device.h"
#include "../../libadamw/gpu/kernels/quick_codes.h"
#include "cpp/check.h"
#include "cpp/inputs.h"

using namespace adamw;

namespace {

// Eight codes in two words, as a lane has them, at each of the places once.
template <class Body>
void for_each_code(const Body &body) {
  for (std::uint32_t code = 0; code < 256; ++code) {
    for (int j = 0; j < 8; ++j) {
      std::uint32_t words[2] = {~code, code * 0x9E3779B1u};
      words[j / 4] = (words[j / 4] & ~(0xFFu << 8 * (j % 4))) | code << 8 * (j % 4);
      body(code, words, j);
    }
  }
}

void check_floor(float floor) {
  const StoredScale scale{0.5f, floor};
  const bool takes = gpu::has_quick_line(scale);
  CHECK(takes == (floor >= 0x1.2p-16f && floor <= 1.0f), "floor %a", static_cast<double>(floor));
  if (!takes) return;
  const gpu::QuickLine line = gpu::quick_line(floor);
  for_each_code([&](std::uint32_t code, const std::uint32_t *words, int j) {
    const float quick = gpu::quick_exp_avg_sq(words, j, line), value = decode_exp_avg_sq<float>(code, code_line(floor));
    CHECK(bits_of(quick) == bits_of(value), "floor %a, code %u: %a, not %a", static_cast<double>(floor), code,
          static_cast<double>(quick), static_cast<double>(value));
  });
}

}  // namespace

int main() {
  for_each_code([](std::uint32_t code, const std::uint32_t *words, int j) {
    const float quick = gpu::quick_exp_avg(words, j), value = 0.125f * decode_exp_avg<float>(code);
    CHECK(bits_of(quick) == bits_of(value), "code %u: %a, not %a", code, static_cast<double>(quick),
          static_cast<double>(value));
  });
  for (float floor : {0.0f, -0.5f, 0x1.1ffffep-16f, 0x1.2p-16f, 0x1.200002p-16f, 0x1.fep-1f, 0x1.fffffep-1f, 1.0f,
                      0x1.000002p0f, 3e38f}) {
    check_floor(floor);
  }
  Random random(1);
  for (int i = 0; i < 2000; ++i) check_floor(static_cast<float>(random.unit()));
  // Whatever the floor is, an absmax of 0 has values that vanish in fresh state.
  CHECK(gpu::has_quick_line({0.0f, 0.0f}), "fresh state");
  const gpu::QuickLine fresh = gpu::quick_line(0.0f);
  for_each_code([&](std::uint32_t code, const std::uint32_t *words, int j) {
    CHECK(gpu::quick_exp_avg_sq(words, j, fresh) * 0.0f == 0.0f, "code %u of fresh state", code);
  });
  return finish();
}
