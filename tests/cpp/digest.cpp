// Owns the record of the bits: prints a hash of what one kernel table writes for every kind of step and quantization.
// usage: digest --list | NAME. ci/digests compares the lines of every kernel with tests/golden/digests.txt.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <string>

#include "cpu/kernels.h"
#include "inputs.h"

using namespace adamw;

namespace {

class Hash {  // FNV-1a, 64 bits
 public:
  void add(const void *memory, std::size_t bytes) {
    for (std::size_t i = 0; i < bytes; ++i)
      state_ = (state_ ^ static_cast<const std::uint8_t *>(memory)[i]) * 0x100000001B3u;
  }
  void add(const Bytes &bytes) { add(bytes.memory.data(), bytes.memory.size()); }
  void add(double x) {  // the sign and payload of a NaN are not promised
    if (x != x) x = -1.0;
    add(&x, sizeof x);
  }
  unsigned long long value() const { return state_; }

 private:
  std::uint64_t state_ = 0xCBF29CE484222325u;
};

constexpr struct Shape {
  int rows, row_length;
  std::int64_t global_offset;
} shapes[] = {{1, 1, 0},
              {1, 7, 3},
              {1, 31, 256},
              {1, 32, (std::int64_t{1} << 35) + 24},
              {1, 33, 0},
              {1, 255, 8},
              {1, 256, 5},
              {1, 257, 0},
              {1, 1000, (std::int64_t{1} << 40) + 13},
              {1, 4099, (std::int64_t{1} << 35) - 2048},
              {5, 100, 0},
              {3, 300, 17},
              {7, 64, 8000},
              {9, 63, 0},
              {2, 512, 1}};

// Of them, those whose blocks are filled with numbers of each texture.
constexpr int textured_shapes[] = {1, 4, 8, 11, 12};

// Floors that state may have: of fresh state, of a block with zeros, and up to that of a block of equal numbers.
constexpr float floors[] = {0.0f, 0x1.2p-16f, 0x1p-3f, 0.3f, 0.75f, 0x1.fffff8p-1f, 0x1.fffffep-1f, 1.0f};

// As api.cpp derives them for lr 1e-3, betas 0.9 and 0.999, eps 1e-8, weight decay 1e-2 and steps 1, 2, 3; in literals,
// so that no platform's pow() takes part.
Coefficients coefficients(int step, std::uint32_t key, float gradient_scale) {
  constexpr float inverse_root_bc2[] = {31.6227766f, 22.3662714f, 18.2665355f};
  constexpr float negative_step_size[] = {-0.01f, -0.00526315789f, -0.00369003690f};
  return {gradient_scale,
          0.9f,
          0.999f,
          0.1f,
          0.001f,
          0.0316227766f,
          inverse_root_bc2[step - 1],
          1e-8f,
          0.99999f,
          negative_step_size[step - 1],
          key * 0x9E3779B9u + static_cast<std::uint32_t>(step),
          key * 0x85EBCA6Bu + static_cast<std::uint32_t>(step),
          0.0};
}

// The buffers of one tensor; `shift` elements before the first keep it off a vector's alignment.
struct Tensor {
  Bytes param, remainder, grad, moments[3], scales[3], floors[2];

