/* Owns the law that adamw.h is all a C99 program needs, and that the layout it was compiled with is the one that is
 * recorded: every offset of every struct on 64-bit machines. CMake builds this file alone, with -std=c99 -pedantic
 * -Werror. */
#include <adamw.h>

#include <stdio.h>
#include <string.h>

/* In this order: no other header came first, and including it twice is harmless. */
#include <adamw.h>

static int failed;

static void expect(const char *what, size_t is, size_t must) {
  if (is == must) return;
  printf("%s is %lu, must be %lu\n", what, (unsigned long)is, (unsigned long)must);
  failed = 1;
}

#define OFFSET(type, field, must) expect("offset of " #type "." #field, offsetof(type, field), must)
#define SIZE(type, must) expect("size of " #type, sizeof(type), must)
#define VALUE(name, must) expect(#name, (size_t)(name), must)

static void check_layout(void) {
  SIZE(adamw_status, 4);
  SIZE(adamw_state_layout, 48);
  OFFSET(adamw_state_layout, moment_bytes, 0);
  OFFSET(adamw_state_layout, absmax_count, 8);
  OFFSET(adamw_state_layout, floor_count, 16);
  OFFSET(adamw_state_layout, blocks_per_row, 24);
  OFFSET(adamw_state_layout, remainder_bytes, 32);
  OFFSET(adamw_state_layout, total_bytes, 40);
  SIZE(adamw_tensor, 152);
  OFFSET(adamw_tensor, param, 0);
  OFFSET(adamw_tensor, grad, 8);
  OFFSET(adamw_tensor, exp_avg, 16);
  OFFSET(adamw_tensor, exp_avg_sq, 24);
  OFFSET(adamw_tensor, max_exp_avg_sq, 32);
  OFFSET(adamw_tensor, exp_avg_absmax, 40);
  OFFSET(adamw_tensor, exp_avg_sq_absmax, 48);
  OFFSET(adamw_tensor, max_exp_avg_sq_absmax, 56);
  OFFSET(adamw_tensor, exp_avg_sq_floor, 64);
  OFFSET(adamw_tensor, max_exp_avg_sq_floor, 72);
  OFFSET(adamw_tensor, param_remainder, 80);
  OFFSET(adamw_tensor, gnorm_history, 88);
  OFFSET(adamw_tensor, numel, 96);
  OFFSET(adamw_tensor, row_length, 104);
  OFFSET(adamw_tensor, step, 112);
  OFFSET(adamw_tensor, global_offset, 120);
  OFFSET(adamw_tensor, run_length, 128);
  OFFSET(adamw_tensor, run_stride, 136);
  OFFSET(adamw_tensor, step_tensor, 144);
  SIZE(adamw_step_options, 160);
  OFFSET(adamw_step_options, size, 0);
  OFFSET(adamw_step_options, lr, 8);
  OFFSET(adamw_step_options, beta1, 16);
  OFFSET(adamw_step_options, beta2, 24);
  OFFSET(adamw_step_options, eps, 32);
  OFFSET(adamw_step_options, weight_decay, 40);
  OFFSET(adamw_step_options, max_unorm, 48);
  OFFSET(adamw_step_options, param_dtype, 56);
  OFFSET(adamw_step_options, grad_dtype, 60);
  OFFSET(adamw_step_options, state_format, 64);
  OFFSET(adamw_step_options, flags, 68);
  OFFSET(adamw_step_options, percentile_clipping, 72);
  OFFSET(adamw_step_options, device, 76);
  OFFSET(adamw_step_options, num_threads, 80);
  OFFSET(adamw_step_options, remainder_bits, 84);
  OFFSET(adamw_step_options, seed, 88);
  OFFSET(adamw_step_options, grad_scale, 96);
  OFFSET(adamw_step_options, found_inf, 104);
  OFFSET(adamw_step_options, skipped, 112);
  OFFSET(adamw_step_options, stream, 120);
  OFFSET(adamw_step_options, lr_tensor, 128);
  OFFSET(adamw_step_options, pager, 136);
  OFFSET(adamw_step_options, rows_stepped, 144);
  OFFSET(adamw_step_options, grad_factor, 152);
  SIZE(adamw_gradient, 24);
  OFFSET(adamw_gradient, grad, 0);
  OFFSET(adamw_gradient, numel, 8);
  OFFSET(adamw_gradient, dtype, 16);
  OFFSET(adamw_gradient, reserved, 20);
  SIZE(adamw_norm_options, 24);
  OFFSET(adamw_norm_options, size, 0);
  OFFSET(adamw_norm_options, device, 8);
  OFFSET(adamw_norm_options, num_threads, 12);
  OFFSET(adamw_norm_options, stream, 16);
  SIZE(adamw_clip_options, 40);
  OFFSET(adamw_clip_options, size, 0);
  OFFSET(adamw_clip_options, max_norm, 8);
  OFFSET(adamw_clip_options, grad_scale, 16);
  OFFSET(adamw_clip_options, device, 24);
  OFFSET(adamw_clip_options, reserved, 28);
  OFFSET(adamw_clip_options, stream, 32);
  SIZE(adamw_quantize_options, 80);
  OFFSET(adamw_quantize_options, size, 0);
  OFFSET(adamw_quantize_options, moment, 8);
  OFFSET(adamw_quantize_options, state_format, 12);
  OFFSET(adamw_quantize_options, rounding, 16);
  OFFSET(adamw_quantize_options, device, 20);
  OFFSET(adamw_quantize_options, num_threads, 24);
  OFFSET(adamw_quantize_options, reserved, 28);
  OFFSET(adamw_quantize_options, numel, 32);
  OFFSET(adamw_quantize_options, row_length, 40);
  OFFSET(adamw_quantize_options, step, 48);
  OFFSET(adamw_quantize_options, global_offset, 56);
  OFFSET(adamw_quantize_options, seed, 64);
  OFFSET(adamw_quantize_options, stream, 72);
  SIZE(adamw_split_options, 64);
  OFFSET(adamw_split_options, size, 0);
  OFFSET(adamw_split_options, remainder_bits, 8);
  OFFSET(adamw_split_options, rounding, 12);
  OFFSET(adamw_split_options, device, 16);
  OFFSET(adamw_split_options, num_threads, 20);
  OFFSET(adamw_split_options, numel, 24);
  OFFSET(adamw_split_options, step, 32);
  OFFSET(adamw_split_options, global_offset, 40);
  OFFSET(adamw_split_options, seed, 48);
  OFFSET(adamw_split_options, stream, 56);
  SIZE(adamw_pager_options, 48);
  OFFSET(adamw_pager_options, size, 0);
  OFFSET(adamw_pager_options, backing, 8);
  OFFSET(adamw_pager_options, device, 12);
  OFFSET(adamw_pager_options, resident_bytes, 16);
  OFFSET(adamw_pager_options, chunk_bytes, 24);
  OFFSET(adamw_pager_options, reserve_bytes, 32);
  OFFSET(adamw_pager_options, directory, 40);
  SIZE(adamw_pager_statistics, 96);
  OFFSET(adamw_pager_statistics, buffers, 0);
  OFFSET(adamw_pager_statistics, host_bytes, 8);
  OFFSET(adamw_pager_statistics, file_bytes, 16);
  OFFSET(adamw_pager_statistics, pinned_bytes, 24);
  OFFSET(adamw_pager_statistics, managed_bytes, 32);
  OFFSET(adamw_pager_statistics, device_bytes, 40);
  OFFSET(adamw_pager_statistics, resident_bytes, 48);
  OFFSET(adamw_pager_statistics, resident_peak_bytes, 56);
  OFFSET(adamw_pager_statistics, bytes_in, 64);
  OFFSET(adamw_pager_statistics, bytes_out, 72);
  OFFSET(adamw_pager_statistics, wait_ns, 80);
  OFFSET(adamw_pager_statistics, faults_avoided, 88);
}

