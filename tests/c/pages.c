/* Owns the law that a C99 program pages with the public header alone: it steps a tensor whose state is in a file, and
 * the same tensor with state in its own memory, and both end with the same bits. Prints what the pager has done. */
#include <adamw.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { columns = 1000, rows = 600, count = columns * rows, steps = 5 };

static int failed;

static void check(adamw_status status, const char *what) {
  if (status == ADAMW_OK) return;
  printf("%s: %s: %s\n", what, adamw_status_string(status), adamw_last_error());
  exit(1);
}

static void *zeros(size_t bytes) {
  void *memory = calloc(bytes, 1);
  if (memory == NULL) exit(2);
  return memory;
}

/* State from the pager, or from calloc() where that is NULL. */
static void *state(adamw_pager *pager, int64_t bytes) {
  void *buffer = NULL;
  if (pager == NULL) return zeros((size_t)bytes);
  check(adamw_pager_alloc(pager, bytes, &buffer, NULL), "adamw_pager_alloc");
  return buffer;
}

static void give_back(adamw_pager *pager, void *memory) {
  if (pager == NULL) {
    free(memory);
  } else {
    check(adamw_pager_free(pager, memory), "adamw_pager_free");
  }
}

/* Steps `weights` downhill towards zero. */
static void train(adamw_pager *pager, float *weights) {
  adamw_state_layout layout;
  adamw_tensor row;
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  int64_t stepped = -1;
  int i;
  float *gradient = (float *)zeros(count * sizeof(float));
  check(adamw_get_state_layout(ADAMW_STATE_BLOCK8, count, columns, 0, 0, &layout), "adamw_get_state_layout");
  memset(&row, 0, sizeof row);
  row.param = weights;
  row.grad = gradient;
  row.exp_avg = state(pager, layout.moment_bytes);
  row.exp_avg_absmax = (float *)state(pager, layout.absmax_count * (int64_t)sizeof(float));
  row.exp_avg_sq = state(pager, layout.moment_bytes);
  row.exp_avg_sq_absmax = (float *)state(pager, layout.absmax_count * (int64_t)sizeof(float));
  row.exp_avg_sq_floor = (float *)state(pager, layout.floor_count * (int64_t)sizeof(float));
  row.numel = count;
  row.row_length = columns;
  options.state_format = ADAMW_STATE_BLOCK8;
  options.lr = 0.01;
  options.pager = pager;
  options.rows_stepped = &stepped;
  for (row.step = 1; row.step <= steps; ++row.step) {
    for (i = 0; i < count; ++i) gradient[i] = weights[i];
    check(adamw_step(&options, &row, sizeof row, 1), "adamw_step");
    if (stepped != 1) failed = 1;
  }
  give_back(pager, row.exp_avg);
  give_back(pager, row.exp_avg_absmax);
  give_back(pager, row.exp_avg_sq);
  give_back(pager, row.exp_avg_sq_absmax);
  give_back(pager, row.exp_avg_sq_floor);
  free(gradient);
}

int main(void) {
  adamw_pager *pager = NULL;
  adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager_statistics statistics;
  float *paged = (float *)zeros(count * sizeof(float)), *plain = (float *)zeros(count * sizeof(float));
  int i;
  for (i = 0; i < count; ++i) paged[i] = plain[i] = (float)(i % 2000 - 1000) / 1000.0f;

  options.backing = ADAMW_PLACE_FILE;
  options.resident_bytes = 512 << 10; /* of 1.2 MB of state */
  check(adamw_pager_create(&options, &pager), "adamw_pager_create");
  train(pager, paged);
  train(NULL, plain);
  check(adamw_pager_stats(pager, &statistics, sizeof statistics), "adamw_pager_stats");
  printf("%ld bytes in, %ld out, at most %ld resident\n", (long)statistics.bytes_in, (long)statistics.bytes_out,
         (long)statistics.resident_peak_bytes);
  if (statistics.bytes_in < steps * count || statistics.resident_peak_bytes > options.resident_bytes) failed = 1;
  if (statistics.buffers != 0 || memcmp(paged, plain, count * sizeof(float)) != 0) failed = 1;
  check(adamw_pager_destroy(pager), "adamw_pager_destroy");

  options.directory = "/no/such/directory";
  if (adamw_pager_create(&options, &pager) != ADAMW_ERROR_STORAGE || pager != NULL) failed = 1;
  if (strstr(adamw_last_error(), options.directory) == NULL) failed = 1;
  if (failed) printf("FAILED: %s\n", adamw_last_error());
  free(paged);
  free(plain);
  return failed;
}
