// Owns what is an operating system's, a processor's or a compiler's, outside of the kernels: a port to another is these
// declarations, in platform_SYSTEM.cpp, platform_cpu.cpp and platform_loader.cpp. Knows nothing of the library.
//
// Two things are beside it. The kernels' instructions are in cpu/registers_*.h. Pages in files (pager/file*, arenas,
// snapshot) are Linux's; a system without ADAMW_HAS_FILE_PAGES does without them.
#pragma once

#include <cstddef>
#include <cstdint>

// ---- the compiler: gcc, clang and those that do as they do ----

#define ADAMW_ALWAYS __attribute__((always_inline))
#define ADAMW_INLINE inline __attribute__((always_inline))
#define ADAMW_NEVER_INLINE __attribute__((noinline))
#define ADAMW_NOT_EXPORTED __attribute__((visibility("hidden")))
#define ADAMW_WEAK __attribute__((weak))  // null where nobody defines it
#define ADAMW_UNREACHABLE() __builtin_unreachable()
#define ADAMW_PREFETCH(address) __builtin_prefetch(address)

// Of a function like printf: its format is argument `format`, and what goes in begins at `first`.
#if defined(__MINGW32__)
#define ADAMW_PRINTF(format, first) __attribute__((__format__(gnu_printf, format, first)))
#else
#define ADAMW_PRINTF(format, first) __attribute__((__format__(printf, format, first)))
#endif

// ---- the processor ----

#if defined(__x86_64__)
#define ADAMW_X86_64
#elif defined(__aarch64__)
#define ADAMW_AARCH64
#endif

// ---- the system ----

#if defined(__linux__)
#define ADAMW_HAS_FILE_PAGES
#endif

namespace adamw {

// Whether this processor has it, and the system keeps its registers. False on other architectures.
bool cpu_has_avx2();    // and FMA and F16C, as every processor with AVX2 does
bool cpu_has_avx512();  // F, BW, DQ and VL, and AVX2

// How this thread rounds, whether it flushes to zero, and which traps it takes: a word to be put back.
std::uint64_t float_mode();
void set_float_mode(std::uint64_t mode);
std::uint64_t default_float_mode();  // nearest, no flushing, no traps

// Anonymous memory, zeros, on huge pages where it is large; null if there is none. Whole pages of 4096 bytes.
void *map_memory(std::int64_t bytes);
void unmap_memory(void *memory, std::int64_t bytes);

// As std::aligned_alloc(), which is not everywhere; `bytes` is a multiple of `alignment`.
void *allocate_aligned(std::size_t alignment, std::size_t bytes);
void free_aligned(void *memory);

long process_number();
// True where that cannot be told.
bool has_other_threads();
// Calls these around each fork of the process. (For a variable that is never used: returns 0.)
int at_fork(void (*before)(), void (*in_parent)(), void (*in_child)());

// Where the user wants files that are not for long.
const char *temporary_directory();

// A shared library that others may have loaded, too, for as long as the process lives; or null, and why.
void *load_library(const char *name, const char **error);
void *find_function(void *library, const char *name);
extern const char *const cuda_driver_name;

}  // namespace adamw
