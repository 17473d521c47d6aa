// Owns what is derived from the hyperparameters and the step number, once a tensor and step, in double precision: the
// same code on the host and, where the step number or lr lie in a GPU's memory, on the GPU.
#pragma once

#if !defined(__CUDACC__)
#include <cmath>
#endif

#include "math.h"

namespace adamw {

struct Hyperparameters {
  double lr, beta1, beta2, eps, weight_decay;
  std::uint64_t seed;
  bool maximize;
};

// base^exponent by squaring: the same bits everywhere, which a library's pow() does not promise.
ADAMW_INLINE double power(double base, std::int64_t exponent) {
  double result = 1.0;
  for (; exponent > 0; exponent >>= 1) {
    if ((exponent & 1) != 0) result *= base;
    base *= base;
  }
  return result;
}

ADAMW_INLINE double square_root(double x) {
#if defined(__CUDACC__)
  return ::sqrt(x);
#else
  return std::sqrt(x);
#endif
}

ADAMW_INLINE std::uint64_t mix64(std::uint64_t x) {  // the finalizer of splitmix64
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// Lower half: key of the moments' random words; upper half: of the parameter's.
ADAMW_INLINE std::uint64_t random_keys(std::uint64_t seed, std::int64_t step) {
  return mix64(mix64(seed + 0x9E3779B97F4A7C15u) + static_cast<std::uint64_t>(step));
}

// What depends on lr.
ADAMW_INLINE void set_lr(Coefficients &c, double lr, double weight_decay) {
  c.decay = static_cast<float>(1.0 - lr * weight_decay);
  c.negative_step_size = static_cast<float>(-lr / c.bc1);
}

ADAMW_INLINE Coefficients coefficients(const Hyperparameters &h, std::int64_t step) {
  const double bc2 = 1.0 - power(h.beta2, step);
  const std::uint64_t keys = random_keys(h.seed, step);
  Coefficients c;
  c.gradient_scale = h.maximize ? -1.0f : 1.0f;
  c.beta1 = static_cast<float>(h.beta1);
  c.beta2 = static_cast<float>(h.beta2);
  c.one_minus_beta1 = static_cast<float>(1.0 - h.beta1);
  c.one_minus_beta2 = static_cast<float>(1.0 - h.beta2);
  c.root_one_minus_beta2 = static_cast<float>(square_root(1.0 - h.beta2));
  c.inverse_root_bc2 = static_cast<float>(1.0 / square_root(bc2));
  c.eps = static_cast<float>(h.eps);
  c.bc1 = 1.0 - power(h.beta1, step);
  set_lr(c, h.lr, h.weight_decay);
  c.state_key = static_cast<std::uint32_t>(keys);
  c.param_key = static_cast<std::uint32_t>(keys >> 32);
  return c;
}

}  // namespace adamw
