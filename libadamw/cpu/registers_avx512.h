// Owns the operations on one register of x86-64 with AVX-512 (F, BW, DQ, VL): sixteen lanes. Matches
// registers_scalar.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "../numerics/types.h"

namespace adamw {
namespace {

using FloatRegister = __m512;
using IntRegister = __m512i;
struct MaskRegister {
  __mmask16 m;
};
constexpr int register_lanes = 16;

ADAMW_INLINE __m512 register_set(float x) { return _mm512_set1_ps(x); }
ADAMW_INLINE __m512i register_set(std::uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
ADAMW_INLINE __m512i register_bits(__m512 a) { return _mm512_castps_si512(a); }
ADAMW_INLINE __m512 register_from_bits(__m512i a) { return _mm512_castsi512_ps(a); }

ADAMW_INLINE __m512 register_fma(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
ADAMW_INLINE __m512 register_add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
ADAMW_INLINE __m512 register_sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }
ADAMW_INLINE __m512 register_mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }
ADAMW_INLINE __m512 register_div(__m512 a, __m512 b) { return _mm512_div_ps(a, b); }
ADAMW_INLINE __m512 register_max(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
ADAMW_INLINE __m512 register_min(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
ADAMW_INLINE __m512 register_sqrt(__m512 a) { return _mm512_sqrt_ps(a); }
ADAMW_INLINE __m512i register_add(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
ADAMW_INLINE __m512i register_sub(__m512i a, __m512i b) { return _mm512_sub_epi32(a, b); }
ADAMW_INLINE __m512i register_mul(__m512i a, __m512i b) { return _mm512_mullo_epi32(a, b); }
ADAMW_INLINE __m512i register_and(__m512i a, __m512i b) { return _mm512_and_si512(a, b); }
ADAMW_INLINE __m512i register_or(__m512i a, __m512i b) { return _mm512_or_si512(a, b); }
ADAMW_INLINE __m512i register_xor(__m512i a, __m512i b) { return _mm512_xor_si512(a, b); }
ADAMW_INLINE __m512 register_flip_sign(__m512 a, __m512 b) {  // 0x6C: b ^ (a & c), of the operands in order a, b, c
  return register_from_bits(
      _mm512_ternarylogic_epi32(register_set(0x80000000u), register_bits(a), register_bits(b), 0x6C));
}
ADAMW_INLINE __m512i register_max(__m512i a, __m512i b) { return _mm512_max_epu32(a, b); }
ADAMW_INLINE __m512i register_min(__m512i a, __m512i b) { return _mm512_min_epu32(a, b); }
// In 16 bits, where subtraction saturates: nothing is borrowed from the lower halves.
ADAMW_INLINE __m512i register_less_by(__m512i a, std::uint32_t b) { return _mm512_subs_epu16(a, register_set(b)); }
ADAMW_INLINE __m512i register_shift_left(__m512i a, int n) { return _mm512_slli_epi32(a, static_cast<unsigned>(n)); }
ADAMW_INLINE __m512i register_shift_right(__m512i a, int n) { return _mm512_srli_epi32(a, static_cast<unsigned>(n)); }

ADAMW_INLINE __m512i register_shift_right_signed(__m512i a, int n) {
  return _mm512_srai_epi32(a, static_cast<unsigned>(n));
}

ADAMW_INLINE MaskRegister register_less(__m512 a, __m512 b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ)}; }
ADAMW_INLINE MaskRegister register_less_equal(__m512 a, __m512 b) { return {_mm512_cmp_ps_mask(a, b, _CMP_LE_OQ)}; }
ADAMW_INLINE MaskRegister register_not_equal(__m512 a, __m512 b) { return {_mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ)}; }
ADAMW_INLINE MaskRegister register_and(MaskRegister a, MaskRegister b) { return {static_cast<__mmask16>(a.m & b.m)}; }
ADAMW_INLINE int register_count(MaskRegister a) { return __builtin_popcount(a.m); }
ADAMW_INLINE __m512 register_select(MaskRegister m, __m512 a, __m512 b) { return _mm512_mask_blend_ps(m.m, b, a); }
ADAMW_INLINE __m512i register_select(MaskRegister m, __m512i a, __m512i b) {
  return _mm512_mask_blend_epi32(m.m, b, a);
}
ADAMW_INLINE __m512i register_add_where(MaskRegister m, __m512i a, __m512i b) {
  return _mm512_mask_add_epi32(a, m.m, a, b);
}
ADAMW_INLINE __m512i register_zero_where_zero(__m512 x, __m512i a) {
  return _mm512_maskz_mov_epi32(_mm512_test_epi32_mask(register_bits(x), register_bits(x)), a);
}

ADAMW_INLINE __m512 register_to_float(__m512i a) { return _mm512_cvtepi32_ps(a); }
ADAMW_INLINE __m512i register_truncate(__m512 a) { return _mm512_cvttps_epi32(a); }

ADAMW_INLINE __m512i register_spread(const std::uint32_t *p) {
  return _mm512_mask_set1_epi32(register_set(p[0]), 0xFF00, static_cast<int>(p[1]));
}
ADAMW_INLINE std::uint32_t register_reduce_max(__m512i a) { return _mm512_reduce_max_epu32(a); }

// ---- memory ----

ADAMW_INLINE __m512 register_load(const float *p) { return _mm512_loadu_ps(p); }
ADAMW_INLINE __m512i register_load(const std::uint32_t *p) { return _mm512_loadu_si512(p); }
ADAMW_INLINE __m512i register_load(const std::uint16_t *p) {
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
ADAMW_INLINE __m512i register_load(const std::uint8_t *p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
ADAMW_INLINE __m512i register_load(const std::int16_t *p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(p)));
}
ADAMW_INLINE __m512i register_load(const std::int8_t *p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(p)));
}
ADAMW_INLINE void register_store(float *p, __m512 a) { _mm512_storeu_ps(p, a); }
ADAMW_INLINE void register_store(std::uint32_t *p, __m512i a) { _mm512_storeu_si512(p, a); }
ADAMW_INLINE void register_store(std::uint16_t *p, __m512i a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(p), _mm512_cvtepi32_epi16(a));
}
template <int from>
ADAMW_INLINE void registers_store_bytes(std::uint8_t *p, const __m512i *a) {
  for (int i = 0; i < 2; ++i) {
    _mm_storeu_si128(reinterpret_cast<__m128i *>(p + 16 * i), _mm512_cvtepi32_epi8(_mm512_srli_epi32(a[i], from)));
  }
}

// ---- squares, which are exact in double precision ----

struct SumRegister {
  __m512d low, high;
};
ADAMW_INLINE SumRegister register_load_sums(const double *p) { return {_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)}; }
ADAMW_INLINE void register_store_sums(double *p, SumRegister a) {
  _mm512_storeu_pd(p, a.low);
  _mm512_storeu_pd(p + 8, a.high);
}
ADAMW_INLINE SumRegister register_add_squares(SumRegister a, __m512 x) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x)), high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
  return {_mm512_fmadd_pd(low, low, a.low), _mm512_fmadd_pd(high, high, a.high)};
}

// ---- binary16 ----

ADAMW_INLINE __m512 register_float16_to_float(__m512i a) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(a)); }
ADAMW_INLINE __m512i register_float_to_float16(__m512 a) {
  return _mm512_cvtepu16_epi32(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

}  // namespace
}  // namespace adamw
