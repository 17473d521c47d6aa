/* Trains a small network from C99 with 8-bit optimizer state, writes a checkpoint of weights and state into a file, and
 * goes on from it with the same bits. Everything about the library is in adamw.h.
 *
 * Build: cc -std=c99 -O2 train.c $(pkg-config --cflags --libs libadamw) -lm -o train; or CMakeLists.txt beside it.
 * Run: ./train
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <adamw.h>

enum { inputs = 64, hidden = 128, batch = 64, steps = 200, save_at = 100 };

static void require(int good, const char *what) {
  if (good) return;
  fprintf(stderr, "%s\n", what);
  exit(EXIT_FAILURE);
}

static void check(adamw_status status) { require(status == ADAMW_OK, adamw_last_error()); }

static void *zeros(size_t bytes) {
  void *memory = calloc(bytes, 1);
  require(memory != NULL, "out of memory");
  return memory;
}

/* ---- the model: y = output . tanh(weight x), and its optimizer state ------------------------------------------------
 */

enum { weight, output, tensor_count };
static const int64_t tensor_rows[tensor_count] = {hidden, 1}, row_lengths[tensor_count] = {inputs, hidden};

/* Rows of a table for adamw_step(). Memory of zeros is a valid fresh state. */
static void create(adamw_tensor *tensors) {
  int i;
  for (i = 0; i < tensor_count; ++i) {
    adamw_tensor *tensor = &tensors[i];
    adamw_state_layout layout;
    memset(tensor, 0, sizeof *tensor);
    tensor->numel = tensor_rows[i] * row_lengths[i];
    tensor->row_length = row_lengths[i];
    check(adamw_get_state_layout(ADAMW_STATE_BLOCK8, tensor->numel, tensor->row_length, 0, 0, &layout));
    tensor->param = zeros((size_t)tensor->numel * sizeof(float));
    tensor->grad = zeros((size_t)tensor->numel * sizeof(float));
    tensor->exp_avg = zeros((size_t)layout.moment_bytes);
    tensor->exp_avg_sq = zeros((size_t)layout.moment_bytes);
    tensor->exp_avg_absmax = zeros((size_t)layout.absmax_count * sizeof(float));
    tensor->exp_avg_sq_absmax = zeros((size_t)layout.absmax_count * sizeof(float));
    tensor->exp_avg_sq_floor = zeros((size_t)layout.floor_count * sizeof(float));
  }
}

static void destroy(adamw_tensor *tensors) {
  int i;
  for (i = 0; i < tensor_count; ++i) {
    free(tensors[i].param);
    free((void *)tensors[i].grad);
    free(tensors[i].exp_avg);
    free(tensors[i].exp_avg_sq);
    free(tensors[i].exp_avg_absmax);
    free(tensors[i].exp_avg_sq_absmax);
    free(tensors[i].exp_avg_sq_floor);
  }
}

static unsigned random_state;
static float random_number(void) { /* in -1 ... 1 */
  random_state = random_state * 1664525u + 1013904223u;
  return (float)(random_state >> 8) / 8388608.0f - 1.0f;
}

static void initialize(adamw_tensor *tensors) {
  int i;
  int64_t k;
  random_state = 1;
  for (i = 0; i < tensor_count; ++i) {
    float *values = tensors[i].param;
    for (k = 0; k < tensors[i].numel; ++k) values[k] = random_number() / (float)sqrt((double)row_lengths[i]);
  }
}

/* Fills in the gradients for one batch, and returns its mean squared error. */
static double add_gradients(const adamw_tensor *tensors, int step) {
  const float *w = tensors[weight].param, *out = tensors[output].param;
  float *dw = (float *)tensors[weight].grad, *dout = (float *)tensors[output].grad;
  double loss = 0.0;
  int example, i, k;
  memset(dw, 0, hidden * inputs * sizeof(float));
  memset(dout, 0, hidden * sizeof(float));
  random_state = (unsigned)step + 1000u; /* the same batch for the same step */
  for (example = 0; example < batch; ++example) {
    float x[inputs], active[hidden], error = 0.0f;
    for (k = 0; k < inputs; ++k) x[k] = random_number();
    for (i = 0; i < hidden; ++i) {
      float sum = 0.0f;
      for (k = 0; k < inputs; ++k) sum += w[i * inputs + k] * x[k];
      active[i] = (float)tanh(sum);
      error += out[i] * active[i];
    }
    error -= x[0] + x[1] - x[2]; /* what it should learn */
    loss += error * error / batch;
    for (i = 0; i < hidden; ++i) {
      const float slope = 2.0f / batch * error, back = slope * out[i] * (1.0f - active[i] * active[i]);
      dout[i] += slope * active[i];
      for (k = 0; k < inputs; ++k) dw[i * inputs + k] += back * x[k];
    }
  }
  return loss;
}

