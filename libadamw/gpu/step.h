// Owns the step of a block by a warp: every byte is read once and written once. Knows nothing of launches.
#pragma once

#include "block.h"

namespace adamw {
namespace gpu {
namespace {

// ---- 8-bit state ----

struct Fresh {
  float param[each], exp_avg[each], root[each], max_root[each];
};

ADAMW_DEVICE std::uint32_t warp_sum(std::uint32_t x) {
  for (unsigned mask = 16; mask != 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// The moments become codes, and are stored.
template <class Share, bool Amsgrad>
ADAMW_DEVICE void store_moments(const Fresh &f, const TensorScales &scales, const Block &b, const Words &words,
                                const Tables &t) {
  std::uint32_t word[each], m[each], r[each], x[each];
  words.template fill<Share>(word, b.start(), b.lane);
  for (int j = 0; j < each; ++j) {
    const float rounding = rounding_number<float>(word[j]);
    m[j] = encode_signed(f.exp_avg[j], scales.exp_avg.inverse, rounding, t.signed_zone_map);
    r[j] = encode_unsigned(f.root[j], scales.root.inverse, rounding, t.unsigned_zone_map);
    if (Amsgrad) x[j] = encode_unsigned(f.max_root[j], scales.max_root.inverse, 1.5f, t.unsigned_zone_map);
  }
  store_codes<Share>(m, b.row.exp_avg, b.begin, b.n, b.lane);
  store_codes<Share>(r, b.row.exp_avg_sq, b.begin, b.n, b.lane);
  if (Amsgrad) store_codes<Share>(x, b.max_root, b.begin, b.n, b.lane);
}

// Any block: short, misaligned, with elements to skip. One function for all dtypes, and not the common case.
template <bool Amsgrad, class Row>
ADAMW_NOINLINE void any_block8(const LaunchHead &head, const Row *rows, int number, std::int64_t block,
                               const Tables &t) {
  const unsigned lane = lane_id();
  const Coefficients c = row_coefficients(head, rows[number], number);
  const Block b = make_block(head, rows, number, block, rows[number].blocks().place(block), lane);
  const OldScales old = b.old_scales();
  float p[each], g[each];
  std::uint32_t m[2], r[2], x[2] = {0, 0};
  load_any(p, b.row.param, head.param_dtype, b.begin, b.n, lane);
  load_any(g, b.row.grad, head.grad_dtype, b.begin, b.n, lane);
  load_codes<Singles>(m, b.row.exp_avg, b.begin, b.n, lane, 127);
  load_codes<Singles>(r, b.row.exp_avg_sq, b.begin, b.n, lane, 0);
  if (Amsgrad) load_codes<Singles>(x, b.max_root, b.begin, b.n, lane, 0);
  Fresh f;
  std::uint32_t skipped = 0;
  for (int j = 0; j < each; ++j) {
    const float exp_avg = value_at(t.signed_value, m, j) * old.exp_avg;
    const float root = value_at(t.unsigned_value, r, j) * old.root;
    const float max_root = Amsgrad ? value_at(t.unsigned_value, x, j) * old.max_root : root;
    const Stepped<float> s = step_element8<Amsgrad, true>(p[j], g[j], exp_avg, root, max_root, c, head.skip_zeros);
    skipped += s.exp_avg_sq <= largest_float ? 0u : 1u;
    f.param[j] = s.param;
    f.exp_avg[j] = s.exp_avg;
    f.root[j] = s.root;
    f.max_root[j] = s.max_root;
  }
  skipped = warp_sum(skipped);
  if (lane == 0 && skipped != 0 && head.skipped != nullptr) atomic_add(head.skipped, std::uint64_t{skipped});
  store_any(f.param, b.row.param, head.param_dtype, b.begin, b.n, lane, head.stochastic_rounding, c.param_key,
            b.start());
  const TensorScales scales =
      b.new_scales(largest_bits(f.exp_avg), largest_bits(f.root), Amsgrad ? largest_bits(f.max_root) : 0u);
  store_moments<Singles, Amsgrad>(f, scales, b, {c.state_key, group_key(c.state_key, 0)}, t);
}

template <class P, class G, bool Amsgrad, class Row>
struct Step8 {
  using Share = typename Widest<P::size == 2 && G::size == 2>::Share;
  const LaunchHead &head;
  const Row *rows;
  const Tables &tables;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.enter(head, rows[row], row); }

  ADAMW_DEVICE void item(std::int64_t block) {
    std::int64_t begin;
    if (!mine.common(block, &begin) || !step(make_block(head, rows, mine.number, block, {begin, block_size}, lane))) {
      any_block8<Amsgrad>(head, rows, mine.number, block, tables);
    }
  }

 private:
  // False, with nothing written, if an element must be skipped or is out of quick.h's range.
  ADAMW_DEVICE bool step(const Block &b) {
    const OldScales old = b.old_scales();
    float p[each], g[each];
    std::uint32_t m[2], r[2], x[2];
    load_floats<P, Share>(p, b.row.param, b.begin, block_size, lane);
    load_floats<G, Share>(g, b.row.grad, b.begin, block_size, lane);
    load_codes<Share>(m, b.row.exp_avg, b.begin, block_size, lane, 0);
    load_codes<Share>(r, b.row.exp_avg_sq, b.begin, block_size, lane, 0);
    if (Amsgrad) load_codes<Share>(x, b.max_root, b.begin, block_size, lane, 0);
    const Coefficients c = mine.c;
    Fresh f;
    InRange range;
    for (int j = 0; j < each; ++j) {
      const float root = value_at(tables.unsigned_value, r, j) * old.root;
      const Stepped<Quick> s = step_element8<Amsgrad, false, Quick>(
          p[j], g[j], value_at(tables.signed_value, m, j) * old.exp_avg, root,
          Amsgrad ? value_at(tables.unsigned_value, x, j) * old.max_root : root, c, false);
      range.see_lowest(s.exp_avg.x, s.exp_avg_sq.x);
      f.param[j] = s.param.x;
      f.exp_avg[j] = s.exp_avg.x;
      f.root[j] = s.root.x;
      if (Amsgrad) f.max_root[j] = s.max_root.x;
    }
    const std::uint32_t largest_root = largest_bits(Amsgrad ? f.max_root : f.root), largest_m = largest_bits(f.exp_avg);
    if (largest_root > bits(0x1p10f) || largest_m > bits(0x1p20f) || any(!range.all())) return false;
    store_params<P, Share>(f.param, b.row.param, b.begin, block_size, lane, head.stochastic_rounding, c.param_key,
                           b.start());
    const TensorScales scales =
        b.new_scales(largest_m, Amsgrad ? largest_bits(f.root) : largest_root, Amsgrad ? largest_root : 0u);
    store_moments<Share, Amsgrad>(f, scales, b, {c.state_key, mine.state_group}, tables);
    return true;
  }
};

// ---- 32-bit state ----

template <class V, class P, class G, class Share, bool Amsgrad>
ADAMW_DEVICE bool step_block32(const Block &b, const Coefficients &c) {
  constexpr bool any_dtype = Share::run == 1, quick = !any_dtype;
  float p[each], g[each], m[each], v[each], x[each];
  if constexpr (any_dtype) {
    load_any(p, b.row.param, b.head.param_dtype, b.begin, b.n, b.lane);
    load_any(g, b.row.grad, b.head.grad_dtype, b.begin, b.n, b.lane);
  } else {
    load_floats<P, Share>(p, b.row.param, b.begin, b.n, b.lane);
    load_floats<G, Share>(g, b.row.grad, b.begin, b.n, b.lane);
  }
  load_floats<Float32, Share>(m, b.row.exp_avg, b.begin, b.n, b.lane);
  load_floats<Float32, Share>(v, b.row.exp_avg_sq, b.begin, b.n, b.lane);
  if (Amsgrad) load_floats<Float32, Share>(x, b.max_root, b.begin, b.n, b.lane);
  InRange range;
  for (int j = 0; j < each; ++j) {
    const Stepped<V> s =
        step_element32<Amsgrad, V>(p[j], g[j], m[j], v[j], Amsgrad ? x[j] : 0.0f, c, b.head.skip_zeros);
    p[j] = as_float(s.param);
    m[j] = as_float(s.exp_avg);
    v[j] = as_float(s.root);
    if (Amsgrad) x[j] = as_float(s.max_root);
    if (quick) {
      range.see_lowest(m[j], Amsgrad ? x[j] : v[j]);
      range.see_highest(m[j], Amsgrad ? x[j] : v[j]);
    }
  }
  if (quick && any(!range.all())) return false;
  if constexpr (any_dtype) {
    store_any(p, b.row.param, b.head.param_dtype, b.begin, b.n, b.lane, b.head.stochastic_rounding, c.param_key,
              b.start());
  } else {
    store_params<P, Share>(p, b.row.param, b.begin, b.n, b.lane, b.head.stochastic_rounding, c.param_key, b.start());
  }
  store_float32<Share>(m, b.row.exp_avg, b.begin, b.n, b.lane);
  store_float32<Share>(v, b.row.exp_avg_sq, b.begin, b.n, b.lane);
  if (Amsgrad) store_float32<Share>(x, b.max_root, b.begin, b.n, b.lane);
  return true;
}

template <bool Amsgrad, class Row>
ADAMW_NOINLINE void any_block32(const LaunchHead &head, const Row *rows, int number, std::int64_t block) {
  const Block b = make_block(head, rows, number, block, rows[number].blocks().place(block), lane_id());
  step_block32<float, Float32, Float32, Singles, Amsgrad>(b, row_coefficients(head, rows[number], number));
}

template <class P, class G, bool Amsgrad, class Row>
struct Step32 {
  const LaunchHead &head;
  const Row *rows;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.enter(head, rows[row], row); }

  ADAMW_DEVICE void item(std::int64_t block) {
    std::int64_t begin;
    if (!mine.common(block, &begin) ||
        !step_block32<Quick, P, G, Fours, Amsgrad>(
            make_block(head, rows, mine.number, block, {begin, block_size}, lane), mine.c)) {
      any_block32<Amsgrad>(head, rows, mine.number, block);
    }
  }
};

template <class A, class B>
struct Same {
  static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
  static constexpr bool value = true;
};

// For kernels that know no dtypes.
template <bool Amsgrad, bool Eight, class Row>
struct StepAny {
  const LaunchHead &head;
  const Row *rows;
  const Tables *tables;  // null for 32-bit state
  int number = 0;

