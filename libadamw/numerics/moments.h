// Owns the three moments of an element as one object, and what a block of a moment has beside them. Knows nothing of
// how any of them is kept.
#pragma once

#include "types.h"

namespace adamw {

// What there is of each moment. Of max_exp_avg_sq only with amsgrad: without it, it is empty (T{}), or not looked at.
template <class T>
struct PerMoment {
  T exp_avg, exp_avg_sq, max_exp_avg_sq;
};

// The largest and the smallest of some numbers, none of which is negative.
struct Extremes {
  float largest, smallest;
};

// Of all the numbers that two others are of.
ADAMW_INLINE Extremes both(const Extremes &a, const Extremes &b) {
  return {a.largest > b.largest ? a.largest : b.largest, a.smallest < b.smallest ? a.smallest : b.smallest};
}

// What a moment has beside its codes: a number of each kind for each block, or for the tensor. exp_avg has no floor.
template <class T>
struct PerScale {
  T absmax, floor;
};
using StoredScale = PerScale<float>;

// A moment's arrays of them. floor is null where it has none.
struct ScaleArrays : PerScale<float *> {
  ADAMW_INLINE StoredScale at(std::int64_t i) const { return {absmax[i], floor != nullptr ? floor[i] : 0.0f}; }
  template <class Scale>
  ADAMW_INLINE void put(std::int64_t i, const Scale &scale) const {
    absmax[i] = scale.absmax;
    if (floor != nullptr) floor[i] = scale.floor;
  }
};

// Calls body(of exp_avg, ...), body(of exp_avg_sq, ...) and, with amsgrad, body(of max_exp_avg_sq, ...) of all `args`.
template <class Body, class... T>
ADAMW_INLINE void for_each_moment(bool amsgrad, const Body &body, T &&...args) {
  body(args.exp_avg...);
  body(args.exp_avg_sq...);
  if (amsgrad) body(args.max_exp_avg_sq...);
}

// What f makes of each moment of `args`.
template <class F, class... T>
ADAMW_INLINE auto map_moments(bool amsgrad, const F &f, const T &...args) -> PerMoment<decltype(f(args.exp_avg...))> {
  using R = decltype(f(args.exp_avg...));
  return {f(args.exp_avg...), f(args.exp_avg_sq...), amsgrad ? f(args.max_exp_avg_sq...) : R{}};
}

}  // namespace adamw
