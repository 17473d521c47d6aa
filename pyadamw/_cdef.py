"""Generated from include/adamw.h by ci/generate_cdef.py: do not edit. The C interface of libadamw."""

VERSION_MAJOR = 1
VERSION_MINOR = 0
VERSION_PATCH = 0
ABI_VERSION = 1
BLOCK_SIZE = 256
GNORM_HISTORY = 100

SIZES = {
    "adamw_status": 4,
    "adamw_dtype": 4,
    "adamw_state_layout": 32,
    "adamw_tensor": 112,
    "adamw_step_options": 152,
    "adamw_quantize_options": 80,
    "adamw_pager_options": 48,
    "adamw_pager_statistics": 96,
    "adamw_tensor_form": 32,
    "adamw_describe_options": 72,
}
OFFSETS = {
    ("adamw_tensor", "numel"): 72,
    ("adamw_tensor", "step_tensor"): 104,
    ("adamw_step_options", "param_dtype"): 56,
    ("adamw_step_options", "seed"): 88,
    ("adamw_step_options", "lr_tensor"): 128,
    ("adamw_quantize_options", "numel"): 32,
    ("adamw_step_options", "pager"): 136,
    ("adamw_pager_options", "resident_bytes"): 16,
    ("adamw_pager_statistics", "bytes_in"): 64,
    ("adamw_tensor_form", "contiguous"): 28,
    ("adamw_describe_options", "objects"): 64,
}

