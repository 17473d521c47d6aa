// Owns the entry points of adamw.h: check, derive every coefficient once, hand a plan to the device's backend. Lets no
// exception out and trusts nobody; does no arithmetic on moments itself.
#include <cinttypes>
#include <cstdio>

#include "check/sizes.h"
#include "cpu/float_mode.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "guarded.h"
#include "paged_step.h"
#include "status.h"
#include "workspace.h"

#ifdef ADAMW_CUDA_MAJOR
#define ADAMW_TEXT_(x) #x
#define ADAMW_TEXT(x) ADAMW_TEXT_(x)
#define ADAMW_BACKEND \
  "backend cuda" ADAMW_TEXT(ADAMW_CUDA_MAJOR) ", CUDA " ADAMW_CUDA_VERSION ", architectures " ADAMW_CUDA_ARCHITECTURES
#else
#define ADAMW_BACKEND "backend cpu, CUDA none"
#endif

namespace adamw {
namespace {

// On the CPU what is given as a tensor of one number is read now.
Hyperparameters hyperparameters(const adamw_step_options &o) {
  const bool now = o.device < 0 && o.lr_tensor != nullptr;
  return {now ? static_cast<double>(*o.lr_tensor) : o.lr,
          o.beta1,
          o.beta2,
          o.eps,
          o.weight_decay,
          o.seed,
          (o.flags & ADAMW_STEP_MAXIMIZE) != 0};
}

// Adds to an error what the step had done before it.
adamw_status with_progress(adamw_status status, const StepPlan &plan, const PagedRows &windows) {
  const std::int64_t done = windows.rows_done(), elements = windows.elements_done();
  char error[max_error];  // and no string: that could want memory, and there would be another error
  std::snprintf(error, sizeof error, "%s", adamw_last_error());
  if (done == plan.count) return fail(status, "%s; every tensor has been stepped", error);
  const std::int64_t next = plan.rows[done].number;
  if (elements == 0)
    return fail(status, "%s; the tensors before tensor %" PRId64 " have been stepped, the others have not", error,
                next);
  return fail(status,
              "%s; the tensors before tensor %" PRId64 " have been stepped, that tensor up to element %" PRId64
              ", the others have not",
              error, next, elements);
}

adamw_status paged_step(Pager &pager, StepPlan &plan) {
  constexpr const char *function = "adamw_step";
  const bool measured = plan.measures();
  Pager::Session session(pager, function, plan.stream);
  if (adamw_status s = session.begin()) return s;
  PagedRows windows(function, plan, session);
  adamw_status status = ADAMW_OK;
  if (measured && plan.device >= 0) {
    status = backend_of(plan.device)->step(plan);  // its kernels reach state wherever that lies
    return status == ADAMW_OK ? session.end() : status;
  }
  if (adamw_status s = windows.cut(measured)) return s;
  plan.windows = &windows;
  status = backend_of(plan.device)->step(plan);
  if (status == ADAMW_OK) status = session.end();
  if (status == ADAMW_OK) *plan.rows_done = plan.count;
  return status == ADAMW_OK ? status : with_progress(status, plan, windows);
}

// Fills `plan`, with the rows of a workspace.
void make_plan(const adamw_step_options &o, const adamw_tensor *tensors, std::int64_t count, Workspace &workspace,
               StepPlan &plan) {
  plan.hyperparameters = hyperparameters(o);
  plan.lr = o.device < 0 ? nullptr : o.lr_tensor;
  // Written over from the start: to make and fill them anew takes longer than all else here.
  if (workspace.rows.size() < static_cast<std::size_t>(count)) workspace.rows.resize(static_cast<std::size_t>(count));
  plan.rows = workspace.rows.data();
  for (int64_t i = 0; i < count; ++i) {
    const adamw_tensor &t = tensors[i];
    if (t.numel == 0) continue;
    Row &row = plan.rows[plan.count];
    row.tensor = t;
    // On a device only the kernels can read step_tensor, and they derive the coefficients; any number stands in.
    if (t.step_tensor != nullptr) row.tensor.step = o.device < 0 ? static_cast<int64_t>(*t.step_tensor) : 1;
    row.blocks = block_layout(t.numel, t.row_length);
    const bool as_before = plan.count > 0 && (&row)[-1].tensor.step == row.tensor.step;
    if (as_before) {  // as a rule: powers are not taken again
      row.coefficients = (&row)[-1].coefficients;
    } else {
      row.coefficients = coefficients(plan.hyperparameters, row.tensor.step);
    }
    row.number = i;
    row.runs = t.run_length == t.numel ? IndexRuns{} : IndexRuns{t.run_length, t.run_stride, 0};
    ++plan.count;
  }
  plan.kind = {static_cast<adamw_dtype>(o.param_dtype),
               static_cast<adamw_dtype>(o.grad_dtype),
               static_cast<adamw_state_format>(o.state_format),
               o.remainder_bits,
               (o.flags & ADAMW_STEP_AMSGRAD) != 0,
               (o.flags & ADAMW_STEP_STOCHASTIC_ROUNDING) != 0,
               (o.flags & ADAMW_STEP_SKIP_ZEROS) != 0};
  plan.percentile_clipping = o.percentile_clipping;
  plan.threads = o.num_threads > 0 ? o.num_threads : default_threads();
  plan.device = o.device;
  plan.max_unorm = o.max_unorm;
  plan.grad_scale = o.grad_scale;
  plan.grad_factor = o.grad_factor;
  plan.found_inf = o.found_inf;
  plan.skipped = o.skipped;
  plan.stream = o.stream;
}

// Says how many rows of the caller's have been stepped, whichever way the call ends.
class Progress {
 public:
  Progress(const adamw_step_options &options, StepPlan &plan, std::int64_t count)
      : rows_stepped_(options.rows_stepped), plan_(plan), count_(count) {
    plan.rows_done = &done_;
  }
  ~Progress() {
    if (rows_stepped_ != nullptr) *rows_stepped_ = done_ < plan_.count ? plan_.rows[done_].number : count_;
  }
  Progress(const Progress &) = delete;
  Progress &operator=(const Progress &) = delete;

