// Owns the moments that are kept as they are: one pass over a block. Knows nothing of codes.
#pragma once

#include "../formats.h"
#include "../numerics/codes.h"
#include "operands.h"

namespace adamw {
namespace {

template <bool Amsgrad>
class BlockMoments<Float32Moments, Amsgrad> {
 public:
  BlockMoments(const StepKind &kind, const Row &row) : kind_(kind), row_(row) {}

  ADAMW_INLINE void load(const Operands &o, std::int64_t) {
    for_each_moment(
        Amsgrad,
        [&](Staged<float> &at, void *base) { at.load(static_cast<float *>(base) + o.begin, o.n, o.padded, 0.0f); }, at_,
        moments_of(row_.tensor));
  }

  template <class Random>
  ADAMW_INLINE std::int64_t step(Operands &o, std::int64_t, const PerMoment<Scale> *, const Random &) {
    o.dispatch_params([&](auto type) {
      const auto write = [&](int i, const Stepped<V> &s) {
        o.set_params(type, i, s.param);
        store(at_.exp_avg.at + i, s.exp_avg);
        store(at_.exp_avg_sq.at + i, s.exp_avg_sq);
        if (Amsgrad) store(at_.max_exp_avg_sq.at + i, s.max_exp_avg_sq);
      };
      if (o.grad.dtype == o.param.dtype) {
        each(o, type, type, write);
      } else {
        each(o, type, AnyDtype{}, write);
      }
    });
    return 0;
  }

  ADAMW_INLINE void commit() const {
    for_each_moment(Amsgrad, [](const Staged<float> &at) { at.commit(); }, at_);
  }

  ADAMW_INLINE void directions(const Operands &o, Measures &, Squares &squares) {
    const AnyDtype any;
    each(o, any, any, [&](int i, const Stepped<V> &s) { squares.add(s.direction, o.param.floats(any, i)); });
  }

 private:
  static ADAMW_INLINE V load_lanes(const float *p) { return adamw::load(p); }

  // body(i, what elements i, i + 1, ... become) for all vectors of a block. `param`, `grad`: their dtypes.
  template <class Param, class Grad, class Body>
  ADAMW_INLINE void each(const Operands &o, Param param, Grad grad, const Body &body) const {
    for (int i = 0; i < o.padded; i += lanes) {
      const V x = Amsgrad ? load_lanes(at_.max_exp_avg_sq.at + i) : V(0.0f);
      body(i, step_element32<Amsgrad>(o.param.floats(param, i), o.grad.floats(grad, i), load_lanes(at_.exp_avg.at + i),
                                      load_lanes(at_.exp_avg_sq.at + i), x, row_.coefficients, kind_.skip_zeros));
    }
  }

  const StepKind &kind_;
  const Row &row_;
  PerMoment<Staged<float>> at_;
};

}  // namespace
}  // namespace adamw
