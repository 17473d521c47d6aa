// Owns the laws of platform.h, on whatever system this is: what a port must do.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "../../include/adamw.h"
#include "../../libadamw/cpu/float_mode.h"
#include "../../libadamw/platform.h"
#include "check.h"

namespace {

// Law: memory is zeros, can be written from its first byte to its last, and begins where it is asked to.
void check_memory() {
  for (std::int64_t bytes : {std::int64_t{1}, std::int64_t{4096}, std::int64_t{5000}, std::int64_t{9} << 20}) {
    auto *memory = static_cast<unsigned char *>(adamw::map_memory(bytes));
    CHECK(memory != nullptr && reinterpret_cast<std::uintptr_t>(memory) % 4096 == 0, "%lld bytes",
          static_cast<long long>(bytes));
    if (memory == nullptr) return;
    const auto size = static_cast<std::size_t>(bytes);
    CHECK(memory[0] == 0 && std::memcmp(memory, memory + 1, size - 1) == 0, "%zu bytes are not zeros", size);
    std::memset(memory, 1, size);
    adamw::unmap_memory(memory, bytes);
  }
  CHECK(adamw::map_memory(std::numeric_limits<std::int64_t>::max() / 2) == nullptr, "more than there is");
  for (std::size_t bytes : {64, 128, 64 * 1001}) {
    void *memory = adamw::allocate_aligned(64, bytes);
    CHECK(memory != nullptr && reinterpret_cast<std::uintptr_t>(memory) % 64 == 0, "%zu bytes", bytes);
    if (memory != nullptr) std::memset(memory, 1, bytes);
    adamw::free_aligned(memory);
  }
}

// Law: in its scope the default modes hold, so that a subnormal number counts; after it, those of before.
void check_float_mode() {
#ifdef ADAMW_X86_64
  const std::uint64_t others = adamw::default_float_mode() | 0x8040;  // flush to zero, take subnormals for zero
#elif defined(ADAMW_AARCH64)
  const std::uint64_t others = std::uint64_t{1} << 24;  // flush to zero
#else
  const std::uint64_t others = adamw::default_float_mode();
#endif
  const std::uint64_t before = adamw::float_mode();
  volatile float half = 0.5f, smallest_normal = std::numeric_limits<float>::min(), product = 0;
  adamw::set_float_mode(others);
  {
    const adamw::DefaultFloatMode mode;
    product = half * smallest_normal;
  }
  const std::uint64_t after = adamw::float_mode();
  adamw::set_float_mode(before);
  CHECK(product > 0, "half of the smallest normal number is %g", static_cast<double>(product));
  CHECK((after & others) == others, "%llx, not %llx", static_cast<unsigned long long>(after),
        static_cast<unsigned long long>(others));
}

// Law: a process has one number; a place for files has a name; AVX-512 is never without AVX2.
void check_process() {
  CHECK(adamw::process_number() > 0 && adamw::process_number() == adamw::process_number(), "%ld",
        adamw::process_number());
  CHECK(std::string(adamw::temporary_directory()) != "", "no temporary directory");
  CHECK(adamw::cpu_has_avx2() || !adamw::cpu_has_avx512(), "AVX-512 without AVX2");
}

// Law: a system that has no pages in files says so, and names the backing; one that has them makes such a pager.
void check_file_pages() {
  adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  options.backing = ADAMW_PLACE_FILE;
  adamw_pager *pager = nullptr;
  const adamw_status status = adamw_pager_create(&options, &pager);
#ifdef ADAMW_HAS_FILE_PAGES
  CHECK(status == ADAMW_OK && pager != nullptr, "%s", adamw_last_error());
#else
  CHECK(status == ADAMW_ERROR_UNSUPPORTED && pager == nullptr &&
            std::strstr(adamw_last_error(), "options.backing = 1") != nullptr &&
            std::strstr(adamw_last_error(), "ADAMW_PLACE_FILE") != nullptr,
        "%d: %s", status, adamw_last_error());
#endif
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: buffers of a pager on the host are zeros of the size that was asked for, small or large.
void check_host_pages() {
  const adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager *pager = nullptr;
  CHECK(adamw_pager_create(&options, &pager) == ADAMW_OK, "%s", adamw_last_error());
  for (std::int64_t bytes : {std::int64_t{1}, std::int64_t{100}, std::int64_t{3} << 20}) {
    void *buffer = nullptr;
    CHECK(adamw_pager_alloc(pager, bytes, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    if (buffer == nullptr) continue;
    const auto *memory = static_cast<unsigned char *>(buffer);
    CHECK(memory[0] == 0 && std::memcmp(memory, memory + 1, static_cast<std::size_t>(bytes) - 1) == 0, "not zeros");
    std::memset(buffer, 1, static_cast<std::size_t>(bytes));
    CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK, "%s", adamw_last_error());
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

}  // namespace

int main() {
  check_memory();
  check_float_mode();
  check_process();
  check_file_pages();
  check_host_pages();
  return finish();
}
