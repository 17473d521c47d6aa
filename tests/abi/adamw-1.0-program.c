/* Owns the law that a program compiled with the header of libadamw 1.0 runs unchanged with today's library: it knows no
 * other header, calls every function that this one declares and passes every struct in the size that it had then.
 * ci/abi compiles and runs it. Once 1.0 is released it does not change any more. */
#include "adamw-1.0.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { columns = 300, rows = 7, count = rows * columns, blocks = rows * 2 };

static void expect_at(int line, int holds) {
  if (holds) return;
  printf("line %d does not hold; the last error is: %s\n", line, adamw_last_error());
  exit(EXIT_FAILURE);
}
#define EXPECT(condition) expect_at(__LINE__, (condition))

static void check_versions_and_texts(void) {
  const char *kernel = NULL;
  EXPECT(adamw_abi_version() == ADAMW_ABI_VERSION);
  EXPECT(adamw_version() >= 10000 * ADAMW_VERSION_MAJOR + 100 * ADAMW_VERSION_MINOR);
  EXPECT(strncmp(adamw_build_info(), "libadamw ", 9) == 0);
  EXPECT(strcmp(adamw_status_string(ADAMW_ERROR_INVALID_ARGUMENT), "invalid argument") == 0);
  EXPECT(adamw_cpu_kernel(&kernel) == ADAMW_OK && kernel != NULL);
  EXPECT(adamw_set_num_threads(-1) == ADAMW_ERROR_INVALID_ARGUMENT && strstr(adamw_last_error(), "-1") != NULL);
  EXPECT(adamw_set_num_threads(2) == ADAMW_OK && adamw_get_num_threads() == 2);
}

/* The first step of AdamW moves each element by lr against its gradient's sign, whatever the state's format. */
static void check_step(adamw_state_format format, adamw_pager *pager, void *exp_avg, void *exp_avg_sq) {
  static float param[count], grad[count];
  float exp_avg_absmax[blocks] = {0}, exp_avg_sq_absmax[blocks] = {0}, exp_avg_sq_floor[blocks] = {0};
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  adamw_tensor row = {0};
  int64_t stepped = -1, skipped = 0;
  int i;
  for (i = 0; i < count; ++i) {
    param[i] = 1.0f;
    grad[i] = i % 2 ? 1.0f : -1.0f;
  }
  row.param = param;
  row.grad = grad;
  row.exp_avg = exp_avg;
  row.exp_avg_sq = exp_avg_sq;
  row.exp_avg_absmax = exp_avg_absmax;
  row.exp_avg_sq_absmax = exp_avg_sq_absmax;
  row.exp_avg_sq_floor = exp_avg_sq_floor;
  row.numel = count;
  row.row_length = columns;
  row.step = 1;
  options.lr = 0.125;
  options.weight_decay = 0.0;
  options.state_format = format;
  options.pager = pager;
  options.rows_stepped = &stepped;
  options.skipped = &skipped;
  EXPECT(adamw_step(&options, &row, sizeof row, 1) == ADAMW_OK);
  EXPECT(stepped == 1 && skipped == 0);
  for (i = 0; i < count; ++i) EXPECT(fabs(param[i] - (i % 2 ? 0.875 : 1.125)) < 1e-5);
}

/* The defaults as functions are those of the macros. */
static void check_defaults(void) {
  const adamw_step_options step = ADAMW_STEP_OPTIONS_INIT;
  const adamw_quantize_options quantize = ADAMW_QUANTIZE_OPTIONS_INIT;
  const adamw_split_options split = ADAMW_SPLIT_OPTIONS_INIT;
  const adamw_pager_options pager = ADAMW_PAGER_OPTIONS_INIT;
  const adamw_norm_options norm = ADAMW_NORM_OPTIONS_INIT;
  const adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
  adamw_step_options a;
  adamw_quantize_options b;
  adamw_pager_options c;
  adamw_split_options d;
  adamw_norm_options e;
  adamw_clip_options f;
  EXPECT(adamw_step_options_init(&a, sizeof a) == ADAMW_OK && memcmp(&a, &step, sizeof a) == 0);
  EXPECT(adamw_quantize_options_init(&b, sizeof b) == ADAMW_OK && memcmp(&b, &quantize, sizeof b) == 0);
  EXPECT(adamw_pager_options_init(&c, sizeof c) == ADAMW_OK && memcmp(&c, &pager, sizeof c) == 0);
  EXPECT(adamw_split_options_init(&d, sizeof d) == ADAMW_OK && memcmp(&d, &split, sizeof d) == 0);
  EXPECT(adamw_norm_options_init(&e, sizeof e) == ADAMW_OK && memcmp(&e, &norm, sizeof e) == 0);
  EXPECT(adamw_clip_options_init(&f, sizeof f) == ADAMW_OK && memcmp(&f, &clip, sizeof f) == 0);
}

