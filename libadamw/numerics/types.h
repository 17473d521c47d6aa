// Owns what lets one source be compiled for CPUs and GPUs: the fixed-width integers where there is no standard library
// (NVRTC), how functions and tables are declared, and a float's bits.
#pragma once

#if defined(__CUDACC_RTC__)
namespace std {
using int64_t = long long;
using uint64_t = unsigned long long;
using int32_t = int;
using uint32_t = unsigned;
using int16_t = short;
using uint16_t = unsigned short;
using int8_t = signed char;
using uint8_t = unsigned char;
using uintptr_t = unsigned long long;
}  // namespace std
#else
#include <cstdint>
#endif

#if !defined(__CUDACC__)
#include <cstring>

#include "../platform.h"
#endif

#if defined(__CUDACC__)
#define ADAMW_INLINE __forceinline__ __host__ __device__
#define ADAMW_TABLE __device__ constexpr
#else
#define ADAMW_TABLE constexpr
#endif

namespace adamw {

#if defined(__CUDA_ARCH__)
__device__ __forceinline__ std::uint32_t bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ float from_bits(std::uint32_t x) { return __uint_as_float(x); }
#elif !defined(__CUDACC__)
ADAMW_INLINE std::uint32_t bits(float x) {
  std::uint32_t b;
  std::memcpy(&b, &x, 4);
  return b;
}
ADAMW_INLINE float from_bits(std::uint32_t b) {
  float x;
  std::memcpy(&x, &b, 4);
  return x;
}
#endif

}  // namespace adamw
