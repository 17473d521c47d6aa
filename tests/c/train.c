/* Owns the C example of the README: trains a small network on handwritten digits with nothing but adamw.h and the C
 * library, with 32-bit and with 8-bit optimizer state. Fails unless both learn to read. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <adamw.h>

#include "data/digits.h"

enum { pixels = digit_pixels, hidden = 32, classes = 10, batch_size = 32, epochs = 25 };
#ifdef ADAMW_TESTS_ABRIDGED
enum { seeds = 1 }; /* this project's own tests under sanitizers and emulators */
#else
enum { seeds = 3 };
#endif

/* ---- the optimizer: one row of the table per tensor, one call a step ----------------------------------------------
 */

enum { weight1, bias1, weight2, bias2, tensor_count };
static const int64_t tensor_rows[tensor_count] = {hidden, 1, classes, 1};
static const int64_t row_lengths[tensor_count] = {pixels, hidden, hidden, classes};

static void *zeros(size_t count, size_t size) {
  void *memory = calloc(count, size);
  if (memory == NULL) {
    fprintf(stderr, "out of memory\n");
    exit(EXIT_FAILURE);
  }
  return memory;
}

static void check(adamw_status status) {
  if (status != ADAMW_OK) {
    fprintf(stderr, "%s: %s\n", adamw_status_string(status), adamw_last_error());
    exit(EXIT_FAILURE);
  }
}

/* Allocates a tensor, its gradient and its state; zeros are a valid fresh state. Returns the bytes of state. */
static int64_t create_tensor(adamw_tensor *tensor, adamw_state_format format, int64_t rows, int64_t row_length) {
  adamw_state_layout layout;
  const size_t numel = (size_t)(rows * row_length);
  check(adamw_get_state_layout(format, rows * row_length, row_length, 0, 0, &layout));
  tensor->param = zeros(numel, sizeof(float));
  tensor->grad = zeros(numel, sizeof(float));
  tensor->exp_avg = zeros((size_t)layout.moment_bytes, 1);
  tensor->exp_avg_sq = zeros((size_t)layout.moment_bytes, 1);
  if (layout.absmax_count > 0) {
    tensor->exp_avg_absmax = zeros((size_t)layout.absmax_count, sizeof(float));
    tensor->exp_avg_sq_absmax = zeros((size_t)layout.absmax_count, sizeof(float));
    tensor->exp_avg_sq_floor = zeros((size_t)layout.floor_count, sizeof(float));
  }
  tensor->numel = rows * row_length;
  tensor->row_length = row_length;
  tensor->step = 0;
  return layout.total_bytes;
}

static void destroy_tensor(adamw_tensor *tensor) {
  free(tensor->param);
  free((void *)tensor->grad);
  free(tensor->exp_avg);
  free(tensor->exp_avg_sq);
  free(tensor->exp_avg_absmax);
  free(tensor->exp_avg_sq_absmax);
  free(tensor->exp_avg_sq_floor);
}

static void optimizer_step(const adamw_step_options *options, adamw_tensor *tensors) {
  int i;
  for (i = 0; i < tensor_count; ++i) tensors[i].step += 1;
  check(adamw_step(options, tensors, sizeof *tensors, tensor_count));
}

/* ---- the network: pixels -> hidden (ReLU) -> classes (softmax, cross entropy) -------------------------------------
 */

static unsigned random_state;
static unsigned random_below(unsigned n) {
  random_state = random_state * 1664525u + 1013904223u;
  return (random_state >> 8) % n;
}

static float *param(const adamw_tensor *tensors, int i) { return tensors[i].param; }
static float *grad(const adamw_tensor *tensors, int i) { return (float *)tensors[i].grad; }

static void initialize(const adamw_tensor *tensors, int i) {
  const double bound = sqrt(6.0 / (double)tensors[i].row_length);
  int64_t k;
  for (k = 0; k < tensors[i].numel; ++k) param(tensors, i)[k] = (float)(bound * (random_below(20001) / 10000.0 - 1.0));
}