  Tensor(const StepKind &kind, const BlockLayout &blocks, std::size_t shift) {
    const FormatTraits format = traits(kind.state_format);
    const auto state = static_cast<std::size_t>(format.bytes);
    param = Bytes(blocks.numel, size_of(kind.param_dtype), shift);
    const auto rest = static_cast<std::size_t>(kind.remainder_bytes());
    if (rest != 0) remainder = Bytes(blocks.numel, rest, shift + 3);
    grad = Bytes(blocks.numel, size_of(kind.grad_dtype), shift + 1);
    for (Bytes &moment : moments) moment = Bytes(blocks.numel, state, shift + 2);
    const std::int64_t count = format.scaling == Scaling::tensor ? 1 : blocks.count;
    for (Bytes &scale : scales) scale = Bytes(count, 4, shift);
    for (Bytes &floor : floors) floor = Bytes(count, 4, shift);
  }
  // Of any weights.
  void fill_params(const StepKind &kind, std::int64_t count, Random &random) {
    fill(param.at(), kind.param_dtype, count, random);
    for (std::uint8_t &byte : remainder.memory) byte = static_cast<std::uint8_t>(random.bits());
  }
  // State of 8 bits that some step may have left.
  void fill_state(std::int64_t count, Random &random) {
    for (Bytes &moment : moments)
      for (std::uint8_t &code : moment.memory) code = static_cast<std::uint8_t>(random.bits());
    for (std::int64_t i = 0; i < count; ++i) {
      for (Bytes &scale : scales) scale.floats()[i] = std::ldexp(1.0f + static_cast<float>(random.unit()), -20);
      for (Bytes &floor : floors) floor.floats()[i] = ::floors[random.below(8)];
    }
  }
  adamw_tensor row(const Shape &shape, int step) {
    return {param.at(),
            grad.at(),
            moments[0].at(),
            moments[1].at(),
            moments[2].at(),
            scales[0].floats(),
            scales[1].floats(),
            scales[2].floats(),
            floors[0].floats(),
            floors[1].floats(),
            remainder.at(),
            nullptr,
            shape.rows * std::int64_t{shape.row_length},
            shape.row_length,
            step,
            shape.global_offset,
            0,
            0,
            nullptr};
  }
};

// The passes of cpu/backend.cpp on one row, in two runs of blocks.
void step_tensor(Hash &hash, const Kernels &kernels, const StepKind &kind, const Row &row) {
  const std::int64_t last = row.blocks.count, middle = last / 3;
  hash.add(kernels.gradient_squares(kind, row, 0, last));
  const Measures m = kernels.measure(kind, row, 0, last);
  for (double x : {m.direction_squares, m.param_squares, double{m.found.exp_avg.largest},
                   double{m.found.exp_avg_sq.largest}, double{m.found.exp_avg_sq.smallest},
                   double{m.found.max_exp_avg_sq.largest}, double{m.found.max_exp_avg_sq.smallest}})
    hash.add(x);
  const PerMoment<Scale> scales = RootCodes::scales(kind.amsgrad, m.found);
  const bool tensorwise = kind.state_format == ADAMW_STATE_TENSOR8;
  const PerMoment<Scale> *given = tensorwise ? &scales : nullptr;
  std::int64_t skipped = kernels.step(kind, row, given, 0, middle);
  skipped += kernels.step(kind, row, given, middle, last);
  hash.add(static_cast<double>(skipped));
  if (tensorwise) {
    for_each_moment(
        kind.amsgrad, [](const ScaleArrays &to, const Scale &scale) { to.put(0, scale); }, scales_of(row.tensor),
        scales);
  }
}

// One step of a tensor whose gradient is filled.
void digest_step(Hash &hash, const Kernels &kernels, const StepKind &kind, const Shape &shape,
                 const BlockLayout &blocks, Tensor &tensor, int step, std::size_t key) {
  const float gradient_scale = key % 3 == 0 ? 1.0f : key % 3 == 1 ? -0.37f : 0.0009765625f;
  Row row{};
  row.tensor = tensor.row(shape, step);
  row.blocks = blocks;
  row.coefficients = coefficients(step, static_cast<std::uint32_t>(key), gradient_scale);
  step_tensor(hash, kernels, kind, row);
  hash.add(tensor.param);
  hash.add(tensor.remainder);
  for (int i = 0; i < (kind.amsgrad ? 3 : 2); ++i) {
    hash.add(tensor.moments[i]);
    hash.add(tensor.scales[i]);
    if (i > 0) hash.add(tensor.floors[i - 1]);
  }
}

BlockLayout blocks_of(const Shape &shape) {
  return block_layout(shape.rows * std::int64_t{shape.row_length}, shape.row_length);
}

unsigned long long digest_steps(const Kernels &kernels, const StepKind &kind) {
  Hash hash;
  Random random(1);
  std::size_t shift = 0;
  for (const Shape &shape : shapes) {
    const BlockLayout blocks = blocks_of(shape);
    Tensor tensor(kind, blocks, shift);
    tensor.fill_params(kind, blocks.numel, random);
    for (int step = 1; step <= 3; ++step) {
      fill(tensor.grad.at(), kind.grad_dtype, blocks.numel, random, traits(kind.state_format).has_scales());
      digest_step(hash, kernels, kind, shape, blocks, tensor, step, shift);
    }
    ++shift;
  }
  if (!traits(kind.state_format).has_scales()) return hash.value();
  // Tensors whose numbers are alike, from fresh state and from any.
  for (int texture = 0; texture < texture_count; ++texture)
    for (const int number : textured_shapes) {
      const Shape &shape = shapes[number];
      const BlockLayout blocks = blocks_of(shape);
      Tensor tensor(kind, blocks, shift % 5);
      tensor.fill_params(kind, blocks.numel, random);
      for (int step = 1; step <= 3; ++step) {
        if (step == 2 && shift % 2 == 0) {
          tensor.fill_state(kind.state_format == ADAMW_STATE_TENSOR8 ? 1 : blocks.count, random);
        }
        // Smaller from step to step, so that the maximum stays where it was.
        fill_alike(tensor.grad.at(), kind.grad_dtype, blocks.numel, static_cast<Texture>(texture), 1 - 3 * step,
                   random);
        digest_step(hash, kernels, kind, shape, blocks, tensor, step, shift);
      }
      ++shift;
    }
  return hash.value();
}

// To codes and back, and from every code.
void digest_quantized(Hash &hash, const Kernels &kernels, const QuantizePlan &plan, Bytes &source, std::size_t shift,
                      Random &random) {
  const bool blockwise = plan.format == ADAMW_STATE_BLOCK8;
  const std::int64_t last = plan.blocks.count, middle = last / 2, count = blockwise ? last : 1;
  Bytes codes(plan.blocks.numel, 1, shift), target(plan.blocks.numel, 4, shift + 1);
  Bytes absmax(count, 4, shift), floor(count, 4, shift);
  const bool has_floor = plan.moment != ADAMW_MOMENT_EXP_AVG;
  const ScaleArrays arrays{{absmax.floats(), has_floor ? floor.floats() : nullptr}};
  const Extremes found = kernels.extremes(plan, source.floats(), 0, last);
  hash.add(double{found.largest});
  hash.add(double{found.smallest});
  const Scale scale = RootCodes::scale_one(!has_floor, found), *given = blockwise ? nullptr : &scale;
  auto *bytes = static_cast<std::uint8_t *>(codes.at());
  if (!blockwise) arrays.put(0, scale);
  kernels.quantize(plan, source.floats(), bytes, arrays, given, 0, middle);
  kernels.quantize(plan, source.floats(), bytes, arrays, given, middle, last);
  kernels.dequantize(plan, bytes, arrays, target.floats(), 0, middle);
  kernels.dequantize(plan, bytes, arrays, target.floats(), middle, last);
  for (const Bytes *written : {&codes, &absmax, &floor, &target}) hash.add(*written);
  for (std::uint8_t &code : codes.memory) code = static_cast<std::uint8_t>(random.bits());
  for (std::int64_t i = 0; i < count; ++i) floor.floats()[i] = floors[random.below(8)];
  kernels.dequantize(plan, bytes, arrays, target.floats(), 0, last);
  hash.add(target);
}

unsigned long long digest_quantizer(const Kernels &kernels, adamw_moment moment, bool blockwise, bool stochastic) {
  Hash hash;
  Random random(2);
  std::size_t shift = 0;
  const auto digest = [&](const Shape &shape, const auto &put_source) {
    QuantizePlan plan{};
    plan.moment = moment;
    plan.format = blockwise ? ADAMW_STATE_BLOCK8 : ADAMW_STATE_TENSOR8;
    plan.stochastic = stochastic;
    plan.blocks = blocks_of(shape);
    plan.key = 77;
    plan.global_offset = shape.global_offset;
    Bytes source(plan.blocks.numel, 4, shift % 15);
    put_source(source.at(), plan.blocks.numel);
    digest_quantized(hash, kernels, plan, source, shift % 15, random);
    ++shift;
  };
  for (const Shape &shape : shapes)
    digest(shape, [&](void *at, std::int64_t n) { fill(at, ADAMW_FLOAT32, n, random, true); });
  for (int texture = 0; texture < texture_count; ++texture)
    for (const int number : textured_shapes)
      for (const int exponent : {-126, -3, 127}) {  // the least and the largest scales, and one between
        digest(shapes[number], [&](void *at, std::int64_t n) {
          fill_alike(at, ADAMW_FLOAT32, n, static_cast<Texture>(texture), exponent, random);
          if (moment == ADAMW_MOMENT_EXP_AVG) return;
          for (std::int64_t i = 0; i < n; ++i) static_cast<float *>(at)[i] = std::fabs(static_cast<float *>(at)[i]);
        });
      }
  return hash.value();
}

// Master weights of every exponent to their two parts, and any two parts to weights.
unsigned long long digest_split(const Kernels &kernels, int bits, bool stochastic) {
  Hash hash;
  Random random(3);
  std::size_t shift = 0;
  for (const Shape &shape : shapes) {
    const std::int64_t n = shape.rows * std::int64_t{shape.row_length}, middle = n / 2 / block_size * block_size;
    const SplitPlan plan{bits, stochastic, n, shape.global_offset, 77, 1, -1, nullptr};
    Bytes weights(n, 4, shift), param(n, 2, shift + 1), remainder(n, static_cast<std::size_t>(bits / 8), shift + 2);
    fill(weights.at(), ADAMW_FLOAT32, n, random, true);
    for (std::int64_t i = 0; i < n; i += 3) weights.floats()[i] = random.any_float();
    auto *halves = static_cast<std::uint16_t *>(param.at());
    kernels.split(plan, weights.floats(), halves, remainder.at(), 0, middle);
    kernels.split(plan, weights.floats(), halves, remainder.at(), middle, n);
    for (const Bytes *written : {&param, &remainder}) hash.add(*written);
    for (std::uint8_t &byte : remainder.memory) byte = static_cast<std::uint8_t>(random.bits());
    kernels.join(plan, halves, remainder.at(), weights.floats(), 0, middle);
    kernels.join(plan, halves, remainder.at(), weights.floats(), middle, n);
    for (std::int64_t i = 0; i < n; ++i) hash.add(double{weights.floats()[i]});
    ++shift;
  }
  return hash.value();
}

// A line for each case whose name begins so.
class Printer {
 public:
  Printer(const Kernels &kernels, const std::string &beginning) : kernels_(kernels), beginning_(beginning) {}
  template <class Digest>
  void print(const std::string &name, const Digest &digest) const {
    if (name.compare(0, beginning_.size(), beginning_) == 0) std::printf("%s %016llx\n", name.c_str(), digest());
  }
  void print_steps(const std::string &param, const StepKind &kind, const char *mode) const {
    const std::string name = "param_" + param + "-grad_" + dtypes[kind.grad_dtype] + "-state_" +
                             formats[kind.state_format] + (kind.amsgrad ? "-amsgrad" : "") + mode;
    print(name, [&] { return digest_steps(kernels_, kind); });
  }
  static constexpr const char *dtypes[] = {"float32", "bfloat16", "float16"},
                              *formats[] = {"float32", "block8", "tensor8", "bfloat16"};

