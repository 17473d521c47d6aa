// Owns THE tables: one row a dtype, one row a state format. Everything that depends on either asks here, and where code
// must differ it is chosen by dispatch_dtype() or dispatch_format(), whose switch has no default: what is added to
// adamw.h without a row, or without its code in some place, does not compile. Knows no arithmetic.
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
  __builtin_unreachable();  // check/ has let no other value through
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

// ---- formats of the state ----

// Which part of a tensor has a scale for each of its moments.
enum class Scaling { none, block, tensor };

// How the numbers of a moment are kept. A coding's class is all of its arithmetic (numerics/codes.h has them).
struct Float32Moments {};  // as they are
struct RootCodes;          // numerics/root_codes.h

// F(value of adamw_state_format, its coding, the coding's name in those of the GPU's kernels, bytes of an element in
// each moment, what has a scale)
#define ADAMW_STATE_FORMAT_TABLE(F)                              \
  F(ADAMW_STATE_FLOAT32, Float32Moments, "32", 4, Scaling::none) \
  F(ADAMW_STATE_BLOCK8, RootCodes, "8", 1, Scaling::block)       \
  F(ADAMW_STATE_TENSOR8, RootCodes, "8", 1, Scaling::tensor)

template <class Coding>
struct CodingOf {
  using Type = Coding;
};

struct FormatTraits {
  const char *kernel_name;
  int bytes;
  Scaling scaling;

  // Whether the largest numbers of a whole tensor must be known before it can be stepped.
  constexpr bool is_measured() const { return scaling == Scaling::tensor; }
  // Whether it rounds by random words, for which elements are told apart by their indices.
  constexpr bool is_random() const { return scaling != Scaling::none; }
  constexpr bool has_scales() const { return scaling != Scaling::none; }
  // The number of scales of one moment, and where among them that of a block is.
  std::int64_t scales(const BlockLayout &blocks) const {
    return scaling == Scaling::none ? 0 : scaling == Scaling::block ? blocks.count : blocks.count != 0;
  }
  std::int64_t scale_of(std::int64_t block) const { return scaling == Scaling::block ? block : 0; }
};

constexpr FormatTraits traits(adamw_state_format format) {
  switch (format) {
#define ADAMW_CASE(value, Coding, kernel, bytes, scaling) \
  case value:                                             \
    return {kernel, bytes, scaling};
    ADAMW_STATE_FORMAT_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  return {};
}

// body(CodingOf<Coding>{})
template <class Body>
ADAMW_INLINE decltype(auto) dispatch_format(adamw_state_format format, const Body &body) {
  switch (format) {
#define ADAMW_CASE(value, Coding, kernel, bytes, scaling) \
  case value:                                             \
    return body(CodingOf<Coding>{});
    ADAMW_STATE_FORMAT_TABLE(ADAMW_CASE)
#undef ADAMW_CASE
  }
  __builtin_unreachable();  // check/ has let no other value through
}

inline bool is_state_format(std::int32_t raw) {
#define ADAMW_IS(value, Coding, kernel, bytes, scaling) raw == value ||
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
