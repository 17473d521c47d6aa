// Owns the CUDA backend: how the rows of a step are cut into launches, and its working memory. Knows no arithmetic on
// elements.
#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "../lease.h"
#include "../status.h"
#include "apart.h"
#include "kernel_choice.h"
#include "launch.h"
#include "part_row.h"

namespace adamw {
namespace gpu {
namespace {

constexpr const char *step_name = "adamw_step";

// The place of `value` among the first *count of `all`, where it is added if it is new; -1 if there is no room for it.
template <class T, int room>
int place_among(T (&all)[room], int *count, const T &value) {
  int at = 0;
  while (at < *count && std::memcmp(&all[at], &value, sizeof value) != 0) ++at;
  if (at == room) return -1;
  if (at == *count) all[(*count)++] = value;
  return at;
}

// A step, launch by launch.
template <class Table>
class StepRun {
 public:
  StepRun(const StepPlan &plan, const Launcher &launcher) : plan_(plan), launcher_(launcher) {}

  adamw_status go() {
    bool any_in_runs = false;
    for (const Row *row = plan_.rows; row < plan_.rows + plan_.count; ++row) {
      if (row->blocks.count > max_items) {
        return fail(ADAMW_ERROR_UNSUPPORTED,
                    "%s: tensor %lld: it has %lld blocks of %d elements, but a GPU steps at most %lld", step_name,
                    static_cast<long long>(row->number), static_cast<long long>(row->blocks.count), block_size,
                    static_cast<long long>(max_items));
      }
      any_in_runs = any_in_runs || is_in_runs(plan_.kind, *row);
    }
    clips_ = plan_.percentile_clipping < 100;
    measures_ = plan_.measures();
    const StepKernels kernels(plan_.kind);
    if (adamw_status s = launcher_.state.kernel(step_name, *kernels.step, &step_)) return s;
    if (any_in_runs) {
      if (adamw_status s = launcher_.state.kernel(step_name, *kernels.in_runs, &step_in_runs_)) return s;
    }
    if (measures_) {
      if (adamw_status s = launcher_.state.kernel(step_name, *kernels.measure, &measure_)) return s;
    }
    if (clips_) {
      if (adamw_status s = launcher_.state.kernel(step_name, *find_kernel("adamw_norms"), &norms_)) return s;
    }
    if (clips_) norm_table_.emplace();
    fill_head();
    if (plan_.windows != nullptr) return go_in_windows();
    take(plan_.rows, plan_.count);
    for (std::int64_t first = 0; first < count_; first = *plan_.rows_done) {
      std::int64_t last = first;
      if (adamw_status s = run(first, &last)) return s;
      *plan_.rows_done = last;
    }
    return ADAMW_OK;
  }

 private:
  // The rows that launches are made of from now on.
  void take(const Row *rows, std::int64_t count) {
    rows_ = rows;
    count_ = count;
  }

  // Norms are of whole gradients, which are there; state comes part by part. Nothing else is measured here.
  adamw_status go_in_windows() {
    Workspace results(launcher_.state, launcher_.stream);
    if (clips_) {
      if (adamw_status s = results.get(step_name, static_cast<std::size_t>(plan_.count) * sizeof(RowResult))) return s;
      if (adamw_status s = clip_all(results.at<RowResult>(0))) return s;
    }
    const auto body = [&](const Part *parts, std::int64_t count) {
      parts_.clear();
      for (const Part *p = parts; p < parts + count; ++p) parts_.push_back(part_row(plan_.kind, *p));
      take(parts_.data(), count);
      for (std::int64_t first = 0; first < count;) {
        const std::int64_t last = fill_rows(first);
        table_->head.clipped = clips_;
        table_->head.measured = false;
        // Rows follow each other in a window, and each is there once.
        table_->head.results = clips_ ? results.at<RowResult>(0) + parts[first].index : nullptr;
        if (adamw_status s = launch_step(first, last)) return s;
        first = last;
      }
      return ADAMW_OK;
    };
    if (adamw_status s = plan_.windows->sweep(true, body)) return s;
    return results.give_back(step_name);
  }

