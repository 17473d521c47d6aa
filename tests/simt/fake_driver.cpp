// Owns the functions of the fake driver for devices, code, launches and pools: what each checks and does. (Those for
// streams, events and other memory: fake_streams.cpp.)
#include <cstring>

#include "fake_world.h"
#include "runtime.h"

namespace simt {
namespace {

constexpr struct {
  Result result;
  const char *name, *text;
} errors[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "system has unsupported display driver / cuda driver combination"}};

}  // namespace

namespace entries {

Result cuInit(unsigned flags) {
  ENTER(nothing);
  if (flags != 0) return invalid_value;
  if (world().driver.at_init != 0) return world().driver.at_init;
  world().initialized = true;
  return 0;
}
Result cuDriverGetVersion(int *version) {
  ENTER(nothing);
  *version = world().driver.driver_version;
  return 0;
}
Result cuGetErrorName(Result error, const char **name) {
  for (const auto &e : errors)
    if (e.result == error) return *name = e.name, 0;
  *name = nullptr;
  return invalid_value;
}
Result cuGetErrorString(Result error, const char **text) {
  for (const auto &e : errors)
    if (e.result == error) return *text = e.text, 0;
  *text = nullptr;
  return invalid_value;
}
Result cuDeviceGetCount(int *count) {
  ENTER(initialization);
  *count = world().driver.devices;
  return 0;
}
Result cuDeviceGet(gpu::Device *device, int ordinal) {
  ENTER(initialization);
  if (ordinal < 0 || ordinal >= world().driver.devices) return invalid_device;
  *device = ordinal;
  return 0;
}
Result cuDeviceGetAttribute(int *value, int attribute, gpu::Device device) {
  ENTER(initialization);
  const FakeDriver &d = world().driver;
  if (device < 0 || device >= d.devices) return invalid_device;
  const auto other = d.attributes.find(attribute);
  if (attribute == gpu::multiprocessors) {
    *value = d.multiprocessors;
  } else if (attribute == gpu::memory_pools_supported) {
    *value = d.memory_pools;
  } else if (other != d.attributes.end()) {
    *value = other->second;
  } else {
    return refuse(__func__, invalid_value, "an attribute that the fake driver does not know");
  }
  return 0;
}
Result cuDevicePrimaryCtxRetain(gpu::Context *context, gpu::Device device) {
  ENTER(initialization);
  if (device < 0 || device >= world().driver.devices) return invalid_device;
  *context = context_of(device);
  ++world().held;
  return 0;
}
Result cuDevicePrimaryCtxRelease_v2(gpu::Device) {
  ENTER(initialization);
  --world().held;
  return 0;
}
Result cuCtxPushCurrent_v2(gpu::Context context) {
  ENTER(initialization);
  if (device_of(context) < 0) return refuse(__func__, invalid_context, "not a context");
  current_contexts().push_back(context);
  return 0;
}
Result cuCtxPopCurrent_v2(gpu::Context *context) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, simt::context);
  if (current_contexts().empty()) return result;
  if (context != nullptr) *context = current_contexts().back();
  current_contexts().pop_back();
  return result;
}
Result cuLibraryLoadData(gpu::Library *library, const void *code, int *, void **, unsigned, int *, void **, unsigned) {
  ENTER(initialization);
  if (code == nullptr) return refuse(__func__, invalid_value, "no code");
  *library = reinterpret_cast<gpu::Library>(world().libraries);
  ++world().held;
  return 0;
}
Result cuLibraryUnload(gpu::Library library) {
  ENTER(initialization);
  if (library != reinterpret_cast<gpu::Library>(world().libraries))
    return refuse(__func__, invalid_handle, "not a library");
  --world().held;
  return 0;
}
Result cuLibraryGetKernel(gpu::Kernel *kernel, gpu::Library library, const char *name) {
  ENTER(initialization);
  if (library != reinterpret_cast<gpu::Library>(world().libraries))
    return refuse(__func__, invalid_handle, "not a library");
  for (const KernelEntry &entry : world().kernels) {
    if (std::strcmp(entry.name, name) != 0) continue;
    *kernel = reinterpret_cast<gpu::Kernel>(const_cast<KernelEntry *>(&entry));
    return 0;
  }
  return refuse(__func__, not_found, name);
}
Result cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, gpu::Kernel kernel, int threads, std::size_t) {
  ENTER(context);
  if (kernel == nullptr || static_cast<unsigned>(threads) != reinterpret_cast<const KernelEntry *>(kernel)->threads)
    return refuse(__func__, invalid_value, "a wrong argument");
  *blocks = world().driver.blocks_per_multiprocessor;
  return 0;
}

