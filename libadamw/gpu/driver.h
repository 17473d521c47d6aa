// Owns the CUDA driver as this library sees it: the few functions that it calls, found in libcuda.so.1 at run time. No
// CUDA header and no CUDA library is needed to build it, and without a driver it is an error message, not a load
// failure. Knows no kernels.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adamw {
namespace gpu {

// The driver's own types, as its ABI has them.
using Result = int;  // CUresult; 0 is success
using Device = int;
using Pointer = unsigned long long;  // CUdeviceptr
using Context = struct ContextOpaque *;
using Library = struct LibraryOpaque *;
using Kernel = struct KernelOpaque *;
using Stream = struct StreamOpaque *;
using Pool = struct PoolOpaque *;

struct PoolProperties {  // CUmemPoolProps
  int allocation_type, handle_types;
  struct {
    int type, id;
  } location;
  void *win32_attributes;
  std::size_t most_bytes;
  unsigned short usage;
  unsigned char reserved[54];
};
static_assert(sizeof(PoolProperties) == 88, "CUmemPoolProps");

constexpr int allocation_pinned = 1, location_device = 1;  // CU_MEM_ALLOCATION_TYPE_PINNED, CU_MEM_LOCATION_TYPE_DEVICE
constexpr int pool_release_threshold = 4;                  // CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
constexpr int multiprocessors = 16, memory_pools_supported = 115;  // CUdevice_attribute

// name, result, arguments: one line per function of the driver. The macro is given each of them.
#define ADAMW_DRIVER_FUNCTIONS(F)                                                                                     \
  F(cuInit, (unsigned flags))                                                                                         \
  F(cuDriverGetVersion, (int *version))                                                                               \
  F(cuGetErrorName, (Result error, const char **name))                                                                \
  F(cuGetErrorString, (Result error, const char **text))                                                              \
  F(cuDeviceGetCount, (int *count))                                                                                   \
  F(cuDeviceGet, (Device * device, int ordinal))                                                                      \
  F(cuDeviceGetAttribute, (int *value, int attribute, Device device))                                                 \
  F(cuDevicePrimaryCtxRetain, (Context * context, Device device))                                                     \
  F(cuDevicePrimaryCtxRelease_v2, (Device device))                                                                    \
  F(cuCtxPushCurrent_v2, (Context context))                                                                           \
  F(cuCtxPopCurrent_v2, (Context * context))                                                                          \
  F(cuLibraryLoadData, (Library * library, const void *code, int *jit_options, void **jit_values, unsigned jit_count, \
                        int *options, void **values, unsigned count))                                                 \
  F(cuLibraryUnload, (Library library))                                                                               \
  F(cuLibraryGetKernel, (Kernel * kernel, Library library, const char *name))                                         \
  F(cuLaunchKernel,                                                                                                   \
    (Kernel kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,            \
     unsigned block_z, unsigned shared_bytes, Stream stream, void **params, void **extra))                            \
  F(cuOccupancyMaxActiveBlocksPerMultiprocessor, (int *blocks, Kernel kernel, int threads, std::size_t shared_bytes)) \
  F(cuMemPoolCreate, (Pool * pool, const PoolProperties *properties))                                                 \
  F(cuMemPoolDestroy, (Pool pool))                                                                                    \
  F(cuMemPoolSetAttribute, (Pool pool, int attribute, void *value))                                                   \
  F(cuMemAllocFromPoolAsync, (Pointer * memory, std::size_t bytes, Pool pool, Stream stream))                         \
  F(cuMemFreeAsync, (Pointer memory, Stream stream))                                                                  \
  F(cuMemsetD32Async, (Pointer memory, unsigned value, std::size_t count, Stream stream))

struct Driver {
#define ADAMW_FIELD(name, arguments) Result(*name) arguments;
  ADAMW_DRIVER_FUNCTIONS(ADAMW_FIELD)
#undef ADAMW_FIELD
};

// The loaded driver; null with *error set to what is missing. The search happens once.
const Driver *driver(const char **error);

// Tests put their own driver in its place; null: libcuda.so.1 again. Forgets what was opened with the one before.
void replace_driver(const Driver *stand_in);  // device_state.cpp
void set_driver(const Driver *stand_in);      // that part of it which is the search's

}  // namespace gpu
}  // namespace adamw
