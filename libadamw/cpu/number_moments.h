// Owns the moments that are kept as numbers of a dtype: one pass over a block. Knows nothing of codes.
#pragma once

#include "../formats.h"
#include "../numerics/codes.h"
#include "operands.h"

namespace adamw {
namespace {

template <adamw_dtype dtype, bool Amsgrad>
class BlockMoments<Numbers<dtype>, Amsgrad> {
 public:
  BlockMoments(const StepKind &kind, const Row &row) : kind_(kind), row_(row) {}

  ADAMW_INLINE void load(const Operands &o, std::int64_t) {
    for_each_moment(
        Amsgrad, [&](Elements &at, void *base) { at.load(base, dtype, o.begin, o.n, o.padded); }, at_,
        moments_of(row_.tensor));
  }

  template <class Random>
  ADAMW_INLINE std::int64_t step(Operands &o, std::int64_t, const PerMoment<Scale> *, const Random &random) {
    const Words *words = rounds ? &random() : nullptr;
    o.params.dispatch_dtype([&](auto type) {
      const auto write = [&](int i, const Stepped<V> &s) {
        o.params.set(type, i, s.param, nullptr);
        at_.exp_avg.store(moment_type, i, s.exp_avg);
        if constexpr (rounds) {  // its average: nearest rounding would stall
          store_rounded(moment_type, at_.exp_avg_sq.at, i, s.exp_avg_sq, words->of_any(i));
        } else {
          at_.exp_avg_sq.store(moment_type, i, s.exp_avg_sq);
        }
        if (Amsgrad) at_.max_exp_avg_sq.store(moment_type, i, s.max_exp_avg_sq);
      };
      if (o.grad.dtype == o.params.kept.dtype) {
        each(o, type, type, write);
      } else {
        each(o, type, AnyDtype{}, write);
      }
    });
    return 0;
  }

  ADAMW_INLINE void commit() const {
    for_each_moment(Amsgrad, [](const Elements &at) { at.commit(); }, at_);
  }

  ADAMW_INLINE void directions(const Operands &o, Measures &, Squares &squares) {
    const AnyDtype any;
    each(o, any, any, [&](int i, const Stepped<V> &s) { squares.add(s.direction, o.params.floats(any, i)); });
  }

 private:
  static constexpr Dtype<dtype> moment_type{};
  static constexpr bool rounds = dtype != ADAMW_FLOAT32;

  // body(i, what elements i, i + 1, ... become) for all vectors of a block. `param`, `grad`: their dtypes.
  template <class Param, class Grad, class Body>
  ADAMW_INLINE void each(const Operands &o, Param param, Grad grad, const Body &body) const {
    for (int i = 0; i < o.padded; i += lanes) {
      const V x = Amsgrad ? at_.max_exp_avg_sq.floats(moment_type, i) : V(0.0f);
      body(i, step_element32<Amsgrad>(o.params.floats(param, i), o.grad.floats(grad, i),
                                      at_.exp_avg.floats(moment_type, i), at_.exp_avg_sq.floats(moment_type, i), x,
                                      row_.coefficients, kind_.skip_zeros));
    }
  }

  const StepKind &kind_;
  const Row &row_;
  PerMoment<Elements> at_;
};

}  // namespace
}  // namespace adamw
