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
using Event = struct EventOpaque *;

struct Location {  // CUmemLocation
  int type, id;
};

struct PoolProperties {  // CUmemPoolProps
  int allocation_type, handle_types;
  Location location;
  void *win32_attributes;
  std::size_t max_bytes;
  unsigned short usage;
  unsigned char reserved[54];
};
static_assert(sizeof(PoolProperties) == 88, "CUmemPoolProps");

constexpr int allocation_pinned = 1;                     // CU_MEM_ALLOCATION_TYPE_PINNED
constexpr int location_device = 1, location_host = 2;    // CUmemLocationType
constexpr Device host_device = -1;                       // CU_DEVICE_CPU, which older drivers take instead
constexpr int prefer_location = 3;                       // CU_MEM_ADVISE_SET_PREFERRED_LOCATION
constexpr unsigned host_portable = 1, host_mapped = 2;   // CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTALLOC_DEVICEMAP
constexpr unsigned managed_global = 1;                   // CU_MEM_ATTACH_GLOBAL
constexpr unsigned stream_alone = 1, event_untimed = 2;  // CU_STREAM_NON_BLOCKING, CU_EVENT_DISABLE_TIMING
constexpr int pool_release_threshold = 4;                // CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
constexpr int multiprocessors = 16, concurrent_managed_access = 89, memory_pools_supported = 115;  // CUdevice_attribute

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
  F(cuMemsetD32Async, (Pointer memory, unsigned value, std::size_t count, Stream stream))                             \
  F(cuMemGetInfo_v2, (std::size_t *free, std::size_t *all))                                                           \
  F(cuMemAlloc_v2, (Pointer * memory, std::size_t bytes))                                                             \
  F(cuMemFree_v2, (Pointer memory))                                                                                   \
  F(cuMemHostAlloc, (void **memory, std::size_t bytes, unsigned flags))                                               \
  F(cuMemFreeHost, (void *memory))                                                                                    \
  F(cuMemAllocManaged, (Pointer * memory, std::size_t bytes, unsigned flags))                                         \
  F(cuMemcpyHtoDAsync_v2, (Pointer to, const void *from, std::size_t bytes, Stream stream))                           \
  F(cuMemcpyDtoHAsync_v2, (void *to, Pointer from, std::size_t bytes, Stream stream))                                 \
  F(cuStreamCreate, (Stream * stream, unsigned flags))                                                                \
  F(cuStreamDestroy_v2, (Stream stream))                                                                              \
  F(cuStreamSynchronize, (Stream stream))                                                                             \
  F(cuStreamWaitEvent, (Stream stream, Event event, unsigned flags))                                                  \
  F(cuStreamIsCapturing, (Stream stream, int *status))                                                                \
  F(cuEventCreate, (Event * event, unsigned flags))                                                                   \
  F(cuEventDestroy_v2, (Event event))                                                                                 \
  F(cuEventRecord, (Event event, Stream stream))                                                                      \
  F(cuEventSynchronize, (Event event))

// Those that a driver may lack; null then. The first two are the others' successors since CUDA 12.2.
#define ADAMW_OPTIONAL_DRIVER_FUNCTIONS(F)                                                                        \
  F(cuMemPrefetchAsync_v2, (Pointer memory, std::size_t bytes, Location location, unsigned flags, Stream stream)) \
  F(cuMemAdvise_v2, (Pointer memory, std::size_t bytes, int advice, Location location))                           \
  F(cuMemPrefetchAsync, (Pointer memory, std::size_t bytes, Device device, Stream stream))                        \
  F(cuMemAdvise, (Pointer memory, std::size_t bytes, int advice, Device device))

struct Driver {
#define ADAMW_FIELD(name, arguments) Result(*name) arguments;
  ADAMW_DRIVER_FUNCTIONS(ADAMW_FIELD)
  ADAMW_OPTIONAL_DRIVER_FUNCTIONS(ADAMW_FIELD)
#undef ADAMW_FIELD
};

// The loaded driver; null with *error set to what is missing. The search happens once.
const Driver *driver(const char **error);

// Tests put their own driver in its place; null: libcuda.so.1 again. Forgets what was opened with the one before.
void replace_driver(const Driver *stand_in);  // device_state.cpp
void set_driver(const Driver *stand_in);      // that part of it which is the search's

}  // namespace gpu
}  // namespace adamw