  ADAMW_DEVICE void enter(int row) { number = row; }
  ADAMW_DEVICE void item(std::int64_t block) {
    if constexpr (Eight) {
      any_block8<Amsgrad>(head, rows, number, block, *tables);
    } else {
      any_block32<Amsgrad>(head, rows, number, block);
    }
  }
};

template <class P, class G, bool Amsgrad, class Table>
ADAMW_DEVICE void step8(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  using Row = typename Table::RowType;
  Tables &t = tables();
  WarpRow &mine = t.rows[warp_id()];
  mine.span = {0, 0};
  if constexpr (Same<P, Any>::value) {
    StepAny<Amsgrad, true, Row> body{table.head, table.rows, &t};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  } else {
    Step8<P, G, Amsgrad, Row> body{table.head, table.rows, t, mine, lane_id()};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  }
}

template <class P, class G, bool Amsgrad, class Table>
ADAMW_DEVICE void step32(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  using Row = typename Table::RowType;
  WarpRow &mine = shared<WarpRows>().rows[warp_id()];
  mine.span = {0, 0};
  if constexpr (Same<P, Any>::value) {
    StepAny<Amsgrad, false, Row> body{table.head, table.rows, nullptr};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  } else {
    Step32<P, G, Amsgrad, Row> body{table.head, table.rows, mine, lane_id()};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  }
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
