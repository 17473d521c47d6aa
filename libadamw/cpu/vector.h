// Owns the vector type of the block loops: V, I and M hold 32 lanes as an array of a target's registers, and
// every operation is lifted from one register to all. Include a registers_*.h first. 32 lanes rather than one register,
// because the chains of an element are long: several independent ones side by side keep the processor's ports busy.
#pragma once

#include "../numerics/math.h"

// What stands in the file once for every target, because it is not on the common path.
#define ADAMW_RARE [[maybe_unused]] ADAMW_NEVER_INLINE

#define ADAMW_REGISTERS for (int i = 0; i < registers; ++i)

namespace adamw {
namespace {

using adamw::bits, adamw::from_bits;  // of one float, beside those of vectors

constexpr int lanes = 32, registers = lanes / register_lanes;

struct I {
  IntRegister v[registers];
  I() = default;
  ADAMW_INLINE I(std::uint32_t x) { ADAMW_REGISTERS v[i] = register_set(x); }
};

struct V {
  FloatRegister v[registers];
  V() = default;
  ADAMW_INLINE V(float x) { ADAMW_REGISTERS v[i] = register_set(x); }
};

struct M {
  MaskRegister v[registers];
};

// What registers_*.h may ask to stand in the file once, instead of wherever it is used. A call then copies nothing;
// inlined, references would keep gcc from holding what they refer to in registers.
#ifdef ADAMW_ONCE
using GivenV = const V &;
using GivenI = const I &;
constexpr bool compact = true;  // no loops for the common cases alone, either
#else
constexpr bool compact = false;
#define ADAMW_ONCE ADAMW_INLINE
using GivenV = V;
using GivenI = I;
#endif

#define ADAMW_LIFT1(R, name, A, operation)      \
  ADAMW_INLINE R name(A a) {                    \
    R r;                                        \
    ADAMW_REGISTERS r.v[i] = operation(a.v[i]); \
    return r;                                   \
  }
#define ADAMW_LIFT2(R, name, A, B, operation)           \
  ADAMW_INLINE R name(A a, B b) {                       \
    R r;                                                \
    ADAMW_REGISTERS r.v[i] = operation(a.v[i], b.v[i]); \
    return r;                                           \
  }
#define ADAMW_LIFT3(R, name, A, B, C, operation)                \
  ADAMW_INLINE R name(A a, B b, C c) {                          \
    R r;                                                        \
    ADAMW_REGISTERS r.v[i] = operation(a.v[i], b.v[i], c.v[i]); \
    return r;                                                   \
  }
#define ADAMW_LIFT_SHIFT(name, operation)          \
  ADAMW_INLINE I name(I a, int n) {                \
    I r;                                           \
    ADAMW_REGISTERS r.v[i] = operation(a.v[i], n); \
    return r;                                      \
  }
// Memory: register i begins register_lanes * i elements on.
#define ADAMW_LIFT_LOAD(R, T)                                       \
  ADAMW_INLINE R load(const T *p) {                                 \
    R r;                                                            \
    ADAMW_REGISTERS r.v[i] = register_load(p + register_lanes * i); \
    return r;                                                       \
  }
#define ADAMW_LIFT_STORE(T, A) \
  ADAMW_INLINE void store(T *p, A a) { ADAMW_REGISTERS register_store(p + register_lanes * i, a.v[i]); }

ADAMW_LIFT2(V, operator+, V, V, register_add)
ADAMW_LIFT2(V, operator-, V, V, register_sub)
ADAMW_LIFT2(V, operator*, V, V, register_mul)
ADAMW_LIFT2(V, operator/, V, V, register_div)
ADAMW_LIFT2(V, max, V, V, register_max)  // a > b ? a : b: the second where either is NaN
ADAMW_LIFT2(V, min, V, V, register_min)  // a < b ? a : b
ADAMW_LIFT1(V, sqrt, V, register_sqrt)
ADAMW_LIFT2(I, operator+, I, I, register_add)
ADAMW_LIFT2(I, operator-, I, I, register_sub)
ADAMW_LIFT2(I, operator*, I, I, register_mul)
ADAMW_LIFT2(I, operator&, I, I, register_and)
ADAMW_LIFT2(I, operator|, I, I, register_or)
ADAMW_LIFT2(I, operator^, I, I, register_xor)
ADAMW_LIFT_SHIFT(shift_left, register_shift_left)
ADAMW_LIFT_SHIFT(shift_right, register_shift_right)  // logical
ADAMW_LIFT_SHIFT(shift_right_signed, register_shift_right_signed)
ADAMW_LIFT2(M, less, V, V, register_less)
ADAMW_LIFT2(M, less_equal, V, V, register_less_equal)
ADAMW_LIFT2(M, not_equal, V, V, register_not_equal)  // true for NaN
ADAMW_LIFT2(M, operator&, M, M, register_and)
ADAMW_LIFT3(V, select, M, V, V, register_select)  // a ? b : c
ADAMW_LIFT3(I, select, M, I, I, register_select)
ADAMW_LIFT2(V, flip_sign, V, V, register_flip_sign)              // -a where b's sign bit is set, else a
ADAMW_LIFT3(I, add_where, M, I, I, register_add_where)           // b + c where a is set, else b
ADAMW_LIFT2(I, zero_where_zero, V, I, register_zero_where_zero)  // b, or 0 where a, which is not negative, is 0
ADAMW_LIFT1(I, bits, V, register_bits)
ADAMW_LIFT1(V, from_bits, I, register_from_bits)
ADAMW_LIFT1(V, to_float, I, register_to_float)  // signed
ADAMW_LIFT1(I, truncate, V, register_truncate)
ADAMW_LIFT1(V, float16_to_float, I, register_float16_to_float)
ADAMW_LIFT1(I, float_to_float16, V, register_float_to_float16)
ADAMW_LIFT_LOAD(V, float)
ADAMW_LIFT_LOAD(I, std::uint32_t)
ADAMW_LIFT_LOAD(I, std::uint16_t)
ADAMW_LIFT_LOAD(I, std::uint8_t)
ADAMW_LIFT_LOAD(I, std::int16_t)  // with their signs
ADAMW_LIFT_LOAD(I, std::int8_t)
ADAMW_LIFT_STORE(float, V)
ADAMW_LIFT_STORE(std::uint32_t, I)
ADAMW_LIFT_STORE(std::uint16_t, I)  // of lanes that have no higher bits

// a * b + c, rounded once
ADAMW_ONCE V fma(GivenV a, GivenV b, GivenV c) {
  V r;
  ADAMW_REGISTERS r.v[i] = register_fma(a.v[i], b.v[i], c.v[i]);
  return r;
}

// Bits 15 ... 22 of the lanes, as bytes: where rounded_code() leaves a code.
ADAMW_INLINE void store_codes(std::uint8_t *p, I a) { registers_store_bytes<15>(p, a.v); }
// Bits 8 ... 15.
ADAMW_INLINE void store_second_bytes(std::uint8_t *p, I a) { registers_store_bytes<8>(p, a.v); }

// Sums of squares, a lane each.
struct Sums {
  SumRegister v[registers];