CDEF = """
typedef enum adamw_status {
  ADAMW_OK = 0,
  ADAMW_ERROR_INVALID_ARGUMENT = 1,
  ADAMW_ERROR_VERSION = 2,
  ADAMW_ERROR_UNSUPPORTED = 3,
  ADAMW_ERROR_OUT_OF_MEMORY = 4,
  ADAMW_ERROR_INTERNAL = 5,
  ADAMW_ERROR_DEVICE = 6,
  ADAMW_ERROR_STORAGE = 7
} adamw_status;

const char *adamw_status_string(adamw_status status);

const char *adamw_last_error(void);

int32_t adamw_version(void);

int32_t adamw_abi_version(void);

const char *adamw_build_info(void);

adamw_status adamw_set_num_threads(int32_t num_threads);

int32_t adamw_get_num_threads(void);

adamw_status adamw_cpu_kernel(const char **name);

typedef enum adamw_dtype {
  ADAMW_FLOAT32 = 0,
  ADAMW_BFLOAT16 = 1,
  ADAMW_FLOAT16 = 2
} adamw_dtype;

typedef enum adamw_state_format {
  ADAMW_STATE_FLOAT32 = 0,
  ADAMW_STATE_BLOCK8 = 1,
  ADAMW_STATE_TENSOR8 = 2
} adamw_state_format;

typedef struct adamw_state_layout {
  int64_t moment_bytes;
  int64_t absmax_count;
  int64_t blocks_per_row;
  int64_t total_bytes;
} adamw_state_layout;

adamw_status adamw_get_state_layout(adamw_state_format format, int64_t numel, int64_t row_length, int32_t amsgrad,
                                              adamw_state_layout *layout);

typedef struct adamw_tensor {
  void *param;
  const void *grad;
  void *exp_avg;
  void *exp_avg_sq;
  void *max_exp_avg_sq;
  float *exp_avg_absmax;
  float *exp_avg_sq_absmax;
  float *max_exp_avg_sq_absmax;
  float *gnorm_history;
  int64_t numel;
  int64_t row_length;
  int64_t step;
  int64_t global_offset;
  const float *step_tensor;
} adamw_tensor;

typedef enum adamw_step_flags {
  ADAMW_STEP_AMSGRAD = 1,
  ADAMW_STEP_MAXIMIZE = 2,
  ADAMW_STEP_STOCHASTIC_ROUNDING = 4,
  ADAMW_STEP_SKIP_ZEROS = 8
} adamw_step_flags;

typedef struct adamw_pager adamw_pager;

typedef struct adamw_step_options {
  size_t size;
  double lr;
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  double max_unorm;
  int32_t param_dtype;
  int32_t grad_dtype;
  int32_t state_format;
  uint32_t flags;
  int32_t percentile_clipping;
  int32_t device;
  int32_t num_threads;
  int32_t reserved;
  uint64_t seed;
  const float *grad_scale;
  const float *found_inf;
  int64_t *skipped;
  void *stream;
  const float *lr_tensor;
  adamw_pager *pager;
  int64_t *rows_stepped;
} adamw_step_options;

adamw_status adamw_step(const adamw_step_options *options, const adamw_tensor *tensors, size_t tensor_size,
                                  int64_t count);

typedef enum adamw_map { ADAMW_MAP_SIGNED = 0, ADAMW_MAP_UNSIGNED = 1 } adamw_map;

adamw_status adamw_codebook(adamw_map map, float *values);

typedef enum adamw_rounding {
  ADAMW_ROUND_NEAREST = 0,
  ADAMW_ROUND_STOCHASTIC = 1
} adamw_rounding;

typedef struct adamw_quantize_options {
  size_t size;
  int32_t map;
  int32_t state_format;
  int32_t rounding;
  int32_t device;
  int32_t num_threads;
  int32_t reserved;
  int64_t numel;
  int64_t row_length;
  int64_t step;
  int64_t global_offset;
  uint64_t seed;
  void *stream;
} adamw_quantize_options;

adamw_status adamw_quantize(const adamw_quantize_options *options, const float *source, uint8_t *codes, float *absmax);

adamw_status adamw_dequantize(const adamw_quantize_options *options, const uint8_t *codes, const float *absmax,
                                        float *target);

typedef enum adamw_place {
  ADAMW_PLACE_HOST = 0,
  ADAMW_PLACE_FILE = 1,
  ADAMW_PLACE_PINNED = 2,
  ADAMW_PLACE_MANAGED = 3,
  ADAMW_PLACE_DEVICE = 4
} adamw_place;

typedef struct adamw_pager_options {
  size_t size;
  int32_t backing;
  int32_t device;
  int64_t resident_bytes;
  int64_t chunk_bytes;
  int64_t reserve_bytes;
  const char *directory;
} adamw_pager_options;

typedef struct adamw_pager_statistics {
  int64_t buffers;
  int64_t host_bytes;
  int64_t file_bytes;
  int64_t pinned_bytes;
  int64_t managed_bytes;
  int64_t device_bytes;
  int64_t resident_bytes;
  int64_t resident_peak_bytes;
  int64_t bytes_in;
  int64_t bytes_out;
  int64_t wait_ns;
  int64_t faults_avoided;
} adamw_pager_statistics;

adamw_status adamw_pager_create(const adamw_pager_options *options, adamw_pager **pager);

adamw_status adamw_pager_destroy(adamw_pager *pager);

adamw_status adamw_pager_alloc(adamw_pager *pager, int64_t bytes, void **buffer, int32_t *place);

adamw_status adamw_pager_free(adamw_pager *pager, void *buffer);

adamw_status adamw_pager_acquire(adamw_pager *pager, void *address, int64_t bytes, void *stream, void **usable);

adamw_status adamw_pager_release(adamw_pager *pager, void *usable, int32_t dirty, void *stream);

adamw_status adamw_pager_prefetch(adamw_pager *pager, void *address, int64_t bytes, void *stream);

adamw_status adamw_pager_wait(adamw_pager *pager);

adamw_status adamw_pager_stats(adamw_pager *pager, adamw_pager_statistics *statistics, size_t size);

typedef struct adamw_tensor_form {
  int64_t numel;
  uint64_t shape;
  int32_t device_type;
  int32_t device_id;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  int32_t contiguous;
} adamw_tensor_form;

typedef int (*adamw_dlpack_function)(void *object, void *dl_tensor);

typedef void *(*adamw_item_function)(void *sequence, ptrdiff_t index);

typedef struct adamw_describe_options {
  size_t size;
  adamw_dlpack_function describe;
  adamw_item_function item;
  int64_t count;
  void *addresses;
  size_t stride;
  adamw_tensor_form *forms;
  size_t form_size;
  void **objects;
} adamw_describe_options;

adamw_status adamw_describe_tensors(void *sequence, const adamw_describe_options *options);
"""