Result cuLaunchKernel(gpu::Kernel kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, gpu::Stream stream, void **params,
                      void **extra) {
  ENTER(context_and_stream, stream);
  const auto *entry = reinterpret_cast<const KernelEntry *>(kernel);
  bool known = false;
  for (const KernelEntry &other : world().kernels) known = known || &other == entry;
  if (!known) return refuse(__func__, invalid_handle, "not a kernel");
  if (grid_x == 0 || grid_x > 0x7FFFFFFFu || grid_y != 1 || grid_z != 1 || block_x != entry->threads || block_y != 1 ||
      block_z != 1 || shared_bytes != 0 || extra != nullptr || params == nullptr || params[0] == nullptr)
    return refuse(__func__, invalid_value, "a launch that cannot be");
  world().driver.launched.push_back(entry->name);
  // A launch takes its parameters with it. Aligned as a kernel finds them.
  struct alignas(16) Chunk {
    unsigned char bytes[16];
  };
  std::vector<Chunk> copy(entry->params_bytes / sizeof(Chunk) + 1);
  std::memcpy(copy.data(), params[0], entry->params_bytes);
  queue(stream, [=, copy = std::move(copy)] {
    if (world().broken == 0 && !run({entry->name, grid_x, block_x, entry->run, copy.data()})) world().broken = 719;
  });
  return 0;
}

Result cuMemPoolCreate(gpu::Pool *pool, const gpu::PoolProperties *properties) {
  ENTER(initialization);
  if (!world().driver.memory_pools) return not_supported;
  if (properties->allocation_type != gpu::allocation_pinned || properties->location.type != gpu::location_device ||
      properties->location.id < 0 || properties->location.id >= world().driver.devices || properties->handle_types != 0)
    return refuse(__func__, invalid_value, "wrong properties");
  for (const unsigned char byte : properties->reserved)
    if (byte != 0) return refuse(__func__, invalid_value, "reserved bytes are not 0");
  world().pool_devices.push_back(properties->location.id);
  *pool = reinterpret_cast<gpu::Pool>(&world().pool_devices.back());
  ++world().held;
  return 0;
}
static bool is_pool(gpu::Pool pool) {
  for (const int &device : world().pool_devices)
    if (reinterpret_cast<const int *>(pool) == &device) return true;
  return false;
}
Result cuMemPoolDestroy(gpu::Pool pool) {
  ENTER(initialization);
  if (!is_pool(pool)) return refuse(__func__, invalid_value, "not a pool");
  --world().held;
  return 0;
}
Result cuMemPoolSetAttribute(gpu::Pool pool, int attribute, void *value) {
  ENTER(initialization);
  if (!is_pool(pool) || attribute != gpu::pool_release_threshold || value == nullptr)
    return refuse(__func__, invalid_value, "a wrong argument");
  return 0;
}
Result cuMemAllocFromPoolAsync(gpu::Pointer *memory, std::size_t bytes, gpu::Pool pool, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  if (!is_pool(pool) || bytes == 0) return refuse(__func__, invalid_value, "a wrong argument");
  const int device = *reinterpret_cast<const int *>(pool);
  *memory = allocate(bytes, device, stream);
  if (*memory == 0) return out_of_memory;
  return 0;
}
Result cuMemFreeAsync(gpu::Pointer memory, gpu::Stream stream) {
  const Lock lock(world().mutex);
  const Result result = enter(__func__, context_and_stream, stream);
  const auto it = world().allocations.find(memory);
  if (it == world().allocations.end() || it->second.freed || it->second.kind != Kind::pool)
    return refuse(__func__, invalid_value, "memory that is not allocated");
  if (it->second.stream != stream) note(__func__, "on another stream than it was allocated on");
  it->second.freed = true;
  queue(stream, [memory] { release(memory); });
  return result;
}
Result cuMemsetD32Async(gpu::Pointer memory, unsigned value, std::size_t count, gpu::Stream stream) {
  ENTER(context_and_stream, stream);
  if (memory % 4 != 0) return refuse(__func__, invalid_value, "misaligned memory");
  auto it = world().allocations.upper_bound(memory);
  if (it == world().allocations.begin() || memory + count * 4 > (--it, it->first + it->second.bytes))
    return refuse(__func__, invalid_value, "memory that is not allocated");
  queue(stream, [=] {
    const bool lives = find(Kind::pool, memory, count * 4) || find(Kind::device, memory, count * 4) ||
                       find(Kind::managed, memory, count * 4);
    if (!lives) return note("cuMemsetD32Async", "of memory that has been freed meanwhile");
    for (std::size_t i = 0; i < count; ++i) reinterpret_cast<unsigned *>(memory)[i] = value;
  });
  return 0;
}

}  // namespace entries

const gpu::Driver *fake_driver() {
#define SIMT_ENTRY(name, arguments) entries::name,
  static gpu::Driver table = {ADAMW_DRIVER_FUNCTIONS(SIMT_ENTRY) ADAMW_OPTIONAL_DRIVER_FUNCTIONS(SIMT_ENTRY)};
#undef SIMT_ENTRY
  const int hints = fake().hints;
  table.cuMemPrefetchAsync_v2 = hints == 2 ? entries::cuMemPrefetchAsync_v2 : nullptr;
  table.cuMemAdvise_v2 = hints == 2 ? entries::cuMemAdvise_v2 : nullptr;
  table.cuMemPrefetchAsync = hints >= 1 ? entries::cuMemPrefetchAsync : nullptr;
  table.cuMemAdvise = hints >= 1 ? entries::cuMemAdvise : nullptr;
  return &table;
}

}  // namespace simt