static void check_layout_and_step(void) {
  adamw_state_layout layout;
  static float exp_avg[count], exp_avg_sq[count];
  static uint8_t exp_avg8[count], exp_avg_sq8[count];
  EXPECT(adamw_get_state_layout(ADAMW_STATE_BLOCK8, count, columns, 0, 0, &layout) == ADAMW_OK);
  EXPECT(layout.moment_bytes == count && layout.absmax_count == blocks && layout.blocks_per_row == 2);
  EXPECT(layout.floor_count == blocks && layout.total_bytes == 2 * count + 3 * blocks * 4);
  check_step(ADAMW_STATE_FLOAT32, NULL, exp_avg, exp_avg_sq);
  check_step(ADAMW_STATE_BLOCK8, NULL, exp_avg8, exp_avg_sq8);
  memset(exp_avg, 0, sizeof exp_avg);
  memset(exp_avg_sq, 0, sizeof exp_avg_sq);
  check_step(ADAMW_STATE_BFLOAT16, NULL, exp_avg, exp_avg_sq);
}

/* The same step on master weights, in two parts each. 1 - 2^-10 is no bfloat16, and has 24 bits. */
static void check_master_weights(int32_t remainder_bits) {
  static float weights[count], grad[count], exp_avg[count], exp_avg_sq[count];
  static uint16_t param[count];
  static int16_t remainder[count];
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  adamw_split_options split = ADAMW_SPLIT_OPTIONS_INIT;
  adamw_state_layout layout;
  adamw_tensor row = {0};
  int i;
  EXPECT(adamw_get_state_layout(ADAMW_STATE_FLOAT32, count, columns, 0, remainder_bits, &layout) == ADAMW_OK);
  EXPECT(layout.remainder_bytes == count * remainder_bits / 8);
  for (i = 0; i < count; ++i) {
    weights[i] = 1.0f - 0.0009765625f;
    grad[i] = i % 2 ? 1.0f : -1.0f;
    exp_avg[i] = exp_avg_sq[i] = 0.0f;
  }
  split.remainder_bits = options.remainder_bits = remainder_bits;
  split.numel = row.numel = count;
  EXPECT(adamw_split_weights(&split, weights, param, remainder) == ADAMW_OK && param[0] == 0x3F80);
  row.param = param;
  row.grad = grad;
  row.exp_avg = exp_avg;
  row.exp_avg_sq = exp_avg_sq;
  row.param_remainder = remainder;
  row.row_length = columns;
  row.step = 1;
  options.lr = 0.125;
  options.weight_decay = 0.0;
  options.param_dtype = ADAMW_BFLOAT16;
  EXPECT(adamw_step(&options, &row, sizeof row, 1) == ADAMW_OK);
  EXPECT(adamw_join_weights(&split, param, remainder, weights) == ADAMW_OK);
  for (i = 0; i < count; ++i)
    EXPECT(fabs(weights[i] - ((i % 2 ? 0.875 : 1.125) - 0.0009765625)) < (remainder_bits == 16 ? 1e-6 : 4e-5));
}

/* Two gradients whose norm is 50, clipped to 5 in the step: their parts of exp_avg are a tenth. */
static void check_clipping(void) {
  static float grad[count], param[count], exp_avg[count], exp_avg_sq[count];
  adamw_norm_options norm_options = ADAMW_NORM_OPTIONS_INIT;
  adamw_clip_options clip = ADAMW_CLIP_OPTIONS_INIT;
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  adamw_gradient table[2];
  adamw_tensor row = {0};
  double squares = -1.0;
  float norm = -1.0f, factor = -1.0f, scale = 2.0f;
  int i;
  memset(table, 0, sizeof table);
  for (i = 0; i < count; ++i) grad[i] = param[i] = exp_avg[i] = exp_avg_sq[i] = 0.0f;
  grad[0] = 60.0f;
  grad[count - 1] = 80.0f;
  table[0].grad = grad;
  table[0].numel = 100;
  table[1].grad = grad + 100;
  table[1].numel = count - 100;
  EXPECT(adamw_norm(&norm_options, table, sizeof table[0], 2, &squares) == ADAMW_OK && squares == 10000.0);
  clip.max_norm = 5.0;
  clip.grad_scale = &scale;
  EXPECT(adamw_clip_factor(&clip, &squares, 1, &norm, &factor) == ADAMW_OK);
  EXPECT(norm == 50.0f && fabs(factor - 0.1) < 1e-6);
  row.param = param;
  row.grad = grad;
  row.exp_avg = exp_avg;
  row.exp_avg_sq = exp_avg_sq;
  row.numel = row.row_length = count;
  row.step = 1;
  options.grad_scale = &scale;
  options.grad_factor = &factor;
  EXPECT(adamw_step(&options, &row, sizeof row, 1) == ADAMW_OK);
  EXPECT(fabs(exp_avg[0] - 0.3) < 1e-5 && fabs(exp_avg[count - 1] - 0.4) < 1e-5 && exp_avg[1] == 0.0f);
}

