// Owns the law that a call is refused for an overlap if and only if two of its buffers overlap, one of which it writes,
// as comparing all pairs finds it; in any order of calls, however little a table differs from the one before.
#include <vector>

#include "model.h"

namespace {

constexpr std::int64_t arena_bytes = 1 << 16;

struct Stretch {
  std::int64_t begin, end;
  bool written;
};

struct Table {
  adamw_step_options options = step_options();
  std::vector<adamw_tensor> rows;
};

class World {
 public:
  explicit World(std::uint64_t seed) : arena_(arena_bytes / 8), random_(seed) {
    for (int i = 0; i < 3; ++i) tables_.push_back(fresh_table());
  }

  void go(int calls) {
    int stepped = 0;
    for (int call = 0; call < calls; ++call) {
      Table &table = tables_[random_.bits() % tables_.size()];
      const Table before = table;
      if (random_.below(3) > 0) change(table);
      const bool right = pairs_are_right(table);
      for (std::uint64_t &word : arena_) word = 0x3C003C003C003C00u;  // numbers around 0.01 or 1 of every dtype
      const std::vector<std::uint64_t> contents = arena_;
      const adamw_status got = adamw_step(&table.options, table.rows.data(), sizeof(adamw_tensor),
                                          static_cast<std::int64_t>(table.rows.size()));
      CHECK((got == ADAMW_OK) == right, "call %d: %s (%s), but the pairs are %s", call, adamw_status_string(got),
            adamw_last_error(), right ? "right" : "wrong");
      CHECK(right || arena_ == contents, "call %d: refused, but something was written", call);
      if (!right && random_.below(4) > 0) table = before;
      if (!right && random_.below(8) == 0) table = fresh_table();
      stepped += right ? 1 : 0;
    }
    CHECK(stepped > calls / 4 && stepped < calls * 9 / 10, "%d of %d calls were right", stepped, calls);
  }

 private:
  void *place(std::int64_t byte) { return reinterpret_cast<char *>(arena_.data()) + byte; }
  void *anywhere() { return place(random_.below(arena_bytes / 4 - 1000) * 4); }

  // Buffers one behind the other, with the options of most need.
  Table fresh_table() {
    Table table;
    std::int64_t next = random_.below(1000) * 4;
    const auto take = [&](std::int64_t bytes) {
      next += (bytes + 3) / 4 * 4 + random_.below(3) * 4;
      return place(next - (bytes + 3) / 4 * 4);
    };
    for (int i = 0, count = 8 + random_.below(5); i < count; ++i) {
      adamw_tensor t{};
      t.numel = t.row_length = 1 + random_.below(40);
      t.step = 1;
      t.param = take(t.numel * 4);
      t.grad = take(t.numel * 4);
      for (void **moment : {&t.exp_avg, &t.exp_avg_sq, &t.max_exp_avg_sq}) *moment = take(t.numel * 4);
      for (float **scales : {&t.exp_avg_absmax, &t.exp_avg_sq_absmax, &t.max_exp_avg_sq_absmax, &t.exp_avg_sq_floor,
                             &t.max_exp_avg_sq_floor})
        *scales = static_cast<float *>(take(4));
      t.gnorm_history = static_cast<float *>(take(ADAMW_GNORM_HISTORY * 4));
      t.param_remainder = take(t.numel * 2);
      table.rows.push_back(t);
    }
    return table;
  }