static void check_values(void) {
  VALUE(ADAMW_OK, 0);
  VALUE(ADAMW_ERROR_INVALID_ARGUMENT, 1);
  VALUE(ADAMW_ERROR_VERSION, 2);
  VALUE(ADAMW_ERROR_UNSUPPORTED, 3);
  VALUE(ADAMW_ERROR_OUT_OF_MEMORY, 4);
  VALUE(ADAMW_ERROR_INTERNAL, 5);
  VALUE(ADAMW_ERROR_DEVICE, 6);
  VALUE(ADAMW_ERROR_STORAGE, 7);
  VALUE(ADAMW_PLACE_HOST, 0);
  VALUE(ADAMW_PLACE_FILE, 1);
  VALUE(ADAMW_PLACE_PINNED, 2);
  VALUE(ADAMW_PLACE_MANAGED, 3);
  VALUE(ADAMW_PLACE_DEVICE, 4);
  VALUE(ADAMW_FLOAT32, 0);
  VALUE(ADAMW_BFLOAT16, 1);
  VALUE(ADAMW_FLOAT16, 2);
  VALUE(ADAMW_STATE_FLOAT32, 0);
  VALUE(ADAMW_STATE_BLOCK8, 1);
  VALUE(ADAMW_STATE_TENSOR8, 2);
  VALUE(ADAMW_STATE_BFLOAT16, 3);
  VALUE(ADAMW_STEP_AMSGRAD, 1);
  VALUE(ADAMW_STEP_MAXIMIZE, 2);
  VALUE(ADAMW_STEP_STOCHASTIC_ROUNDING, 4);
  VALUE(ADAMW_STEP_SKIP_ZEROS, 8);
  VALUE(ADAMW_MOMENT_EXP_AVG, 0);
  VALUE(ADAMW_MOMENT_EXP_AVG_SQ, 1);
  VALUE(ADAMW_ROUND_NEAREST, 0);
  VALUE(ADAMW_ROUND_STOCHASTIC, 1);
  VALUE(ADAMW_BLOCK_SIZE, 256);
  VALUE(ADAMW_GNORM_HISTORY, 100);
}

