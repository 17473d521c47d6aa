// Owns the law that quantizing and dequantizing on a device leaves the CPU's bytes, through the public C API.
#include "both_sides.h"

using namespace simt;

namespace {

struct Shape {
  std::int64_t rows, row_length, global_offset;
};
constexpr Shape shapes[] = {
    {1, 1, 0},   {1, 7, 3},    {1, 255, 0}, {1, 256, 8}, {1, 257, 0},   {1, 1000, (std::int64_t{1} << 35) + 24},
    {5, 100, 0}, {3, 300, 17}, {9, 63, 0},  {2, 512, 0}, {1, 30000, 0}, {40, 999, 5}};

void check(const adamw_quantize_options &options, const Shape &shape, std::size_t shift, std::uint64_t seed) {
  adamw_quantize_options o = options;
  o.numel = shape.rows * shape.row_length, o.row_length = shape.row_length, o.global_offset = shape.global_offset;
  o.seed = seed, o.step = static_cast<std::int64_t>(seed);
  char what[160];
  std::snprintf(what, sizeof what, "%lld x %lld, format %d, moment %d, rounding %d, shift %zu",
                static_cast<long long>(shape.rows), static_cast<long long>(shape.row_length), o.state_format, o.moment,
                o.rounding, shift);
  adamw_state_layout layout{};
  CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(o.state_format), o.numel, o.row_length, 0, 0, &layout) ==
            ADAMW_OK,
        "%s", adamw_last_error());
  Guarded source(o.numel, 4, shift);
  Random random(seed);
  // Of all magnitudes, or alike, as the floors of second moments must know.
  if (seed % 3 == 0) {
    fill(source.at(), ADAMW_FLOAT32, o.numel, random, true);
  } else {
    fill_alike(source.at(), ADAMW_FLOAT32, o.numel, static_cast<Texture>(seed % texture_count), -20, random);
  }
  const bool has_floor = o.moment != ADAMW_MOMENT_EXP_AVG;
  std::vector<Guarded> codes, scales, floors, targets;
  for (int device : {-1, 0}) {
    codes.emplace_back(o.numel, 1, shift), scales.emplace_back(layout.absmax_count, 4, shift),
        floors.emplace_back(has_floor ? layout.floor_count : 0, 4, shift), targets.emplace_back(o.numel, 4, shift);
    o.device = device;
    on(device, what, [&] {
      return adamw_quantize(&o, source.floats(), codes.back().at(), scales.back().floats(),
                            has_floor ? floors.back().floats() : nullptr);
    });
  }
  if (!same(codes[0], codes[1], "codes", what) || !same(scales[0], scales[1], "absmax", what)) return;
  if (!same(floors[0], floors[1], "floor", what)) return;
  // Codes that no quantizer makes are valid too.
  for (std::size_t i = 0; i < codes[0].bytes(); i += 3)
    codes[0].at()[i] = codes[1].at()[i] = static_cast<std::uint8_t>(random.bits());
  for (int device : {-1, 0}) {
    const auto side = static_cast<std::size_t>(device + 1);
    o.device = device;
    on(device, what, [&] {
      return adamw_dequantize(&o, codes[side].at(), scales[side].floats(), has_floor ? floors[side].floats() : nullptr,
                              targets[side].floats());
    });
  }
  same(targets[0], targets[1], "target", what);
  check_clean(what);
}

}  // namespace

int main() {
  gpu::replace_driver(fake_driver());
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  std::uint64_t seed = 1;
  for (int moment : {ADAMW_MOMENT_EXP_AVG, ADAMW_MOMENT_EXP_AVG_SQ}) {
    for (int format : {ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8}) {
      for (int rounding : {ADAMW_ROUND_NEAREST, ADAMW_ROUND_STOCHASTIC}) {
        adamw_quantize_options o = ADAMW_QUANTIZE_OPTIONS_INIT;
        o.moment = moment, o.state_format = format, o.rounding = rounding;
        for (const Shape &shape : shapes) {
          for (std::size_t shift : {0, 1, 3}) {
            if (failures() != 0) return finish();
            check(o, shape, shift, ++seed);
          }
        }
      }
    }
  }
  return finish();
}