  void change(Table &table) {
    adamw_step_options &o = table.options;
    adamw_tensor &t = table.rows[random_.bits() % table.rows.size()],
                 &other = table.rows[random_.bits() % table.rows.size()];
    switch (random_.below(16)) {
      case 0:
        t.param = anywhere();
        break;
      case 1:
        t.exp_avg = anywhere();
        break;
      case 2:
        t.exp_avg_sq_absmax = static_cast<float *>(anywhere());
        break;
      case 3:
        t.max_exp_avg_sq = anywhere();
        break;
      case 4:
        t.numel = t.row_length = random_.below(60);
        break;
      case 5:
        std::swap(t, other);
        break;
      case 6:
        if (table.rows.size() > 8) table.rows.pop_back();
        break;
      case 7: {
        adamw_tensor added = t;
        for (void **p : {&added.param, &added.exp_avg, &added.exp_avg_sq, &added.max_exp_avg_sq}) *p = anywhere();
        for (float **p : {&added.exp_avg_absmax, &added.exp_avg_sq_absmax, &added.max_exp_avg_sq_absmax,
                          &added.exp_avg_sq_floor, &added.max_exp_avg_sq_floor})
          *p = static_cast<float *>(anywhere());
        added.gnorm_history = static_cast<float *>(anywhere());
        added.param_remainder = anywhere();
        added.numel = added.row_length = 1;
        if (table.rows.size() < 14) table.rows.push_back(added);
        break;
      }
      case 8:
        o.param_dtype = random_.below(3);
        o.remainder_bits = o.param_dtype == ADAMW_BFLOAT16 ? random_.below(3) * 8 : 0;
        break;
      case 9:
        o.state_format = random_.below(4);
        o.flags = random_.below(2) == 0 ? 0 : std::uint32_t{ADAMW_STEP_AMSGRAD};
        break;
      case 10:
        o.percentile_clipping = random_.below(2) == 0 ? 100 : 50;
        o.grad_dtype = random_.below(3);
        break;
      case 11:
        t.exp_avg_sq_floor = static_cast<float *>(anywhere());
        break;
      case 12:
        t.param_remainder = anywhere();
        break;
      default:  // as a rule
        t.grad = anywhere();
    }
  }

  bool pairs_are_right(const Table &table) const {
    const adamw_step_options &o = table.options;
    std::vector<Stretch> all;
    for (const adamw_tensor &t : table.rows) {
      adamw_state_layout layout;
      CHECK(adamw_get_state_layout(static_cast<adamw_state_format>(o.state_format), t.numel, t.row_length, 1,
                                   o.remainder_bits, &layout) == ADAMW_OK,
            "layout");
      const auto add = [&](const void *pointer, std::int64_t bytes, bool written) {
        const std::int64_t begin = static_cast<const char *>(pointer) - reinterpret_cast<const char *>(arena_.data());
        if (bytes > 0) all.push_back({begin, begin + bytes, written});
      };
      const auto size = [](std::int32_t dtype) {
        return static_cast<std::int64_t>(size_of(static_cast<adamw_dtype>(dtype)));
      };
      const std::int64_t third = (o.flags & ADAMW_STEP_AMSGRAD) != 0 ? 1 : 0;
      add(t.param, t.numel * size(o.param_dtype), true);
      add(t.grad, t.numel * size(o.grad_dtype), false);
      add(t.param_remainder, layout.remainder_bytes, true);
      add(t.exp_avg, layout.moment_bytes, true);
      add(t.exp_avg_sq, layout.moment_bytes, true);
      add(t.max_exp_avg_sq, layout.moment_bytes * third, true);
      add(t.exp_avg_absmax, layout.absmax_count * 4, true);
      add(t.exp_avg_sq_absmax, layout.absmax_count * 4, true);
      add(t.max_exp_avg_sq_absmax, layout.absmax_count * 4 * third, true);
      add(t.exp_avg_sq_floor, layout.floor_count * 4, true);
      add(t.max_exp_avg_sq_floor, layout.floor_count * 4 * third, true);
      if (o.percentile_clipping < 100 && t.numel > 0) add(t.gnorm_history, ADAMW_GNORM_HISTORY * 4, true);
    }
    for (std::size_t i = 0; i < all.size(); ++i) {
      for (std::size_t k = 0; k < i; ++k) {
        const bool apart = all[i].end <= all[k].begin || all[k].end <= all[i].begin;
        if (!apart && (all[i].written || all[k].written)) return false;
      }
    }
    return true;
  }

  std::vector<std::uint64_t> arena_;
  Random random_;
  std::vector<Table> tables_;
};

}  // namespace

int main() {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) World(seed).go(abridged ? 1000 : 5000);
  return finish();
}
