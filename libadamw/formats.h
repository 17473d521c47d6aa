// Owns THE tables: one row a dtype, one row a width of remainders, one row a state format. Everything that depends on
// either asks here, and where code must differ it is chosen by dispatch_dtype() or dispatch_format(), whose switch has
// no default: what is added to adamw.h without a row, or without its code in some place, does not compile. Knows no
// arithmetic.
#pragma once

#include <cstdint>

#include "../include/adamw.h"
#include "numerics/layout.h"
#include "numerics/moments.h"

namespace adamw {

// ---- dtypes of parameters and gradients ----

// F(value of adamw_dtype, its name in those of the GPU's kernels, bytes of an element)
#define ADAMW_DTYPE_TABLE(F)   \
  F(ADAMW_FLOAT32, "f32", 4)   \
  F(ADAMW_BFLOAT16, "bf16", 2) \
  F(ADAMW_FLOAT16, "f16", 2)

// A dtype as a type, which functions are overloaded for.
template <adamw_dtype dtype>
struct Dtype {
  static constexpr adamw_dtype value = dtype;
};

struct DtypeTraits {
  const char *kernel_name;
  int bytes;
};

// body(Dtype<dtype>{})
template <class Body>
ADAMW_INLINE decltype(auto) dispatch_dtype(adamw_dtype dtype, const Body &body) {
  switch (dtype) {
#define ADAMW_CASE(value, name, bytes) \
  case value:                          \
    return body(Dtype<value>{});
    ADAMW_DTYPE_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  ADAMW_UNREACHABLE();  // check/ has let no other value through
}

constexpr DtypeTraits traits(adamw_dtype dtype) {
  switch (dtype) {
#define ADAMW_CASE(value, name, bytes) \
  case value:                          \
    return {name, bytes};
    ADAMW_DTYPE_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  return {};
}

// Whether a number that a caller passes is a value of the enum.
inline bool is_dtype(std::int32_t raw) {
#define ADAMW_IS(value, name, bytes) raw == value ||
  return ADAMW_DTYPE_TABLE(ADAMW_IS) false;
#undef ADAMW_IS
}

// ---- remainders of parameters (numerics/master_weights.h) ----

// F(bits, the type of one in memory)
#define ADAMW_REMAINDER_TABLE(F) \
  F(8, std::int8_t)              \
  F(16, std::int16_t)

// A width of remainders as a type.
template <int remainder_bits>
struct Remainder;
#define ADAMW_REMAINDER(bits, T)       \
  template <>                          \
  struct Remainder<bits> {             \
    static constexpr int value = bits; \
    using Type = T;                    \
  };
ADAMW_REMAINDER_TABLE(ADAMW_REMAINDER)
#undef ADAMW_REMAINDER

// body(Remainder<bits>{}), if there are any.
template <class Body>
ADAMW_INLINE void dispatch_remainder(int remainder_bits, const Body &body) {
#define ADAMW_CASE(bits, T) \
  if (remainder_bits == bits) return body(Remainder<bits>{});
  ADAMW_REMAINDER_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
}

// Whether a number that a caller passes is a width, or 0.
inline bool is_remainder(std::int32_t raw) {
#define ADAMW_IS(bits, T) raw == bits ||
  return ADAMW_REMAINDER_TABLE(ADAMW_IS) raw == 0;
#undef ADAMW_IS
}

// ---- formats of the state ----

// Which part of a tensor has a scale for each of its moments.
enum class Scaling { none, block, tensor };

// How the numbers of a moment are kept. A coding's class is all of its arithmetic.
template <adamw_dtype dtype>
struct Numbers {};  // as numbers of a dtype
struct RootCodes;   // numerics/root_codes.h

// F(value of adamw_state_format, its coding, the coding's name in those of the GPU's kernels, bytes of an element in
// each moment, what has a scale, whether it rounds by random words)
#define ADAMW_STATE_FORMAT_TABLE(F)                                             \
  F(ADAMW_STATE_FLOAT32, Numbers<ADAMW_FLOAT32>, "32", 4, Scaling::none, false) \
  F(ADAMW_STATE_BLOCK8, RootCodes, "8", 1, Scaling::block, true)                \
  F(ADAMW_STATE_TENSOR8, RootCodes, "8", 1, Scaling::tensor, true)              \
  F(ADAMW_STATE_BFLOAT16, Numbers<ADAMW_BFLOAT16>, "16", 2, Scaling::none, true)

template <class Coding>
struct CodingOf {
  using Type = Coding;
};

struct FormatTraits {
  const char *kernel_name;
  int bytes;
  Scaling scaling;
  bool is_random;  // it rounds by random words, for which elements are told apart by their indices

  // Whether the largest numbers of a whole tensor must be known before it can be stepped.
  constexpr bool is_measured() const { return scaling == Scaling::tensor; }
  constexpr bool has_scales() const { return scaling != Scaling::none; }
  // The number of scales of one moment, and where among them that of a block is.
  std::int64_t scales(const BlockLayout &blocks) const {
    return scaling == Scaling::none ? 0 : scaling == Scaling::block ? blocks.count : blocks.count != 0;
  }
  std::int64_t scale_of(std::int64_t block) const { return scaling == Scaling::block ? block : 0; }
};

constexpr FormatTraits traits(adamw_state_format format) {
  switch (format) {
#define ADAMW_CASE(value, Coding, kernel, bytes, scaling, is_random) \
  case value:                                                        \
    return {kernel, bytes, scaling, is_random};
    ADAMW_STATE_FORMAT_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  return {};
}

// body(CodingOf<Coding>{})
template <class Body>
ADAMW_INLINE decltype(auto) dispatch_format(adamw_state_format format, const Body &body) {
  switch (format) {
#define ADAMW_CASE(value, Coding, kernel, bytes, scaling, is_random) \
  case value:                                                        \
    return body(CodingOf<Coding>{});
    ADAMW_STATE_FORMAT_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  ADAMW_UNREACHABLE();  // check/ has let no other value through
}

// The same of a format that has scales.
template <class Body>
ADAMW_INLINE decltype(auto) dispatch_scaled_format(adamw_state_format format, const Body &body) {
  switch (format) {
#define ADAMW_CASE(value, Coding, kernel, bytes, scaling, is_random)         \
  case value:                                                                \
    if constexpr (scaling != Scaling::none) return body(CodingOf<Coding>{}); \
    break;
    ADAMW_STATE_FORMAT_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  ADAMW_UNREACHABLE();  // whoever asks has seen to it that it has some
}

inline bool is_state_format(std::int32_t raw) {
#define ADAMW_IS(value, Coding, kernel, bytes, scaling, is_random) raw == value ||
  return ADAMW_STATE_FORMAT_TABLE(ADAMW_IS) false;
#undef ADAMW_IS
}

// ---- the moments of a tensor ----

constexpr PerMoment<const char *> moment_names{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
constexpr PerMoment<void *adamw_tensor::*> moment_fields{&adamw_tensor::exp_avg, &adamw_tensor::exp_avg_sq,
                                                         &adamw_tensor::max_exp_avg_sq};
constexpr PerMoment<PerScale<const char *>> scale_names{{"exp_avg_absmax", nullptr},
                                                        {"exp_avg_sq_absmax", "exp_avg_sq_floor"},
                                                        {"max_exp_avg_sq_absmax", "max_exp_avg_sq_floor"}};
using ScaleField = float *adamw_tensor::*;
constexpr PerMoment<PerScale<ScaleField>> scale_fields{
    {&adamw_tensor::exp_avg_absmax, nullptr},
    {&adamw_tensor::exp_avg_sq_absmax, &adamw_tensor::exp_avg_sq_floor},
    {&adamw_tensor::max_exp_avg_sq_absmax, &adamw_tensor::max_exp_avg_sq_floor}};

// Calls body(name, field) for each array of scales.
template <class Body>
ADAMW_INLINE void for_each_scale(bool amsgrad, const Body &body) {
  for_each_moment(
      amsgrad,
      [&](const PerScale<const char *> &name, const PerScale<ScaleField> &field) {
        body(name.absmax, field.absmax);
        if (field.floor != nullptr) body(name.floor, field.floor);
      },
      scale_names, scale_fields);
}

inline PerMoment<void *> moments_of(const adamw_tensor &t) { return {t.exp_avg, t.exp_avg_sq, t.max_exp_avg_sq}; }
inline PerMoment<ScaleArrays> scales_of(const adamw_tensor &t) {
  return {{{t.exp_avg_absmax, nullptr}},
          {{t.exp_avg_sq_absmax, t.exp_avg_sq_floor}},
          {{t.max_exp_avg_sq_absmax, t.max_exp_avg_sq_floor}}};
}

}  // namespace adamw
