// Owns the entry points of adamw.h about the norm of all gradients. Checks and hands a plan to the device's backend;
// does no arithmetic itself.
#include "backend.h"
#include "check/check.h"
#include "check/sizes.h"
#include "cpu/float_mode.h"
#include "cpu/parallel.h"
#include "guarded.h"
#include "lease.h"
#include "status.h"

using namespace adamw;

adamw_status adamw_norm(const adamw_norm_options *options, const adamw_gradient *gradients, size_t gradient_size,
                        int64_t count, double *squares) {
  return guarded(norm_name, [&] {
    const DefaultFloatMode mode;
    adamw_norm_options o;
    if (adamw_status s = check_norm_options(options, o)) return s;
    const Lease<NormMemory> memory;
    if (adamw_status s =
            read_table(norm_name, "gradients", "gradient_size", gradients, gradient_size, count, memory->copies)) {
      return s;
    }
    if (adamw_status s = check_gradients(gradients, count, squares)) return s;
    const int threads = o.num_threads > 0 ? o.num_threads : default_threads();
    return backend_of(o.device)->norm({gradients, count, threads, o.device, o.stream, &*memory}, squares);
  });
}

adamw_status adamw_clip_factor(const adamw_clip_options *options, const double *squares, int64_t count, float *norm,
                               float *factor) {
  return guarded(clip_name, [&] {
    const DefaultFloatMode mode;
    adamw_clip_options o;
    if (adamw_status s = check_clip_options(options, o)) return s;
    if (count < 1 || count > 4096) {
      return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: count = %lld: must be in 1 ... 4096", clip_name,
                  static_cast<long long>(count));
    }
    if (adamw_status s = check_buffer(clip_name, -1, "squares", squares, count * 8, 8)) return s;
    if (adamw_status s = check_buffer(clip_name, -1, "norm", norm, norm != nullptr ? 4 : 0, 4)) return s;
    if (adamw_status s = check_buffer(clip_name, -1, "factor", factor, 4, 4)) return s;
    const Interval written[] = {interval(factor, 4, "factor"), interval(norm, 4, "norm")},
                   read[] = {interval(squares, count * 8, "squares"), interval(o.grad_scale, 4, "options.grad_scale")};
    if (adamw_status s = check_overlap(clip_name, by_address(written, norm != nullptr ? 2 : 1),
                                       by_address(read, o.grad_scale != nullptr ? 2 : 1))) {
      return s;
    }
    return backend_of(o.device)->clip_factor({o.max_norm, o.grad_scale, o.device, o.stream}, squares, count, norm,
                                             factor);
  });
}