static int predict(const adamw_tensor *tensors, const char *digit, float *input, float *active, float *probability) {
  int i, k, best = 0;
  float sum = 0.0f;
  for (i = 0; i < pixels; ++i) input[i] = (float)(digit[1 + i] - 'a') / 16.0f;
  for (i = 0; i < hidden; ++i) {
    float x = param(tensors, bias1)[i];
    for (k = 0; k < pixels; ++k) x += param(tensors, weight1)[i * pixels + k] * input[k];
    active[i] = x > 0.0f ? x : 0.0f;
  }
  for (i = 0; i < classes; ++i) {
    probability[i] = param(tensors, bias2)[i];
    for (k = 0; k < hidden; ++k) probability[i] += param(tensors, weight2)[i * hidden + k] * active[k];
    if (probability[i] > probability[best]) best = i;
  }
  {
    const float largest = probability[best];
    for (i = 0; i < classes; ++i) sum += probability[i] = (float)exp(probability[i] - largest);
  }
  for (i = 0; i < classes; ++i) probability[i] /= sum;
  return best;
}

static void add_gradients(const adamw_tensor *tensors, const char *digit) {
  float input[pixels], active[hidden], error[classes];
  int i, k;
  predict(tensors, digit, input, active, error);
  error[digit[0] - '0'] -= 1.0f;
  for (i = 0; i < classes; ++i) error[i] /= (float)batch_size;
  for (k = 0; k < hidden; ++k) {
    float back = 0.0f;
    for (i = 0; i < classes; ++i) {
      back += error[i] * param(tensors, weight2)[i * hidden + k];
      grad(tensors, weight2)[i * hidden + k] += error[i] * active[k];
    }
    if (active[k] <= 0.0f) continue;
    for (i = 0; i < pixels; ++i) grad(tensors, weight1)[k * pixels + i] += back * input[i];
    grad(tensors, bias1)[k] += back;
  }
  for (i = 0; i < classes; ++i) grad(tensors, bias2)[i] += error[i];
}

/* ---- training -----------------------------------------------------------------------------------------------------
 */

/* Every fifth image is for testing. */
static const char *test_image(int i) { return digits[5 * i]; }
static const char *train_image(int i) { return digits[i / 4 * 5 + i % 4 + 1]; }
enum { test_count = (digit_count + 4) / 5, train_count = digit_count - test_count };

/* Returns the share of test images that are read correctly. */
static double train(adamw_state_format format, unsigned seed, int64_t *state_bytes) {
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  adamw_tensor tensors[tensor_count] = {{0}};
  float input[pixels], active[hidden], probability[classes];
  int i, k, right = 0;
  options.state_format = format;
  options.lr = 3e-3;
  options.seed = seed;
  random_state = seed;
  *state_bytes = 0;
  for (i = 0; i < tensor_count; ++i) *state_bytes += create_tensor(&tensors[i], format, tensor_rows[i], row_lengths[i]);
  initialize(tensors, weight1);
  initialize(tensors, weight2);

  for (k = 0; k < epochs * train_count / batch_size; ++k) {
    for (i = 0; i < tensor_count; ++i) {
      int64_t j;
      for (j = 0; j < tensors[i].numel; ++j) grad(tensors, i)[j] = 0.0f;
    }
    for (i = 0; i < batch_size; ++i) add_gradients(tensors, train_image((int)random_below(train_count)));
    optimizer_step(&options, tensors);
  }

  for (i = 0; i < test_count; ++i) {
    right += predict(tensors, test_image(i), input, active, probability) == test_image(i)[0] - '0';
  }
  for (i = 0; i < tensor_count; ++i) destroy_tensor(&tensors[i]);
  return right / (double)test_count;
}

int main(void) {
  /* Guessing reads 10%, the nearest mean image of a digit 88%, this network about 97.5% with a standard error of
   * sqrt(0.975 * 0.025 / 360) = 0.8%: three of these below it is 95%. */
  const double needed = 0.95;
  const adamw_state_format formats[] = {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8, ADAMW_STATE_TENSOR8};
  const char *names[] = {"32-bit", "8-bit, a scale per block", "8-bit, a scale per tensor"};
  int i, failed = 0;
  unsigned seed;
  if (adamw_abi_version() != ADAMW_ABI_VERSION) {
    fprintf(stderr, "adamw.h and the library belong to different versions\n");
    return EXIT_FAILURE;
  }
  printf("%s\n", adamw_build_info());
  for (i = 0; i < 3; ++i) {
    for (seed = 1; seed <= seeds; ++seed) {
      int64_t bytes;
      const double accuracy = train(formats[i], seed, &bytes);
      printf("%-26s seed %u: %6.2f%% of %d digits, %5ld bytes of state\n", names[i], seed, 100.0 * accuracy, test_count,
             (long)bytes);
      failed |= accuracy < needed;
    }
  }
  if (failed) fprintf(stderr, "FAILED: at least %.0f%% were expected\n", 100.0 * needed);
  return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