  ADAMW_INLINE void load(const double *p) { ADAMW_REGISTERS v[i] = register_load_sums(p + register_lanes * i); }
  ADAMW_INLINE void store(double *p) const { ADAMW_REGISTERS register_store_sums(p + register_lanes * i, v[i]); }
  ADAMW_INLINE void add(V a) { ADAMW_REGISTERS v[i] = register_add_squares(v[i], a.v[i]); }
};

// max() hands on the second of its arguments where either is NaN, so that a NaN moment stays one.
ADAMW_INLINE V maximum(V a, V b) { return max(a, b); }

// a - b, or 0 where a is 0. The lower half of b is 0; no other a is below it.
ADAMW_INLINE I less_by(I a, std::uint32_t b) {
  I r;
  ADAMW_REGISTERS r.v[i] = register_less_by(a.v[i], b);
  return r;
}

// The noise of a random word: a signed number of 15 bits, uniform. rounded_code() leaves a code where store_codes()
// takes it.
ADAMW_INLINE I noise_of(I word) { return shift_right_signed(word, 17); }
ADAMW_INLINE I rounded_code(V position, M noisy, I noise) { return add_where(noisy, bits(position), noise); }
ADAMW_INLINE I rounded_code(V position, I noise) { return bits(position) + noise; }

// Lanes 8 k ... 8 k + 7 get p[k].
ADAMW_INLINE I spread(const std::uint32_t *p) {
  I r;
  ADAMW_REGISTERS r.v[i] = register_spread(p + register_lanes * i / 8);
  return r;
}

// The number of lanes that are set.
ADAMW_INLINE int count(M m) {
  int n = 0;
  ADAMW_REGISTERS n += register_count(m.v[i]);
  return n;
}

// One register of a vector's, by an operation on two. One, however many a vector has: they are short where it is used.
template <class Operation>
ADAMW_INLINE IntRegister folded(I a, const Operation &operation) {
  for (int width = registers / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = operation(a.v[i], a.v[i + width]);
  }
  return a.v[0];
}

// The largest of all lanes seen so far, unsigned.
struct Largest {
  IntRegister one = register_set(0u);

  static ADAMW_INLINE IntRegister of_two(IntRegister a, IntRegister b) { return register_max(a, b); }
  static ADAMW_INLINE std::uint32_t pick(std::uint32_t a, std::uint32_t b) { return a > b ? a : b; }
  ADAMW_INLINE void see(I a) { one = of_two(one, folded(a, of_two)); }
  ADAMW_INLINE std::uint32_t value() const { return register_reduce_max(one); }
};

// The smallest, of numbers below 2^31.
struct Smallest {
  IntRegister one = register_set(0x7FFFFFFFu);

  static ADAMW_INLINE IntRegister of_two(IntRegister a, IntRegister b) { return register_min(a, b); }
  static ADAMW_INLINE std::uint32_t pick(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }
  ADAMW_INLINE void see(I a) { one = of_two(one, folded(a, of_two)); }
  ADAMW_INLINE std::uint32_t value() const {
    return 0x7FFFFFFFu - register_reduce_max(register_sub(register_set(0x7FFFFFFFu), one));
  }
};

#undef ADAMW_LIFT1
#undef ADAMW_LIFT2
#undef ADAMW_LIFT3
#undef ADAMW_LIFT_SHIFT
#undef ADAMW_LIFT_LOAD
#undef ADAMW_LIFT_STORE
#undef ADAMW_REGISTERS

}  // namespace
}  // namespace adamw
