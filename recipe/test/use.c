/* A program that links libadamw: one step of four parameters, and the version that is expected. The test of libadamw-dev. */
#include <adamw.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  float weights[4] = {1, 1, 1, 1}, gradient[4] = {1, -1, 1, -1}, exp_avg[4] = {0}, exp_avg_sq[4] = {0};
  adamw_tensor tensor = {0};
  tensor.param = weights;
  tensor.grad = gradient;
  tensor.exp_avg = exp_avg;
  tensor.exp_avg_sq = exp_avg_sq;
  tensor.numel = tensor.row_length = 4;
  tensor.step = 1;
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  options.lr = 0.1;
  if (adamw_step(&options, &tensor, sizeof tensor, 1) != ADAMW_OK) {
    fprintf(stderr, "%s\n", adamw_last_error());
    return 1;
  }
  printf("%s: %g %g\n", adamw_build_info(), weights[0], weights[1]);
  /* The first step moves each weight by lr, whatever its gradient; weight decay adds less than a hundredth of that. */
  if (fabs(weights[0] - 0.9) > 0.002 || fabs(weights[1] - 1.1) > 0.002) return 1;

  char version[32];
  int v = adamw_version();
  snprintf(version, sizeof version, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
  return argc != 2 || strcmp(version, argv[1]) != 0;
}