 private:
  const Kernels &kernels_;
  const std::string beginning_;
};

void print_digests(const Kernels &kernels, const std::string &beginning) {
  const Printer printer(kernels, beginning);
  constexpr const char *modes[] = {"", "-stochastic", "-skip_zeros"};
  for (int p = 0; p < 3; ++p)
    for (int g = 0; g < 3; ++g)
      for (int f = 0; f < 4; ++f)
        for (int amsgrad = 0; amsgrad < 2; ++amsgrad)
          for (int mode = 0; mode < 3; ++mode) {
            const StepKind kind = {static_cast<adamw_dtype>(p),
                                   static_cast<adamw_dtype>(g),
                                   static_cast<adamw_state_format>(f),
                                   0,
                                   amsgrad == 1,
                                   mode == 1,
                                   mode == 2};
            printer.print_steps(Printer::dtypes[p], kind, modes[mode]);
          }
  for (int bits : {8, 16})
    for (adamw_dtype grad : {ADAMW_FLOAT32, ADAMW_BFLOAT16})
      for (int f = 0; f < 4; ++f)
        for (bool amsgrad : {false, true})
          for (bool skip_zeros : {false, true}) {
            const auto format = static_cast<adamw_state_format>(f);
            const StepKind kind = {ADAMW_BFLOAT16, grad, format, bits, amsgrad, false, skip_zeros};
            printer.print_steps("bfloat16-remainder_" + std::to_string(bits), kind, skip_zeros ? modes[2] : "");
          }
  for (int moment = 0; moment < 2; ++moment)
    for (int blockwise = 0; blockwise < 2; ++blockwise)
      for (int stochastic = 0; stochastic < 2; ++stochastic) {
        const std::string name = std::string("quantize_") +
                                 (moment == ADAMW_MOMENT_EXP_AVG ? "exp_avg" : "exp_avg_sq") +
                                 (blockwise ? "-block" : "-tensor") + (stochastic ? "-stochastic" : "-nearest");
        printer.print(name, [&] {
          return digest_quantizer(kernels, static_cast<adamw_moment>(moment), blockwise == 1, stochastic == 1);
        });
      }
  for (int bits : {8, 16})
    for (bool stochastic : {false, true})
      printer.print("split_" + std::to_string(bits) + (stochastic ? "-stochastic" : "-nearest"),
                    [&] { return digest_split(kernels, bits, stochastic); });
}

}  // namespace

int main(int argc, char **argv) {
  const char *wanted = argc == 2 || argc == 3 ? argv[1] : "";
  for (const Kernels *kernels : usable_kernels()) {
    if (std::strcmp(wanted, "--list") == 0) {
      std::puts(kernels->name);
    } else if (std::strcmp(wanted, kernels->name) == 0) {
      print_digests(*kernels, argc == 3 ? argv[2] : "");
      return 0;
    }
  }
  if (std::strcmp(wanted, "--list") == 0) return 0;
  std::fprintf(stderr,
               "usage: digest --list | NAME (a kernel that this processor has) [BEGINNING of the cases' names]\n");
  return 2;
}
