// Owns the CPU backend: which passes a step takes and how blocks are shared out over threads. Knows no arithmetic on
// elements.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "../status.h"
#include "apart.h"
#include "kernels.h"
#include "sharing.h"

namespace adamw {
namespace {

// The working memory of a step, all of it had before anything is written.
struct Scratch {
  std::vector<Part> whole;                // all rows, each as one part
  std::vector<std::int64_t> offsets;      // of the loop that runs
  std::vector<std::int64_t> segments{0};  // before each row
  std::vector<double> squares;            // per segment
  std::vector<float> norms;               // per row, squared: of its gradient
  std::vector<Measures> measures;         // per segment
  std::vector<PerMoment<Scale>> scales;   // per row

  Scratch(const StepPlan &plan, bool clips, bool measured) {
    const auto rows = static_cast<std::size_t>(plan.count);
    offsets.reserve(rows + 1);  // windows have no more parts
    whole.reserve(rows);
    for (std::int64_t i = 0; i < plan.count; ++i) whole.push_back({&plan.rows[i], i, 0, plan.rows[i].blocks.count});
    if (!clips && !measured) return;
    segments.reserve(rows + 1);
    for (std::int64_t i = 0; i < plan.count; ++i)
      segments.push_back(segments.back() + segments_of(plan.rows[i].blocks.count).count);
    if (clips) squares.resize(static_cast<std::size_t>(segments.back()));
    if (clips) norms.resize(rows);
    if (measured) measures.resize(static_cast<std::size_t>(segments.back()));
    if (measured) scales.resize(rows);
  }
};

// Calls body(parts, count) until it has had all rows: at once, or as they are brought in.
template <class Body>
adamw_status over_windows(const StepPlan &plan, const Scratch &scratch, bool written, const Body &body) {
  const auto go = [&](const Part *parts, std::int64_t count) {
    body(parts, count);
    return ADAMW_OK;
  };
  return plan.windows != nullptr ? plan.windows->sweep(written, go) : go(scratch.whole.data(), plan.count);
}

// The segment that begins at a block.
std::int64_t segment_at(const Segments &segments, std::int64_t block) {
  std::int64_t at = block / (segments.blocks / segments.count + 1);
  while (segments.begin(at) < block) ++at;
  return at;
}

// results[i] = body(row, first block, last block) for each segment i of some parts, which consist of whole segments.
template <class Result, class Body>
void over_segments(const Part *parts, std::int64_t count, int threads, Scratch &scratch, std::vector<Result> &results,
                   const Body &body) {
  std::vector<std::int64_t> &offsets = scratch.offsets;
  offsets.assign(1, 0);
  std::int64_t blocks = 0;
  for (const Part *p = parts; p < parts + count; ++p) {
    const Segments segments = segments_of(p->row->blocks.count);
    offsets.push_back(offsets.back() + segment_at(segments, p->last) - segment_at(segments, p->first));
    blocks += p->last - p->first;
  }
  const auto run = [&](std::int64_t part, std::int64_t first, std::int64_t last) {
    const Part &p = parts[part];
    const Segments segments = segments_of(p.row->blocks.count);
    const std::int64_t before = segment_at(segments, p.first);
    Result *out = results.data() + scratch.segments[static_cast<std::size_t>(p.index)];
    for (std::int64_t s = before + first; s < before + last; ++s) {
      out[s] = body(*p.row, segments.begin(s), segments.begin(s + 1));
    }
  };
  SharedLoop<decltype(run)>(offsets, 1, run).go(useful_threads(threads, blocks));
}

// ---- the passes of a step ----

// What a history of squared norms is after a step with this one.
void record_norm(float *history, std::int64_t step, float squares) {
  if (!std::isfinite(squares)) return;
  const bool empty = std::all_of(history, history + ADAMW_GNORM_HISTORY, [](float x) { return x == 0.0f; });
  if (empty || step == 1) {
    std::fill_n(history, ADAMW_GNORM_HISTORY, squares);
  } else {
    history[step % ADAMW_GNORM_HISTORY] = squares;
  }
}

// The factor that the gradient is scaled by (percentile clipping).
float clip_with(const float *history, std::int64_t step, float squares, int percentile) {
  if (!std::isfinite(squares)) return 1.0f;
  float sorted[ADAMW_GNORM_HISTORY];
  std::copy_n(history, ADAMW_GNORM_HISTORY, sorted);
  record_norm(sorted, step, squares);
  std::nth_element(sorted, sorted + percentile, sorted + ADAMW_GNORM_HISTORY);
  return clip_factor(squares, sorted[percentile]);
}

void clip_gradients(const Kernels &kernels, const StepPlan &plan, Scratch &scratch) {
  over_segments(scratch.whole.data(), plan.count, plan.threads, scratch, scratch.squares,
                [&](const Row &row, std::int64_t first, std::int64_t last) {
                  return kernels.gradient_squares(plan.kind, row, first, last);
                });
  for (std::int64_t i = 0; i < plan.count; ++i) {
    const auto k = static_cast<std::size_t>(i);
    const double *part = scratch.squares.data() + scratch.segments[k];
    Row &row = plan.rows[i];
    scratch.norms[k] = static_cast<float>(
        ordered_sum(scratch.segments[k + 1] - scratch.segments[k], [part](std::int64_t s) { return part[s]; }));
    row.coefficients.gradient_scale *=
        clip_with(row.tensor.gnorm_history, row.tensor.step, scratch.norms[k], plan.percentile_clipping);
  }
}

// Scales the rows' step sizes for max_unorm and finds the tensor-wise scales of the new moments.
adamw_status measure_rows(const Kernels &kernels, const StepPlan &plan, Scratch &scratch) {
  const auto measure = [&](const Part *parts, std::int64_t count) {
    over_segments(parts, count, plan.threads, scratch, scratch.measures,
                  [&](const Row &row, std::int64_t first, std::int64_t last) {
                    return kernels.measure(plan.kind, row, first, last);
                  });
  };
  if (adamw_status s = over_windows(plan, scratch, false, measure)) return s;
  for (std::int64_t i = 0; i < plan.count; ++i) {
    const Measures *part = scratch.measures.data() + scratch.segments[static_cast<std::size_t>(i)];
    const std::int64_t count =
        scratch.segments[static_cast<std::size_t>(i) + 1] - scratch.segments[static_cast<std::size_t>(i)];
    Measures all{};
    all.direction_squares = ordered_sum(count, [part](std::int64_t s) { return part[s].direction_squares; });
    all.param_squares = ordered_sum(count, [part](std::int64_t s) { return part[s].param_squares; });
    all.found = {nothing_found, nothing_found, nothing_found};
    for (std::int64_t s = 0; s < count; ++s) all.found = map_moments(true, both, all.found, part[s].found);
    if (traits(plan.kind.state_format).is_measured()) {
      scratch.scales[static_cast<std::size_t>(i)] = dispatch_scaled_format(plan.kind.state_format, [&](auto coding) {
        return decltype(coding)::Type::scales(plan.kind.amsgrad, all.found);
      });
    }
    Coefficients &c = plan.rows[i].coefficients;
    c.negative_step_size *= unorm_factor(all, c.bc1, plan.max_unorm);
  }
  return ADAMW_OK;
}

// What each row that has been stepped has beside its elements.
void note_rows(const StepPlan &plan, const Scratch &scratch, bool clips, bool tensorwise) {
  for (std::int64_t i = 0; i < *plan.rows_done; ++i) {
    const auto k = static_cast<std::size_t>(i);
    const adamw_tensor &t = plan.rows[i].tensor;
    if (clips) record_norm(t.gnorm_history, t.step, scratch.norms[k]);
    if (!tensorwise) continue;
    for_each_moment(
        plan.kind.amsgrad, [](const ScaleArrays &to, const Scale &scale) { to.put(0, scale); }, scales_of(t),
        scratch.scales[k]);
  }
}

adamw_status step(const StepPlan &plan) {
  const char *error;
  const Kernels *kernels = active_kernels(&error);
  if (kernels == nullptr) return fail(ADAMW_ERROR_UNSUPPORTED, "adamw_step: %s", error);
  if (plan.found_inf != nullptr && *plan.found_inf != 0.0f) {
    *plan.rows_done = plan.count;
    return ADAMW_OK;
  }
  if (plan.grad_scale != nullptr) {
    for (std::int64_t i = 0; i < plan.count; ++i) plan.rows[i].coefficients.gradient_scale /= *plan.grad_scale;
  }
  if (plan.grad_factor != nullptr) {
    for (std::int64_t i = 0; i < plan.count; ++i) plan.rows[i].coefficients.gradient_scale *= *plan.grad_factor;
  }
  const bool tensorwise = traits(plan.kind.state_format).is_measured(), clips = plan.percentile_clipping < 100;
  const bool measured = plan.measures();
  Scratch scratch(plan, clips, measured);
  if (clips) clip_gradients(*kernels, plan, scratch);
  if (measured) {
    if (adamw_status s = measure_rows(*kernels, plan, scratch)) return s;
  }

  std::atomic<std::int64_t> skipped{0};
  const auto step_parts = [&](const Part *parts, std::int64_t count) {
    scratch.offsets.assign(1, 0);
    for (const Part *p = parts; p < parts + count; ++p)
      scratch.offsets.push_back(scratch.offsets.back() + p->last - p->first);
    over_blocks(scratch.offsets, plan.threads, [&](std::int64_t i, std::int64_t first, std::int64_t last) {
      const Part &p = parts[i];
      const PerMoment<Scale> *given = tensorwise ? &scratch.scales[static_cast<std::size_t>(p.index)] : nullptr;
      const std::int64_t n = kernels->step(plan.kind, *p.row, given, p.first + first, p.first + last);
      if (n != 0) skipped.fetch_add(n, std::memory_order_relaxed);
    });
  };
  const adamw_status status = over_windows(plan, scratch, true, step_parts);
  if (plan.skipped != nullptr) *plan.skipped += skipped;
  if (status == ADAMW_OK) *plan.rows_done = plan.count;
  note_rows(plan, scratch, clips, tensorwise);
  return status;
}

adamw_status check_device(const char *, std::int32_t) { return ADAMW_OK; }

}  // namespace

const Backend cpu_backend = {"cpu", check_device, step, quantize, dequantize, split, join, norm, clip_factor};

}  // namespace adamw
