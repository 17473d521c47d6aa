// Owns the operations on one register of AArch64 with NEON: four lanes. Matches registers_scalar.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "../numerics/types.h"

namespace adamw {
namespace {

using FloatRegister = float32x4_t;
using IntRegister = uint32x4_t;
struct MaskRegister {
  uint32x4_t m;
};
constexpr int register_lanes = 4;

ADAMW_INLINE float32x4_t register_set(float x) { return vdupq_n_f32(x); }
ADAMW_INLINE uint32x4_t register_set(std::uint32_t x) { return vdupq_n_u32(x); }
ADAMW_INLINE uint32x4_t register_bits(float32x4_t a) { return vreinterpretq_u32_f32(a); }
ADAMW_INLINE float32x4_t register_from_bits(uint32x4_t a) { return vreinterpretq_f32_u32(a); }

ADAMW_INLINE float32x4_t register_fma(float32x4_t a, float32x4_t b, float32x4_t c) { return vfmaq_f32(c, a, b); }
ADAMW_INLINE float32x4_t register_add(float32x4_t a, float32x4_t b) { return vaddq_f32(a, b); }
ADAMW_INLINE float32x4_t register_sub(float32x4_t a, float32x4_t b) { return vsubq_f32(a, b); }
ADAMW_INLINE float32x4_t register_mul(float32x4_t a, float32x4_t b) { return vmulq_f32(a, b); }
ADAMW_INLINE float32x4_t register_div(float32x4_t a, float32x4_t b) { return vdivq_f32(a, b); }
// By comparison, not vmaxq and vminq: those treat NaN and signed zeros in another way than x86 does.
ADAMW_INLINE float32x4_t register_max(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
ADAMW_INLINE float32x4_t register_min(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
ADAMW_INLINE float32x4_t register_sqrt(float32x4_t a) { return vsqrtq_f32(a); }
ADAMW_INLINE uint32x4_t register_add(uint32x4_t a, uint32x4_t b) { return vaddq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_sub(uint32x4_t a, uint32x4_t b) { return vsubq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_mul(uint32x4_t a, uint32x4_t b) { return vmulq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_and(uint32x4_t a, uint32x4_t b) { return vandq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_or(uint32x4_t a, uint32x4_t b) { return vorrq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_xor(uint32x4_t a, uint32x4_t b) { return veorq_u32(a, b); }
ADAMW_INLINE float32x4_t register_flip_sign(float32x4_t a, float32x4_t b) {
  return register_from_bits(veorq_u32(register_bits(a), vandq_u32(register_bits(b), vdupq_n_u32(0x80000000u))));
}
ADAMW_INLINE uint32x4_t register_max(uint32x4_t a, uint32x4_t b) { return vmaxq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_min(uint32x4_t a, uint32x4_t b) { return vminq_u32(a, b); }
ADAMW_INLINE uint32x4_t register_less_by(uint32x4_t a, std::uint32_t b) { return vqsubq_u32(a, vdupq_n_u32(b)); }
ADAMW_INLINE uint32x4_t register_shift_left(uint32x4_t a, int n) { return vshlq_u32(a, vdupq_n_s32(n)); }
ADAMW_INLINE uint32x4_t register_shift_right(uint32x4_t a, int n) { return vshlq_u32(a, vdupq_n_s32(-n)); }

ADAMW_INLINE uint32x4_t register_shift_right_signed(uint32x4_t a, int n) {
  return vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a), vdupq_n_s32(-n)));
}

ADAMW_INLINE MaskRegister register_less(float32x4_t a, float32x4_t b) { return {vcltq_f32(a, b)}; }
ADAMW_INLINE MaskRegister register_less_equal(float32x4_t a, float32x4_t b) { return {vcleq_f32(a, b)}; }
ADAMW_INLINE MaskRegister register_not_equal(float32x4_t a, float32x4_t b) { return {vmvnq_u32(vceqq_f32(a, b))}; }
ADAMW_INLINE MaskRegister register_and(MaskRegister a, MaskRegister b) { return {vandq_u32(a.m, b.m)}; }
ADAMW_INLINE int register_count(MaskRegister a) { return static_cast<int>(vaddvq_u32(vshrq_n_u32(a.m, 31))); }
ADAMW_INLINE float32x4_t register_select(MaskRegister m, float32x4_t a, float32x4_t b) { return vbslq_f32(m.m, a, b); }
ADAMW_INLINE uint32x4_t register_select(MaskRegister m, uint32x4_t a, uint32x4_t b) { return vbslq_u32(m.m, a, b); }
ADAMW_INLINE uint32x4_t register_add_where(MaskRegister m, uint32x4_t a, uint32x4_t b) {
  return vaddq_u32(a, vandq_u32(m.m, b));
}
ADAMW_INLINE uint32x4_t register_zero_where_zero(float32x4_t x, uint32x4_t a) { return vbicq_u32(a, vceqzq_f32(x)); }

ADAMW_INLINE float32x4_t register_to_float(uint32x4_t a) { return vcvtq_f32_s32(vreinterpretq_s32_u32(a)); }
ADAMW_INLINE uint32x4_t register_truncate(float32x4_t a) { return vreinterpretq_u32_s32(vcvtq_s32_f32(a)); }

ADAMW_INLINE uint32x4_t register_spread(const std::uint32_t *p) { return vdupq_n_u32(*p); }
ADAMW_INLINE std::uint32_t register_reduce_max(uint32x4_t a) { return vmaxvq_u32(a); }

// ---- memory ----

ADAMW_INLINE float32x4_t register_load(const float *p) { return vld1q_f32(p); }
ADAMW_INLINE uint32x4_t register_load(const std::uint32_t *p) { return vld1q_u32(p); }
ADAMW_INLINE uint32x4_t register_load(const std::uint16_t *p) { return vmovl_u16(vld1_u16(p)); }
ADAMW_INLINE uint32x4_t register_load(const std::uint8_t *p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
ADAMW_INLINE uint32x4_t register_load(const std::int16_t *p) { return vreinterpretq_u32_s32(vmovl_s16(vld1_s16(p))); }
ADAMW_INLINE uint32x4_t register_load(const std::int8_t *p) {
  std::uint32_t four;
  __builtin_memcpy(&four, p, 4);
  return vreinterpretq_u32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
}
ADAMW_INLINE void register_store(float *p, float32x4_t a) { vst1q_f32(p, a); }
ADAMW_INLINE void register_store(std::uint32_t *p, uint32x4_t a) { vst1q_u32(p, a); }
ADAMW_INLINE void register_store(std::uint16_t *p, uint32x4_t a) { vst1_u16(p, vmovn_u32(a)); }
template <int from>
ADAMW_INLINE void registers_store_bytes(std::uint8_t *p, const uint32x4_t *a) {
  for (int i = 0; i < 8; i += 2) {
    const uint16x4_t low = vshrn_n_u32(a[i], from), high = vshrn_n_u32(a[i + 1], from);
    vst1_u8(p + 4 * i, vmovn_u16(vcombine_u16(low, high)));
  }
}

// ---- squares, which are exact in double precision ----

struct SumRegister {
  float64x2_t low, high;
};
ADAMW_INLINE SumRegister register_load_sums(const double *p) { return {vld1q_f64(p), vld1q_f64(p + 2)}; }
ADAMW_INLINE void register_store_sums(double *p, SumRegister a) {
  vst1q_f64(p, a.low);
  vst1q_f64(p + 2, a.high);
}
ADAMW_INLINE SumRegister register_add_squares(SumRegister a, float32x4_t x) {
  const float64x2_t low = vcvt_f64_f32(vget_low_f32(x)), high = vcvt_high_f64_f32(x);
  return {vfmaq_f64(a.low, low, low), vfmaq_f64(a.high, high, high)};
}

// ---- binary16 ----

ADAMW_INLINE float32x4_t register_float16_to_float(uint32x4_t a) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a)));
}
ADAMW_INLINE uint32x4_t register_float_to_float16(float32x4_t a) {
  return vmovl_u16(vreinterpret_u16_f16(vcvt_f16_f32(a)));
}

}  // namespace
}  // namespace adamw