/* The INIT macros set what they say, and the library that is loaded is the header's. */
static void check_defaults(void) {
  const adamw_step_options s = ADAMW_STEP_OPTIONS_INIT;
  const adamw_norm_options n = ADAMW_NORM_OPTIONS_INIT;
  const adamw_clip_options c = ADAMW_CLIP_OPTIONS_INIT;
  const adamw_quantize_options q = ADAMW_QUANTIZE_OPTIONS_INIT;
  const adamw_split_options w = ADAMW_SPLIT_OPTIONS_INIT;
  const adamw_pager_options p = ADAMW_PAGER_OPTIONS_INIT;
  int status;
  expect("options.size", p.size, sizeof p);
  expect("a pager of the CPU", p.backing == ADAMW_PLACE_HOST && p.device == -1, 1);
  expect("defaults of a pager",
         p.resident_bytes == 0 && p.chunk_bytes == 0 && p.reserve_bytes == 0 && p.directory == NULL, 1);
  expect("no pager", s.pager == NULL && s.rows_stepped == NULL && s.grad_factor == NULL, 1);
  expect("options.size", s.size, sizeof s);
  expect("options.size", n.size, sizeof n);
  expect("options.size", c.size, sizeof c);
  expect("options.size", q.size, sizeof q);
  expect("options.size", w.size, sizeof w);
  expect("master weights",
         w.remainder_bits == 16 && w.rounding == ADAMW_ROUND_NEAREST && w.device == -1 && w.numel == 0, 1);
  expect("defaults", s.lr == 1e-3 && s.beta1 == 0.9 && s.beta2 == 0.999 && s.eps == 1e-8 && s.weight_decay == 1e-2, 1);
  expect("off", s.max_unorm == 0.0 && s.percentile_clipping == 100 && s.flags == 0u && s.remainder_bits == 0, 1);
  expect("clipping", n.num_threads == 0 && c.max_norm == 1.0 && c.reserved == 0, 1);
  expect("the CPU", s.device == -1 && n.device == -1 && c.device == -1 && q.device == -1 && w.device == -1, 1);
  expect("pointers",
         s.grad_scale == NULL && s.found_inf == NULL && s.skipped == NULL && s.stream == NULL && s.lr_tensor == NULL &&
             n.stream == NULL && c.grad_scale == NULL && c.stream == NULL && q.stream == NULL && w.stream == NULL,
         1);
  expect("step of no rows", (size_t)adamw_step(&s, NULL, sizeof(adamw_tensor), 0), ADAMW_OK);
  expect("version", (size_t)adamw_version(),
         ADAMW_VERSION_MAJOR * 10000 + ADAMW_VERSION_MINOR * 100 + ADAMW_VERSION_PATCH);
  expect("ABI version", (size_t)adamw_abi_version(), ADAMW_ABI_VERSION);
  for (status = 0; status < 9; ++status)
    expect("status text", strlen(adamw_status_string((adamw_status)status)) > 1, 1);
  expect("a text of its own",
         strcmp(adamw_status_string(ADAMW_ERROR_STORAGE), adamw_status_string((adamw_status)8)) != 0, 1);
}

/* The functions give what the macros give, byte for byte and no further, and refuse NULL and sizes that no struct has.
 * (Sizes of other versions: tests/cpp/test_sizes.cpp.) */
#define CHECK_INIT(struct_name, DEFAULTS)                                                              \
  do {                                                                                                 \
    const struct_name defaults = DEFAULTS;                                                             \
    struct_name set[2];                                                                                \
    memset(set, 0xAB, sizeof set);                                                                     \
    expect(#struct_name "_init", (size_t)struct_name##_init(set, sizeof *set), ADAMW_OK);              \
    expect(#struct_name " is the macro's", (size_t)memcmp(set, &defaults, sizeof defaults), 0);        \
    expect("what follows it", ((const unsigned char *)(set + 1))[0], 0xAB);                            \
    memset(set, 0xAB, sizeof set);                                                                     \
    expect("another size", (size_t)struct_name##_init(set, sizeof *set + 4), ADAMW_ERROR_VERSION);     \
    expect("a pointer's size", (size_t)struct_name##_init(set, sizeof(void *)), ADAMW_ERROR_VERSION);  \
    expect("what was there", ((const unsigned char *)set)[0], 0xAB);                                   \
    expect("no options", (size_t)struct_name##_init(NULL, sizeof *set), ADAMW_ERROR_INVALID_ARGUMENT); \
  } while (0)

static void check_inits(void) {
  CHECK_INIT(adamw_step_options, ADAMW_STEP_OPTIONS_INIT);
  CHECK_INIT(adamw_norm_options, ADAMW_NORM_OPTIONS_INIT);
  CHECK_INIT(adamw_clip_options, ADAMW_CLIP_OPTIONS_INIT);
  CHECK_INIT(adamw_quantize_options, ADAMW_QUANTIZE_OPTIONS_INIT);
  CHECK_INIT(adamw_split_options, ADAMW_SPLIT_OPTIONS_INIT);
  CHECK_INIT(adamw_pager_options, ADAMW_PAGER_OPTIONS_INIT);
}

int main(void) {
  check_layout();
  check_values();
  check_defaults();
  check_inits();
  return failed;
}