 private:
  std::int64_t *const rows_stepped_;
  const StepPlan &plan_;
  const std::int64_t count_;
  std::int64_t done_ = 0;
};

adamw_status step(const adamw_step_options *options, const adamw_tensor *tensors, size_t tensor_size, int64_t count) {
  adamw_step_options o;
  if (adamw_status s = check_step_options(options, o)) return s;
  const WorkspaceLease lease;
  Workspace &workspace = *lease;
  if (adamw_status s = read_table(step_name, "tensors", "tensor_size", tensors, tensor_size, count, workspace.copies))
    return s;
  if (adamw_status s = check_rows(o, tensors, count, workspace)) return s;
  if (o.rows_stepped != nullptr) *o.rows_stepped = 0;
  StepPlan plan{};
  make_plan(o, tensors, count, workspace, plan);
  const Progress progress(o, plan, count);
  if (plan.count == 0) return ADAMW_OK;
  const bool paged = o.pager != nullptr && o.pager->pages();
  const adamw_status status = paged ? paged_step(*o.pager, plan) : backend_of(o.device)->step(plan);
  workspace.used_for(count);
  return status;
}

}  // namespace
}  // namespace adamw

using namespace adamw;

int32_t adamw_version(void) { return ADAMW_VERSION_MAJOR * 10000 + ADAMW_VERSION_MINOR * 100 + ADAMW_VERSION_PATCH; }

int32_t adamw_abi_version(void) { return ADAMW_ABI_VERSION; }

const char *adamw_build_info(void) {
  struct Text {
    char text[256];
    Text() {
      const char *error;
      const Kernels *kernels = active_kernels(&error);
      std::snprintf(text, sizeof text,
                    "libadamw %d.%d.%d, ABI %d, " ADAMW_BACKEND ", kernels %s, in use: %s, threads: %s",
                    ADAMW_VERSION_MAJOR, ADAMW_VERSION_MINOR, ADAMW_VERSION_PATCH, ADAMW_ABI_VERSION, built_kernels(),
                    kernels != nullptr ? kernels->name : "none (see ADAMW_CPU)", thread_layer());
    }
  };
  static const Text info;
  return info.text;
}

adamw_status adamw_set_num_threads(int32_t num_threads) {
  return guarded("adamw_set_num_threads", [&] {
    if (num_threads < 0) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT,
                  "adamw_set_num_threads: num_threads = %d: must be 0 (the default) or above", num_threads);
    }
    set_default_threads(num_threads);
    return ADAMW_OK;
  });
}

int32_t adamw_get_num_threads(void) { return default_threads(); }

adamw_status adamw_cpu_kernel(const char **name) {
  return guarded("adamw_cpu_kernel", [&] {
    if (name == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "adamw_cpu_kernel: name is NULL");
    const char *error;
    const Kernels *kernels = active_kernels(&error);
    *name = kernels != nullptr ? kernels->name : nullptr;
    return kernels != nullptr ? ADAMW_OK : fail(ADAMW_ERROR_UNSUPPORTED, "adamw_cpu_kernel: %s", error);
  });
}

adamw_status adamw_get_state_layout(adamw_state_format format, int64_t numel, int64_t row_length, int32_t amsgrad,
                                    int32_t remainder_bits, adamw_state_layout *layout) {
  return guarded("adamw_get_state_layout", [&] {
    constexpr const char *function = "adamw_get_state_layout";
    if (layout == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: layout is NULL", function);
    const int32_t raw = raw_value(format);
    if (!is_state_format(raw)) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: format = %d: must be an adamw_state_format", function, raw);
    }
    if (!is_remainder(remainder_bits)) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: remainder_bits = %d: must be 0 (off), 8 or 16", function,
                  remainder_bits);
    }
    if (adamw_status s = check_layout(function, numel, row_length)) return s;
    const BlockLayout blocks = block_layout(numel, row_length);
    const FormatTraits kept = traits(format);
    layout->moment_bytes = numel * kept.bytes;
    layout->absmax_count = kept.scales(blocks);
    layout->blocks_per_row = kept.scaling == Scaling::block ? blocks.blocks_per_row : 0;
    layout->floor_count = layout->absmax_count;
    layout->remainder_bytes = numel * remainder_bits / 8;
    layout->total_bytes = (layout->moment_bytes + layout->absmax_count * 4) * (amsgrad != 0 ? 3 : 2) +
                          layout->floor_count * 4 * (amsgrad != 0 ? 2 : 1) + layout->remainder_bytes;
    return ADAMW_OK;
  });
}

adamw_status adamw_step(const adamw_step_options *options, const adamw_tensor *tensors, size_t tensor_size,
                        int64_t count) {
  return guarded("adamw_step", [&] {
    const DefaultFloatMode mode;
    return step(options, tensors, tensor_size, count);
  });
}