static void check_quantization(void) {
  adamw_quantize_options options = ADAMW_QUANTIZE_OPTIONS_INIT;
  static float source[count], target[count], absmax[blocks], smallest[blocks];
  static uint8_t codes[count];
  int moment, i;
  options.numel = count;
  options.row_length = count; /* one row: flat blocks */
  for (moment = ADAMW_MOMENT_EXP_AVG; moment <= ADAMW_MOMENT_EXP_AVG_SQ; ++moment) {
    float *floors = moment == ADAMW_MOMENT_EXP_AVG ? NULL : smallest;
    options.moment = moment;
    for (i = 0; i < count; ++i) codes[i] = (uint8_t)i; /* block 0 has every code, block 1, too, ... */
    for (i = 0; i < blocks; ++i) absmax[i] = 3.0f, smallest[i] = 0.5f;
    EXPECT(adamw_dequantize(&options, codes, absmax, floors, source) == ADAMW_OK);
    EXPECT(source[255] == 3.0f && (floors == NULL || source[0] == 3.0f / 256.0f));
    if (floors == NULL) source[0] = 0.0f; /* no number has this code */
    EXPECT(adamw_quantize(&options, source, codes, absmax, floors) == ADAMW_OK);
    EXPECT(absmax[0] == 3.0f && (floors == NULL || floors[0] == 0.5f));
    for (i = 0; i < 256; ++i) EXPECT(codes[i] == (i == 0 && floors == NULL ? 128 : i));
    EXPECT(adamw_dequantize(&options, codes, absmax, floors, target) == ADAMW_OK);
    for (i = 0; i < 256; ++i) EXPECT(target[i] == source[i]);
  }
}

static void check_pager(int32_t backing) {
  adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager_statistics statistics;
  adamw_pager *pager = NULL;
  void *exp_avg = NULL, *exp_avg_sq = NULL, *usable = NULL;
  int32_t place = -1;
  options.backing = backing;
  EXPECT(adamw_pager_create(&options, &pager) == ADAMW_OK && pager != NULL);
  EXPECT(adamw_pager_alloc(pager, count, &exp_avg, &place) == ADAMW_OK && place == backing);
  EXPECT(adamw_pager_alloc(pager, count, &exp_avg_sq, NULL) == ADAMW_OK);
  check_step(ADAMW_STATE_BLOCK8, pager, exp_avg, exp_avg_sq);
  EXPECT(adamw_pager_prefetch(pager, exp_avg, count, NULL) == ADAMW_OK);
  EXPECT(adamw_pager_acquire(pager, exp_avg, count, NULL, &usable) == ADAMW_OK);
  memset(usable, 5, count);
  EXPECT(adamw_pager_release(pager, usable, 1, NULL) == ADAMW_OK);
  EXPECT(adamw_pager_wait(pager) == ADAMW_OK);
  EXPECT(((uint8_t *)exp_avg)[0] == 5 && ((uint8_t *)exp_avg)[count - 1] == 5);
  EXPECT(adamw_pager_stats(pager, &statistics, sizeof statistics) == ADAMW_OK && statistics.buffers == 2);
  EXPECT(adamw_pager_free(pager, exp_avg) == ADAMW_OK && adamw_pager_free(pager, exp_avg_sq) == ADAMW_OK);
  EXPECT(adamw_pager_destroy(pager) == ADAMW_OK);
}

int main(void) {
  check_versions_and_texts();
  check_defaults();
  check_layout_and_step();
  check_master_weights(16);
  check_master_weights(8);
  check_clipping();
  check_quantization();
  check_pager(ADAMW_PLACE_HOST);
  check_pager(ADAMW_PLACE_FILE);
  printf("compiled with the header of %d.%d, running with %s\n", ADAMW_VERSION_MAJOR, ADAMW_VERSION_MINOR,
         adamw_build_info());
  return EXIT_SUCCESS;
}
