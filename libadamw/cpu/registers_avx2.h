// Owns the operations on one register of x86-64 with AVX2, FMA and F16C: eight lanes. Matches registers_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../numerics/types.h"

namespace adamw {
namespace {

using FloatRegister = __m256;
using IntRegister = __m256i;
struct MaskRegister {
  __m256 m;
};
constexpr int register_lanes = 8;

ADAMW_INLINE __m256 register_set(float x) { return _mm256_set1_ps(x); }
ADAMW_INLINE __m256i register_set(std::uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
ADAMW_INLINE __m256i register_bits(__m256 a) { return _mm256_castps_si256(a); }
ADAMW_INLINE __m256 register_from_bits(__m256i a) { return _mm256_castsi256_ps(a); }

ADAMW_INLINE __m256 register_fma(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
ADAMW_INLINE __m256 register_add(__m256 a, __m256 b) { return _mm256_add_ps(a, b); }
ADAMW_INLINE __m256 register_sub(__m256 a, __m256 b) { return _mm256_sub_ps(a, b); }
ADAMW_INLINE __m256 register_mul(__m256 a, __m256 b) { return _mm256_mul_ps(a, b); }
ADAMW_INLINE __m256 register_div(__m256 a, __m256 b) { return _mm256_div_ps(a, b); }
ADAMW_INLINE __m256 register_max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
ADAMW_INLINE __m256 register_min(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
ADAMW_INLINE __m256 register_sqrt(__m256 a) { return _mm256_sqrt_ps(a); }
ADAMW_INLINE __m256i register_add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
ADAMW_INLINE __m256i register_sub(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
ADAMW_INLINE __m256i register_mul(__m256i a, __m256i b) { return _mm256_mullo_epi32(a, b); }
ADAMW_INLINE __m256i register_and(__m256i a, __m256i b) { return _mm256_and_si256(a, b); }
ADAMW_INLINE __m256i register_or(__m256i a, __m256i b) { return _mm256_or_si256(a, b); }
ADAMW_INLINE __m256i register_xor(__m256i a, __m256i b) { return _mm256_xor_si256(a, b); }
ADAMW_INLINE __m256 register_flip_sign(__m256 a, __m256 b) {
  return _mm256_xor_ps(a, _mm256_and_ps(b, register_set(-0.0f)));
}
ADAMW_INLINE __m256i register_max(__m256i a, __m256i b) { return _mm256_max_epu32(a, b); }
ADAMW_INLINE __m256i register_min(__m256i a, __m256i b) { return _mm256_min_epu32(a, b); }
// In 16 bits, where subtraction saturates: nothing is borrowed from the lower halves.
ADAMW_INLINE __m256i register_less_by(__m256i a, std::uint32_t b) { return _mm256_subs_epu16(a, register_set(b)); }
ADAMW_INLINE __m256i register_shift_left(__m256i a, int n) { return _mm256_slli_epi32(a, n); }
ADAMW_INLINE __m256i register_shift_right(__m256i a, int n) { return _mm256_srli_epi32(a, n); }
ADAMW_INLINE __m256i register_shift_right_signed(__m256i a, int n) { return _mm256_srai_epi32(a, n); }

ADAMW_INLINE MaskRegister register_less(__m256 a, __m256 b) { return {_mm256_cmp_ps(a, b, _CMP_LT_OQ)}; }
ADAMW_INLINE MaskRegister register_less_equal(__m256 a, __m256 b) { return {_mm256_cmp_ps(a, b, _CMP_LE_OQ)}; }
ADAMW_INLINE MaskRegister register_not_equal(__m256 a, __m256 b) { return {_mm256_cmp_ps(a, b, _CMP_NEQ_UQ)}; }
ADAMW_INLINE MaskRegister register_and(MaskRegister a, MaskRegister b) { return {_mm256_and_ps(a.m, b.m)}; }
ADAMW_INLINE int register_count(MaskRegister a) {
  return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(a.m)));
}
ADAMW_INLINE __m256 register_select(MaskRegister m, __m256 a, __m256 b) { return _mm256_blendv_ps(b, a, m.m); }
ADAMW_INLINE __m256i register_select(MaskRegister m, __m256i a, __m256i b) {
  return register_bits(register_select(m, register_from_bits(a), register_from_bits(b)));
}
ADAMW_INLINE __m256i register_add_where(MaskRegister m, __m256i a, __m256i b) {
  return _mm256_add_epi32(a, _mm256_and_si256(register_bits(m.m), b));
}
ADAMW_INLINE __m256i register_zero_where_zero(__m256 x, __m256i a) { return _mm256_sign_epi32(a, register_bits(x)); }

ADAMW_INLINE __m256 register_to_float(__m256i a) { return _mm256_cvtepi32_ps(a); }
ADAMW_INLINE __m256i register_truncate(__m256 a) { return _mm256_cvttps_epi32(a); }

ADAMW_INLINE __m256i register_spread(const std::uint32_t *p) { return register_set(*p); }
ADAMW_INLINE std::uint32_t register_reduce_max(__m256i a) {
  const __m128i four = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  const __m128i two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_max_epu32(two, _mm_srli_epi64(two, 32))));
}

// ---- memory ----

ADAMW_INLINE __m256 register_load(const float *p) { return _mm256_loadu_ps(p); }
ADAMW_INLINE __m256i register_load(const std::uint32_t *p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(p));
}
ADAMW_INLINE __m256i register_load(const std::uint16_t *p) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
// All eight bytes in both halves, and then a shuffle within the halves: a conversion from 8 to 32 bits crosses them,
// which takes two to three times as long on Zen 3.
ADAMW_INLINE __m256i register_load(const std::uint8_t *p) {
  long long eight;
  __builtin_memcpy(&eight, p, 8);
  const __m256i place = _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1,  //
                                         4, -1, -1, -1, 5, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1, -1);
  return _mm256_shuffle_epi8(_mm256_set1_epi64x(eight), place);
}
ADAMW_INLINE __m256i register_load(const std::int16_t *p) {
  return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
ADAMW_INLINE __m256i register_load(const std::int8_t *p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(p)));
}
ADAMW_INLINE void register_store(float *p, __m256 a) { _mm256_storeu_ps(p, a); }
ADAMW_INLINE void register_store(std::uint32_t *p, __m256i a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), a);
}
ADAMW_INLINE __m128i low_halves(__m256i a) {  // lanes that fit 16 bits
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(a, a), 0xD8));
}
ADAMW_INLINE void register_store(std::uint16_t *p, __m256i a) {
  _mm_storeu_si128(reinterpret_cast<__m128i *>(p), low_halves(a));
}
// Packing saturates: nothing above 16 bits may be left, which codes do not have.
template <int from>
ADAMW_INLINE __m256i from_bit(__m256i a) {
  return _mm256_srli_epi32(from == 15 ? a : _mm256_slli_epi32(a, 24 - from), from == 15 ? from : 24);
}
template <int from>
ADAMW_INLINE __m256i bytes_in_halves(__m256i a, __m256i b) {
  const __m256i halves = _mm256_packus_epi32(from_bit<from>(a), from_bit<from>(b));
  return from == 15 ? _mm256_and_si256(halves, _mm256_set1_epi16(0xFF)) : halves;
}
template <int from>
ADAMW_INLINE void registers_store_bytes(std::uint8_t *p, const __m256i *a) {
  const __m256i bytes = _mm256_packus_epi16(bytes_in_halves<from>(a[0], a[1]), bytes_in_halves<from>(a[2], a[3]));
  // Packing works within 128-bit halves: this repairs the order.
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm256_permutevar8x32_epi32(bytes, order));
}

// ---- squares, which are exact in double precision ----

struct SumRegister {
  __m256d low, high;
};
ADAMW_INLINE SumRegister register_load_sums(const double *p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
ADAMW_INLINE void register_store_sums(double *p, SumRegister a) {
  _mm256_storeu_pd(p, a.low);
  _mm256_storeu_pd(p + 4, a.high);
}
ADAMW_INLINE SumRegister register_add_squares(SumRegister a, __m256 x) {
  const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(x)), high = _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1));
  return {_mm256_fmadd_pd(low, low, a.low), _mm256_fmadd_pd(high, high, a.high)};
}

// ---- binary16 ----

ADAMW_INLINE __m256 register_float16_to_float(__m256i a) { return _mm256_cvtph_ps(low_halves(a)); }
ADAMW_INLINE __m256i register_float_to_float16(__m256 a) {
  return _mm256_cvtepu16_epi32(_mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace adamw