static double train(adamw_tensor *tensors, int first, int last) {
  adamw_step_options options = ADAMW_STEP_OPTIONS_INIT;
  double loss = 0.0;
  int step, i;
  options.state_format = ADAMW_STATE_BLOCK8;
  options.lr = 3e-3;
  options.weight_decay = 0.01;
  for (step = first; step < last; ++step) {
    loss = add_gradients(tensors, step);
    for (i = 0; i < tensor_count; ++i) tensors[i].step = step + 1; /* the number of this step, from 1 */
    check(adamw_step(&options, tensors, sizeof *tensors, tensor_count));
  }
  return loss;
}

/* ---- the checkpoint: the step count, and for each tensor its weights and its state ----------------------------------
 */

typedef size_t transfer(void *memory, size_t size, size_t count, FILE *file);

static size_t writing(void *memory, size_t size, size_t count, FILE *file) { return fwrite(memory, size, count, file); }

/* Writes (`writing`) or reads (`fread`) all that a run needs to go on. */
static void checkpoint(adamw_tensor *tensors, transfer *call, FILE *file) {
  int i;
  for (i = 0; i < tensor_count; ++i) {
    adamw_tensor *t = &tensors[i];
    adamw_state_layout layout;
    size_t count, done, wanted;
    check(adamw_get_state_layout(ADAMW_STATE_BLOCK8, t->numel, t->row_length, 0, 0, &layout));
    count = (size_t)layout.moment_bytes;
    done = call(&t->step, sizeof t->step, 1, file) + call(t->param, sizeof(float), (size_t)t->numel, file);
    done += call(t->exp_avg, 1, count, file) + call(t->exp_avg_sq, 1, count, file);
    done += call(t->exp_avg_absmax, sizeof(float), (size_t)layout.absmax_count, file);
    done += call(t->exp_avg_sq_absmax, sizeof(float), (size_t)layout.absmax_count, file);
    done += call(t->exp_avg_sq_floor, sizeof(float), (size_t)layout.floor_count, file);
    wanted = 1 + (size_t)t->numel + 2 * count + 2 * (size_t)layout.absmax_count + (size_t)layout.floor_count;
    require(done == wanted, "cannot write or read the checkpoint");
  }
}

int main(void) {
  adamw_tensor whole[tensor_count], resumed[tensor_count];
  double early, late;
  FILE *file;
  require(adamw_abi_version() == ADAMW_ABI_VERSION, "adamw.h and the library belong to different versions");
  printf("%s\n", adamw_build_info());

  create(whole);
  initialize(whole);
  early = train(whole, 0, 1);
  train(whole, 1, save_at);
  file = fopen("train.checkpoint", "wb");
  require(file != NULL, "cannot open train.checkpoint");
  checkpoint(whole, writing, file);
  printf("%ld bytes of weights and 8-bit state in train.checkpoint\n", ftell(file));
  require(fclose(file) == 0, "cannot write train.checkpoint");
  late = train(whole, save_at, steps);
  printf("loss %.4f -> %.4f\n", early, late);

  create(resumed);
  file = fopen("train.checkpoint", "rb");
  require(file != NULL, "cannot open train.checkpoint");
  checkpoint(resumed, fread, file);
  fclose(file);
  train(resumed, (int)resumed[weight].step, steps);
  printf("the resumed run ends with the same bits: %s\n",
         memcmp(whole[weight].param, resumed[weight].param, hidden * inputs * sizeof(float)) == 0 ? "yes" : "no");
  destroy(whole);
  destroy(resumed);
  return EXIT_SUCCESS;
}