  // The factors of all rows of the call.
  adamw_status clip_all(RowResult *results) {
    take(plan_.rows, plan_.count);
    for (std::int64_t first = 0; first < count_;) {
      const std::int64_t last = fill_rows(first), all = number(table_->rows, first, last, segments_in);
      Workspace squares(launcher_.state, launcher_.stream);
      if (adamw_status s = squares.get(step_name, static_cast<std::size_t>(all) * sizeof(double))) return s;
      table_->head.results = results + first;
      if (adamw_status s = clip(first, last, all, squares.at<double>(0))) return s;
      if (adamw_status s = squares.give_back(step_name)) return s;
      first = last;
    }
    return ADAMW_OK;
  }

  static std::int64_t segments_in(const Row &row) { return segments_of(row.blocks.count).count; }

  void fill_head() {
    LaunchHead &h = table_->head = LaunchHead{};
    h.hyperparameters = plan_.hyperparameters;
    h.lr = plan_.lr;
    h.grad_scale = plan_.grad_scale;
    h.grad_factor = plan_.grad_factor;
    h.found_inf = plan_.found_inf;
    h.skipped = reinterpret_cast<std::uint64_t *>(plan_.skipped);
    h.max_unorm = plan_.max_unorm;
    h.param_dtype = plan_.kind.param_dtype;
    h.grad_dtype = plan_.kind.grad_dtype;
    h.remainder_bits = plan_.kind.remainder_bits;
    h.stochastic_rounding = plan_.kind.rounds_params();
    h.skip_zeros = plan_.kind.skip_zeros;
    h.tensorwise = traits(plan_.kind.state_format).is_measured();
  }

  // Takes rows from `first` on, as many as one launch carries: all in runs, or none.
  std::int64_t fill_rows(std::int64_t first) {
    LaunchHead &h = table_->head;
    h.on_device = plan_.lr != nullptr;
    int sets = 0, run_sets_used = 0;
    in_runs_ = is_in_runs(plan_.kind, rows_[first]);
    std::int64_t steps[coefficient_sets], i = first, items = 0;
    for (; i < count_ && i - first < Table::capacity && (!clips_ || i - first < NormTable::capacity); ++i) {
      const Row &row = rows_[i];
      items += row.blocks.count;
      if (items > max_items || is_in_runs(plan_.kind, row) != in_runs_) break;
      const int before = sets, set = place_among(steps, &sets, row.tensor.step),
                runs = in_runs_ ? place_among(h.runs, &run_sets_used, row.runs) : 0;
      if (set < 0 || runs < 0) break;
      if (set == before) h.sets[set] = row.coefficients;
      h.on_device = h.on_device || row.tensor.step_tensor != nullptr;
      fill_row(table_->rows[i - first], row, set, runs);
    }
    h.rows = static_cast<std::int32_t>(i - first);
    return i;
  }

  void fill_row(LaunchRow &out, const Row &row, int set, int runs) const {
    const adamw_tensor &t = row.tensor;
    out.param = t.param;
    out.grad = t.grad;
    out.exp_avg = t.exp_avg;
    out.exp_avg_sq = t.exp_avg_sq;
    out.exp_avg_absmax = t.exp_avg_absmax;
    out.exp_avg_sq_absmax = t.exp_avg_sq_absmax;
    out.exp_avg_sq_floor = t.exp_avg_sq_floor;
    out.param_remainder = plan_.kind.remainder_bits != 0 ? t.param_remainder : nullptr;
    out.numel = t.numel;
    out.row_length = t.row_length;
    out.global_offset = t.global_offset;
    out.step = t.step_tensor;
    out.set = static_cast<std::uint8_t>(set);
    out.runs = static_cast<std::uint8_t>(runs);
    out.aligned = is_aligned(plan_.kind, row) ? 1 : 0;
  }
  void fill_row(AmsgradRow &out, const Row &row, int set, int runs) const {
    fill_row(static_cast<LaunchRow &>(out), row, set, runs);
    out.max_exp_avg_sq = row.tensor.max_exp_avg_sq;
    out.max_exp_avg_sq_absmax = row.tensor.max_exp_avg_sq_absmax;
    out.max_exp_avg_sq_floor = row.tensor.max_exp_avg_sq_floor;
  }

