// Owns the step of a block by a warp: every byte is read once and written once. Knows nothing of launches.
#pragma once

#include "block.h"

namespace adamw {
namespace gpu {
namespace {

// ---- 8-bit state ----

// A lane's new moments before they are rounded. F: float, or Quick for what is in its range.
template <class F>
struct Fresh {
  F exp_avg[each], root[each], max_root[each];
};

ADAMW_DEVICE std::uint32_t warp_sum(std::uint32_t x) {
  for (unsigned mask = 16; mask != 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}

// The moments become codes, and are stored.
template <class Share, bool Amsgrad, class F>
ADAMW_DEVICE void store_moments(const Fresh<F> &fresh, const TensorScales &scales, const Block &b, const Words &words,
                                const Tables &t) {
  std::uint32_t word[each], m[each], r[each], x[each];
  words.template fill<Share>(word, b.start(), b.lane);
  for (int j = 0; j < each; ++j) {
    const std::uint32_t noise = noise_of(word[j]);
    m[j] = encode_signed(as_float(fresh.exp_avg[j]), scales.exp_avg.inverse, noise, t.signed_lines);
    r[j] = encode_unsigned(fresh.root[j], F(scales.root.inverse), noise, t.unsigned_lines);
    if (Amsgrad) x[j] = encode_unsigned(fresh.max_root[j], F(scales.max_root.inverse), 0u, t.unsigned_lines);
  }
  store_codes<Share>(m, b.row.exp_avg, b.begin, b.n, b.lane);
  store_codes<Share>(r, b.row.exp_avg_sq, b.begin, b.n, b.lane);
  if (Amsgrad) store_codes<Share>(x, b.max_root, b.begin, b.n, b.lane);
}

// Any block: short, misaligned, with elements to skip. One function for all dtypes, and not the common case.
template <bool Amsgrad, class Table>
ADAMW_NOINLINE void any_block8(const Table &table, int number, std::uint32_t block) {
  const LaunchHead &head = table.head;
  const auto *rows = table.rows;
  const Tables &t = shared<Tables>();
  const unsigned lane = lane_id();
  const Coefficients c = row_coefficients(head, rows[number], number);
  const Factors8 f = factors8(c);
  const Block b = make_block(head, rows, number, block, rows[number].blocks().place(block), lane);
  const OldScales scale = b.old_scales(head.tensorwise);
  const OldFactors old = old_factors(f, scale.exp_avg, scale.root);
  float p[each], g[each];
  std::uint32_t m[2], r[2], x[2] = {0, 0};
  load_any(p, b.row.param, head.param_dtype, b.begin, b.n, lane);
  load_any(g, b.row.grad, head.grad_dtype, b.begin, b.n, lane);
  load_codes<Singles>(m, b.row.exp_avg, b.begin, b.n, lane, 127);
  load_codes<Singles>(r, b.row.exp_avg_sq, b.begin, b.n, lane, 0);
  if (Amsgrad) load_codes<Singles>(x, b.max_root, b.begin, b.n, lane, 0);
  Fresh<float> fresh;
  std::uint32_t skipped = 0;
  for (int j = 0; j < each; ++j) {
    const float value = value_at(t.signed_value, m, j), root_value = value_at(t.unsigned_value, r, j);
    const float old_x = Amsgrad ? value_at(t.unsigned_value, x, j) * scale.max_root : 0.0f;
    const Moments<float> next = update_moments8(value, value_at(t.unsigned_square, r, j), g[j], f, old);
    skipped += next.exp_avg_sq <= largest_float ? 0u : 1u;
    if (steps8(next.exp_avg_sq, g[j], head.skip_zeros)) {
      fresh.exp_avg[j] = next.exp_avg;
      fresh.root[j] = sqrt(next.exp_avg_sq);
      fresh.max_root[j] = Amsgrad ? maximum(old_x, fresh.root[j]) : fresh.root[j];
      p[j] = update_param8(p[j], fresh.exp_avg[j], fresh.max_root[j], f);
    } else {
      fresh.exp_avg[j] = value * scale.exp_avg;
      fresh.root[j] = root_value * scale.root;
      fresh.max_root[j] = old_x;
    }
  }
  skipped = warp_sum(skipped);
  if (lane == 0 && skipped != 0 && head.skipped != nullptr) atomic_add(head.skipped, std::uint64_t{skipped});
  store_any(p, b.row.param, head.param_dtype, b.begin, b.n, lane, head.stochastic_rounding, c.param_key, b.start());
  const TensorScales scales =
      b.new_scales<float>(head.tensorwise, largest_bits(fresh.exp_avg), largest_bits(fresh.root),
                          Amsgrad ? largest_bits(fresh.max_root) : 0u);
  store_moments<Singles, Amsgrad>(fresh, scales, b, {c.state_key, group_key(c.state_key, 0)}, t);
}

// The bits of a warp's largest number, of such as are not negative.
ADAMW_DEVICE std::uint32_t largest_root_bits(const Quick *x) {
  std::uint32_t largest = 0;
  for (int j = 0; j < each; ++j) largest = larger(largest, bits(x[j].x));
  return warp_max(largest);
}

template <class P, class G, bool Amsgrad, class Table>
struct Step8 {
  using Share = typename Widest<P::size == 2 && G::size == 2>::Share;
  const Table &table;
  const Tables &tables;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.template enter<true>(table.head, table.rows[row], row); }

  ADAMW_DEVICE void item(std::uint32_t block) {
    mine.item(
        block,
        [&](std::int64_t begin) {
          return step(make_block(table.head, table.rows, mine.number, block, {begin, block_size}, lane));
        },
        [&] { any_block8<Amsgrad>(table, mine.number, block); });
  }

 private:
  // False, with nothing written, if an element must be skipped or is out of quick.h's range.
  ADAMW_DEVICE bool step(const Block &b) {
    float p[each], g[each];
    std::uint32_t m[2], r[2], x[2];
    const OldScales scale = b.old_scales(false);
    load_codes<Share>(m, b.row.exp_avg, b.begin, block_size, lane, 0);
    load_codes<Share>(r, b.row.exp_avg_sq, b.begin, block_size, lane, 0);
    if (Amsgrad) load_codes<Share>(x, b.max_root, b.begin, block_size, lane, 0);
    load_floats<G, Share>(g, b.row.grad, b.begin, block_size, lane);
    load_floats<P, Share>(p, b.row.param, b.begin, block_size, lane);
    const Factors8 f = mine.f;
    const OldFactors old = old_factors(f, scale.exp_avg, scale.root);
    Fresh<Quick> fresh;
    InRange8 range;
    float largest_m = 0.0f;
    for (int j = 0; j < each; ++j) {
      const Moments<float> next =
          update_moments8(value_at(tables.signed_value, m, j), value_at(tables.unsigned_square, r, j), g[j], f, old);
      range.v.see(next.exp_avg_sq);
      fresh.exp_avg[j] = next.exp_avg;
      fresh.root[j] = sqrt(Quick(next.exp_avg_sq));
      largest_m = max(largest_m, absolute(next.exp_avg));
      if (Amsgrad) {
        fresh.max_root[j] = maximum(Quick(value_at(tables.unsigned_value, x, j) * scale.max_root), fresh.root[j]);
      }
      p[j] = update_param8(Quick(p[j]), fresh.exp_avg[j], Amsgrad ? fresh.max_root[j] : fresh.root[j], f).x;
    }
    for (int j = 0; j < each; ++j) range.m.see(fresh.exp_avg[j].x);
    const std::uint32_t largest_r = largest_root_bits(fresh.root), all_m = warp_max(bits(largest_m)),
                        largest_x = Amsgrad ? largest_root_bits(fresh.max_root) : 0u;
    if (any(!range.all(largest_m, Amsgrad ? largest_x : largest_r))) return false;
    if (!has_quick_inverse(all_m) || !has_quick_inverse(largest_r)) return false;
    if (Amsgrad && (!has_quick_inverse(largest_x) || (scale.max_root != 0.0f && scale.max_root < 0x1p-60f)))
      return false;
    store_params<P, Share>(p, b.row.param, b.begin, block_size, lane, b.head.stochastic_rounding, mine.c.param_key,
                           b.start());
    store_moments<Share, Amsgrad>(fresh, b.new_scales<Quick>(false, all_m, largest_r, largest_x), b,
                                  {mine.c.state_key, mine.state_group}, tables);
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
  InRange32 range;
  for (int j = 0; j < each; ++j) {
    const Stepped<V> s =
        step_element32<Amsgrad, V>(p[j], g[j], m[j], v[j], Amsgrad ? x[j] : 0.0f, c, b.head.skip_zeros);
    p[j] = as_float(s.param);
    m[j] = as_float(s.exp_avg);
    v[j] = as_float(s.exp_avg_sq);
    if (Amsgrad) x[j] = as_float(s.max_exp_avg_sq);
    if (quick) range.see(m[j], Amsgrad ? x[j] : v[j]);
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

template <bool Amsgrad, class Table>
ADAMW_NOINLINE void any_block32(const Table &table, int number, std::uint32_t block) {
  const LaunchHead &head = table.head;
  const auto *rows = table.rows;
  const Block b = make_block(head, rows, number, block, rows[number].blocks().place(block), lane_id());
  step_block32<float, Float32, Float32, Singles, Amsgrad>(b, row_coefficients(head, rows[number], number));
}

template <class P, class G, bool Amsgrad, class Table>
struct Step32 {
  const Table &table;
  WarpRow &mine;
  unsigned lane;

  ADAMW_DEVICE void enter(int row) { mine.template enter<false>(table.head, table.rows[row], row); }

  ADAMW_DEVICE void item(std::uint32_t block) {
    mine.item(
        block,
        [&](std::int64_t begin) {
          return step_block32<Quick, P, G, Fours, Amsgrad>(
              make_block(table.head, table.rows, mine.number, block, {begin, block_size}, lane), mine.c);
        },
        [&] { any_block32<Amsgrad>(table, mine.number, block); });
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
template <bool Amsgrad, bool Eight, class Table>
struct StepAny {
  const Table &table;
  int number = 0;

  ADAMW_DEVICE void enter(int row) { number = row; }
  ADAMW_DEVICE void item(std::uint32_t block) {
    if constexpr (Eight) {
      any_block8<Amsgrad>(table, number, block);
    } else {
      any_block32<Amsgrad>(table, number, block);
    }
  }
};

template <class P, class G, bool Amsgrad, class Table>
ADAMW_DEVICE void step8(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  Tables &t = tables();
  WarpRow &mine = t.rows[warp_id()];
  mine.span = {};
  if constexpr (Same<P, Any>::value) {
    StepAny<Amsgrad, true, Table> body{table};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  } else {
    Step8<P, G, Amsgrad, Table> body{table, t, mine, lane_id()};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  }
}

template <class P, class G, bool Amsgrad, class Table>
ADAMW_DEVICE void step32(const Table &table) {
  if (found_inf(table.head.found_inf)) return;
  WarpRow &mine = shared<WarpRows>().rows[warp_id()];
  mine.span = {};
  if constexpr (Same<P, Any>::value) {
    StepAny<Amsgrad, false, Table> body{table};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  } else {
    Step32<P, G, Amsgrad, Table> body{table, mine, lane_id()};
    over_items(table.head.items, table.head.shift, table.rows, table.head.rows, mine.span, body);
  }
}

}  // namespace
}  // namespace gpu
}  // namespace adamw
