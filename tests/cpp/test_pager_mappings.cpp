// Owns the laws of a pager's mappings where a disk, memory or the system fails: few are made, none stays, and what
// could not be had is said.
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>

#include "../../libadamw/pager/file.h"
#include "children.h"
#include "paged_model.h"

namespace {

bool writes_fail = false;

ssize_t write_or_fail(int file, const void *memory, std::size_t bytes, off_t offset) {
  if (!writes_fail) return pwrite(file, memory, bytes, offset);
  return errno = EIO, -1;
}

bool says(const char *words) { return std::strstr(adamw_last_error(), words) != nullptr; }

const std::vector<TensorShape> large = {{1, 4 << 20, 0}};
constexpr std::int64_t chunk = 1 << 20;  // 256 pages

// Law: what a failing disk leaves in memory takes a mapping a stretch, not one a page.
void check_kept() {
  adamw_pager *pager = new_pager(file_options(chunk));
  {
    Model before(step_options(ADAMW_STATE_BLOCK8), large);
    PagedModel paged(pager, before.options, large);
    before.run(1);
    paged.run(1);
    paged.new_gradients(2);
    const int mapped = mappings();
    writes_fail = true;
    CHECK(paged.call(2) == ADAMW_ERROR_STORAGE && says("kept in memory"), "%s", adamw_last_error());
    writes_fail = false;
    CHECK(mappings() > mapped && mappings() < mapped + 64, "%d mappings, %d before", mappings(), mapped);
    CHECK(paged.paged_contents() != before.contents(), "nothing was kept");
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: where there is no memory to keep it in either, the error says that it is lost, and nobody writes to the disk
// that fails.
void check_lost() {
  if (abridged) return;  // emulators know no such limit, and AddressSanitizer has terabytes of it
  adamw_pager *pager = new_pager(file_options(chunk));
  {
    PagedModel paged(pager, step_options(ADAMW_STATE_BLOCK8), large);
    paged.run(1);
    paged.paged_contents();
    paged.new_gradients(2);
    rlimit limit{};
    getrlimit(RLIMIT_DATA, &limit);
    rlimit none = limit;
    none.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_DATA, &none);
    writes_fail = true;
    const adamw_status status = paged.call(2);
    writes_fail = false;
    setrlimit(RLIMIT_DATA, &limit);
    CHECK(status == ADAMW_ERROR_STORAGE && says(std::strerror(EIO)) && says(std::strerror(ENOMEM)) &&
              says("lost: go back to a checkpoint"),
          "status %d: %s", status, adamw_last_error());
    for (auto &[buffer, bytes] : paged.buffers)
      CHECK(std::memcmp(buffer, bytes->memory.data(), bytes->memory.size()) == 0, "the file was written");
  }
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: a fork leaves no mapping, even if the system does not tell which pages are a process's own.
void check_forks() {
  if (!can_fork) return;
  adamw_pager *pager = new_pager(file_options());
  void *buffer = nullptr, *usable = nullptr;
  CHECK(adamw_pager_alloc(pager, 5000, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  int first = 0;
  for (int round = 0; round < 10; ++round) {
    CHECK(in_child([] { return 0; }) == "", "the child");
    {
      const NoDescriptors none;
      CHECK(adamw_pager_acquire(pager, buffer, 10, nullptr, &usable) == ADAMW_OK, "%s", adamw_last_error());
      CHECK(adamw_pager_release(pager, usable, 1, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    }
    if (round == 1) first = mappings();
  }
  CHECK(mappings() <= first + 2, "%d mappings after 10 forks, %d after 2", mappings(), first);
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
        adamw_last_error());
}

}  // namespace

int main() {
  adamw::file_calls.write = write_or_fail;
  check_kept();
  check_lost();
  check_forks();
  return finish();
}