  // Numbers the rows' items: blocks, or segments.
  template <class Rows, class Count>
  std::int64_t number(Rows &rows, std::int64_t first, std::int64_t last, const Count &count) const {
    std::int64_t items = 0;
    for (std::int64_t i = first; i < last; ++i) {
      items += count(rows_[i]);
      rows[i - first].end = static_cast<std::uint32_t>(items);
    }
    return items;
  }

  adamw_status run(std::int64_t first, std::int64_t *last) {
    *last = fill_rows(first);
    LaunchHead &h = table_->head;
    Workspace workspace(launcher_.state, launcher_.stream);
    h.clipped = h.measured = false;
    h.results = nullptr;
    if (clips_ || measures_) {
      const std::int64_t all = number(table_->rows, first, *last, segments_in);
      const std::size_t results = static_cast<std::size_t>(h.rows) * sizeof(RowResult),
                        part = static_cast<std::size_t>(all) * std::max(sizeof(Measures), sizeof(double));
      if (adamw_status s = workspace.get(step_name, part + results)) return s;
      h.results = workspace.at<RowResult>(part);
      if (clips_) {
        if (adamw_status s = clip(first, *last, all, workspace.at<double>(0))) return s;
        h.clipped = true;
      }
      if (measures_) {
        h.items = all;
        h.measures = workspace.at<Measures>(0);
        if (adamw_status s = launcher_.launch(step_name, measure_, all, *table_)) return s;
        h.measured = true;
      }
    }
    if (adamw_status s = launch_step(first, *last)) return s;
    return workspace.give_back(step_name);
  }

  adamw_status launch_step(std::int64_t first, std::int64_t last) {
    LaunchHead &h = table_->head;
    h.items = number(table_->rows, first, last, [](const Row &row) { return row.blocks.count; });
    const LoadedKernel &kernel = in_runs_ ? step_in_runs_ : step_;
    // See over_items(): 0 where rows are long, else as many as let all multiprocessors end together.
    const std::int64_t all_warps = kernel.warps() * kernel.resident, each = h.items / (16 * all_warps);
    h.rounds = h.items / h.rows >= 8 * all_warps
                   ? 0
                   : static_cast<std::int32_t>(std::clamp<std::int64_t>(each, 1, max_rounds));
    return launcher_.launch(step_name, kernel, divide_up(h.items, std::max(h.rounds, 1)), *table_);
  }

  adamw_status clip(std::int64_t first, std::int64_t last, std::int64_t segments, double *squares) {
    NormTable &t = **norm_table_;
    t.head = {plan_.grad_scale, plan_.grad_factor, plan_.found_inf,         table_->head.results,     squares,
              segments,         table_->head.rows, table_->head.grad_dtype, plan_.percentile_clipping};
    for (std::int64_t i = first; i < last; ++i) {
      const adamw_tensor &from = rows_[i].tensor;
      t.rows[i - first] = {from.grad,  from.gnorm_history, from.step_tensor, table_->rows[i - first].end,
                           from.numel, from.row_length,    from.step};
    }
    return launcher_.launch(step_name, norms_, segments, t);
  }

  const StepPlan &plan_;
  const Launcher &launcher_;
  bool clips_ = false, measures_ = false;
  bool in_runs_ = false;  // the rows of the table
  const Row *rows_ = nullptr;
  std::int64_t count_ = 0;
  std::vector<Row> parts_;  // of a window
  LoadedKernel step_{}, step_in_runs_{}, measure_{}, norms_{};
  Lease<Table> table_;  // 32 KB, which keep what the last call left there: they are not made and zeroed each time
  std::optional<Lease<NormTable>> norm_table_;
};

adamw_status step(const StepPlan &plan) {
  return on_device(step_name, plan.device, plan.stream, [&](const Launcher &launcher) {
    return plan.kind.amsgrad ? StepRun<AmsgradTable>(plan, launcher).go() : StepRun<PlainTable>(plan, launcher).go();
  });
}

adamw_status check_device(const char *function, std::int32_t device) {
  DeviceState *state = nullptr;
  return device_state(function, device, &state);
}

}  // namespace
}  // namespace gpu

const Backend cuda_backend = {"cuda",     gpu::check_device, gpu::step, gpu::quantize,   gpu::dequantize,
                              gpu::split, gpu::join,         gpu::norm, gpu::clip_factor};

}  // namespace adamw
