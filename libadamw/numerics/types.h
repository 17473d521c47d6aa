// Owns what lets one source be compiled for CPUs and GPUs: the fixed-width integers where there is no standard library
// (NVRTC), and how functions and tables are declared.
#pragma once

#if defined(__CUDACC_RTC__)
namespace std {
using int64_t = long long;
using uint64_t = unsigned long long;
using int32_t = int;
using uint32_t = unsigned;
using uint16_t = unsigned short;
using uint8_t = unsigned char;
using uintptr_t = unsigned long long;
}  // namespace std
#else
#include <cstdint>
#endif

#if defined(__CUDACC__)
#define ADAMW_INLINE __forceinline__ __host__ __device__
#define ADAMW_TABLE __device__ constexpr
#else
#define ADAMW_INLINE inline __attribute__((always_inline))
#define ADAMW_TABLE constexpr
#endif
