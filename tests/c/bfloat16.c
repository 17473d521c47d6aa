/* Owns the C example of master weights: bfloat16 weights with 8-bit state and the 16 bits that they lack of float32.
 * They take steps that are smaller than a bfloat16 can show. Fails unless the weights go as far as all steps together.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <adamw.h>

enum { rows = 64, columns = 300, count = rows * columns, steps = 200 };

static void check(adamw_status status) {
  if (status == ADAMW_OK) return;
  fprintf(stderr, "%s: %s\n", adamw_status_string(status), adamw_last_error());
  exit(EXIT_FAILURE);
}

static void *zeros(int64_t bytes) {
  void *memory = calloc((size_t)bytes, 1);
  if (memory == NULL) exit(EXIT_FAILURE);
  return memory;
}

int main(void) {
  static float weights[count], gradient[count];
  static uint16_t param[count]; /* the bfloat16 weights, with which a model computes */
  int i;
  double farthest = 0.0;
  adamw_state_layout layout;
  adamw_tensor tensor = {0};
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  adamw_split_options split = ADAMW_SPLIT_OPTIONS_INIT;

  options.param_dtype = ADAMW_BFLOAT16;
  options.state_format = ADAMW_STATE_BLOCK8;
  options.remainder_bits = split.remainder_bits = 16;
  options.lr = 1e-4; /* 1 / 78 of the distance of two bfloat16 numbers in [1, 2) */
  options.weight_decay = 0.0;
  split.numel = count;

  check(adamw_get_state_layout(ADAMW_STATE_BLOCK8, count, columns, 0, 16, &layout));
  tensor.param = param;
  tensor.grad = gradient;
  tensor.numel = count;
  tensor.row_length = columns;
  tensor.exp_avg = zeros(layout.moment_bytes);
  tensor.exp_avg_sq = zeros(layout.moment_bytes);
  tensor.exp_avg_absmax = zeros(layout.absmax_count * (int64_t)sizeof(float));
  tensor.exp_avg_sq_absmax = zeros(layout.absmax_count * (int64_t)sizeof(float));
  tensor.exp_avg_sq_floor = zeros(layout.floor_count * (int64_t)sizeof(float));
  tensor.param_remainder = zeros(layout.remainder_bytes);
  printf("%ld weights, %ld bytes of state\n", (long)count, (long)layout.total_bytes);

  for (i = 0; i < count; ++i) weights[i] = 1.0f + (float)i / count;
  check(adamw_split_weights(&split, weights, param, tensor.param_remainder));
  for (tensor.step = 1; tensor.step <= steps; ++tensor.step) {
    for (i = 0; i < count; ++i) gradient[i] = i % 2 == 0 ? 0.5f : -0.5f; /* that of your model */
    check(adamw_step(&options, &tensor, sizeof tensor, 1));
  }
  check(adamw_join_weights(&split, param, tensor.param_remainder, weights));

  for (i = 0; i < count; ++i) {
    const double must = 1.0 + (double)i / count + options.lr * steps * (i % 2 == 0 ? -1.0 : 1.0);
    const double off = fabs(weights[i] - must);
    if (!(off <= farthest)) farthest = off;
  }
  printf("every weight is within %g of where it must be\n", farthest);
  free(tensor.exp_avg);
  free(tensor.exp_avg_sq);
  free(tensor.exp_avg_absmax);
  free(tensor.exp_avg_sq_absmax);
  free(tensor.exp_avg_sq_floor);
  free(tensor.param_remainder);
  return farthest < 1e-4 ? EXIT_SUCCESS : EXIT_FAILURE;
}
