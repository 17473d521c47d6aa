// Owns the defaults of the options structs as functions: what the *_INIT macros of adamw.h say, and nothing else. Knows
// no struct from within.
#include "check/sizes.h"
#include "guarded.h"

namespace adamw {
namespace {

template <class Options>
adamw_status set(const char *function, Options *options, size_t size, const Options &defaults) {
  return guarded(function, [&] {
    if (options == nullptr) return fail(ADAMW_ERROR_INVALID_ARGUMENT, "%s: options is NULL", function);
    if (adamw_status s = check_size_of<Options>(function, "size", size)) return s;
    write_struct(options, size, defaults);
    options->size = size;
    return ADAMW_OK;
  });
}

}  // namespace
}  // namespace adamw

adamw_status adamw_step_options_init(adamw_step_options *options, size_t size) {
  return adamw::set("adamw_step_options_init", options, size, ADAMW_STEP_OPTIONS_INIT);
}

adamw_status adamw_quantize_options_init(adamw_quantize_options *options, size_t size) {
  return adamw::set("adamw_quantize_options_init", options, size, ADAMW_QUANTIZE_OPTIONS_INIT);
}

adamw_status adamw_norm_options_init(adamw_norm_options *options, size_t size) {
  return adamw::set("adamw_norm_options_init", options, size, ADAMW_NORM_OPTIONS_INIT);
}

adamw_status adamw_clip_options_init(adamw_clip_options *options, size_t size) {
  return adamw::set("adamw_clip_options_init", options, size, ADAMW_CLIP_OPTIONS_INIT);
}

adamw_status adamw_split_options_init(adamw_split_options *options, size_t size) {
  return adamw::set("adamw_split_options_init", options, size, ADAMW_SPLIT_OPTIONS_INIT);
}

adamw_status adamw_pager_options_init(adamw_pager_options *options, size_t size) {
  return adamw::set("adamw_pager_options_init", options, size, ADAMW_PAGER_OPTIONS_INIT);
}
