// Owns what an instruction set supplies: one table of functions over blocks of a row. Knows nothing of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "../backend.h"
#include "../numerics/codes.h"
#include "../numerics/sums.h"

namespace adamw {

struct Kernels {
  const char *name;
  // Steps blocks [first, last) of a row; `scales` is null unless the state is tensor-wise. Returns the skipped
  // elements.
  std::int64_t (*step)(const StepKind &, const Row &, const PerMoment<Scale> *scales, std::int64_t first,
                       std::int64_t last);
  // The same arithmetic, nothing written.
  Measures (*measure)(const StepKind &, const Row &, std::int64_t first, std::int64_t last);
  // Sum of squares of the scaled gradient.
  double (*gradient_squares)(const StepKind &, const Row &, std::int64_t first, std::int64_t last);
  // The same of segments [first, last) of flat numbers, each by itself, in double precision and unscaled (sums.h,
  // position_sums).
  void (*squares)(const void *numbers, adamw_dtype, std::int64_t numel, std::int64_t first, std::int64_t last,
                  double *out);
  // `scale` is null for block-wise state.
  void (*quantize)(const QuantizePlan &, const float *source, std::uint8_t *codes, const ScaleArrays &scales,
                   const Scale *scale, std::int64_t first, std::int64_t last);
  void (*dequantize)(const QuantizePlan &, const std::uint8_t *codes, const ScaleArrays &scales, float *target,
                     std::int64_t first, std::int64_t last);
  // Of the magnitudes that quantize() rounds.
  Extremes (*extremes)(const QuantizePlan &, const float *source, std::int64_t first, std::int64_t last);
  // Elements [first, last), of which the first is that of a block.
  void (*split)(const SplitPlan &, const float *weights, std::uint16_t *param, void *remainder, std::int64_t first,
                std::int64_t last);
  void (*join)(const SplitPlan &, const std::uint16_t *param, const void *remainder, float *weights, std::int64_t first,
               std::int64_t last);
};

// Built into this library and usable on this processor, best first.
std::vector<const Kernels *> usable_kernels();

// The names built in, best first, separated by spaces.
const char *built_kernels();

// The table in use, or null with *error set to why there is none.
const Kernels *active_kernels(const char **error);

}  // namespace adamw
