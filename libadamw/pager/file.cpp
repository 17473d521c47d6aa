// Owns the system calls on a private file.
#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../platform.h"
#include "../status.h"
#include "pager.h"

#ifndef FALLOC_FL_ZERO_RANGE
#define FALLOC_FL_ZERO_RANGE 0x10  // linux/falloc.h, which musl's fcntl.h does not have whole
#endif

namespace adamw {

FileCalls file_calls = {pread, pwrite, fallocate};

namespace {

bool whole_pages(std::int64_t x) { return x % page_bytes == 0; }

template <class Call>
auto again_if_interrupted(const Call &call) -> decltype(call()) {
  decltype(call()) result;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

// fallocate() begins anew after a signal, on some kernels: with one each millisecond it would never end.
int reserve_uninterrupted(int file, int mode, std::int64_t offset, std::int64_t bytes) {
  const SignalsBlocked blocked;
  return again_if_interrupted([&] { return file_calls.reserve(file, mode, offset, bytes); }) == 0 ? 0 : errno;
}

// Without a name from the first, where the file system can; else its name is gone at once.
int open_nameless(const std::string &directory) {
#ifdef O_TMPFILE
  const int file = ::open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return file;
#endif
  std::string name = directory + "/adamw-pages-XXXXXX";
  const int named = mkostemp(name.data(), O_CLOEXEC);
  if (named >= 0) unlink(name.c_str());
  return named;
}

}  // namespace

PrivateFile::~PrivateFile() {
  if (direct_ >= 0) close(direct_);
  if (file_ >= 0) close(file_);
}

adamw_status PrivateFile::open(const char *function, const std::string &directory) {
  file_ = open_nameless(directory);
  if (file_ < 0) {
    return fail(
        ADAMW_ERROR_STORAGE,
        "%s: options.directory = '%s': the library cannot create a file there: %s: choose a writable directory on a "
        "local disk",
        function, directory.c_str(), std::strerror(errno));
  }
  open_direct();
  return ADAMW_OK;
}

// A second description of the same file, past the page cache. Only where both are seen to be one: what is written past
// the cache must be in a mapping at once, and the other way round.
void PrivateFile::open_direct() {
#ifdef O_DIRECT
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/fd/%d", file_);
  direct_ = ::open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  if (direct_ < 0) return;
  const auto page = static_cast<std::size_t>(page_bytes);
  void *memory = map_memory(page_bytes);
  bool one = memory != nullptr && ftruncate(file_, page_bytes) == 0;
  if (one) {
    void *view = mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    one = view != MAP_FAILED;
    if (one) {
      auto *seen = static_cast<char *>(view);
      for (char mark : {'a', 'b'}) {
        std::memset(memory, mark, page);
        one = one && pwrite(direct_, memory, page, 0) == static_cast<ssize_t>(page) && seen[page - 1] == mark;
        seen[1] = 'c';
        one = one && pread(direct_, memory, page, 0) == static_cast<ssize_t>(page) &&
              static_cast<char *>(memory)[1] == 'c';
      }
      munmap(view, page);
    }
    one = ftruncate(file_, 0) == 0 && one;
  }
  if (memory != nullptr) unmap_memory(memory, page_bytes);
  if (!one) {
    close(direct_);
    direct_ = -1;
  }
#endif
}

int PrivateFile::zero(std::int64_t offset, std::int64_t bytes) const {
  static const char zeros[std::size_t{1} << 16] = {};
  while (bytes > 0) {
    const auto part = std::min<std::int64_t>(bytes, static_cast<std::int64_t>(sizeof zeros));
    if (const int error = move_all(false, file_, const_cast<char *>(zeros), part, offset)) return error;
    offset += part;
    bytes -= part;
  }
  return 0;
}

int PrivateFile::reserve(std::int64_t offset, std::int64_t bytes) {
  const std::int64_t end = offset + bytes;
  // Beyond the limit on the size of files the system does not only refuse: it sends a signal that ends the process.
  rlimit limit{};
  if (end > size_ && getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < static_cast<rlim_t>(end)) return EFBIG;
  int error = reserve_uninterrupted(file_, 0, offset, bytes);
  if (error == EOPNOTSUPP || error == ENOSYS) error = zero(offset, bytes);
  if (error == 0) {
    size_ = std::max(size_, end);
  } else if (offset >= size_) {
    static_cast<void>(ftruncate(file_, size_));  // some file systems keep the part that they had room for
  }
  return error;
}

int PrivateFile::give_back(std::int64_t offset, std::int64_t bytes, bool keeps_space) {
  const int mode = FALLOC_FL_KEEP_SIZE | (keeps_space ? FALLOC_FL_ZERO_RANGE : FALLOC_FL_PUNCH_HOLE);
  const int error = reserve_uninterrupted(file_, mode, offset, bytes);
  return error == 0 ? 0 : zero(offset, bytes);
}

int PrivateFile::move_all(bool in, int file, char *memory, std::int64_t bytes, std::int64_t offset) const {
  constexpr std::int64_t most = std::int64_t{1} << 30;  // in one call
  while (bytes > 0) {
    const auto part = static_cast<std::size_t>(std::min(bytes, most));
    const ssize_t done = again_if_interrupted([&] {
      return in ? file_calls.read(file, memory, part, offset) : file_calls.write(file, memory, part, offset);
    });
    if (done < 0) return errno;
    if (done == 0) return EIO;
    memory += done;
    offset += done;
    bytes -= done;
    // What is left after a part of a page is for the page cache.
    if (bytes > 0 && file == direct_ && !whole_pages(offset)) return move_all(in, file_, memory, bytes, offset);
  }
  return 0;
}

int PrivateFile::move(bool in, void *memory, std::int64_t bytes, std::int64_t offset, bool cached) const {
  auto *at = static_cast<char *>(memory);
  const std::int64_t first = std::min(round_up(offset, page_bytes) - offset, bytes),
                     middle = (bytes - first) / page_bytes * page_bytes;
  const bool aligned =
      whole_pages(static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(at + first) % page_bytes));
  if (cached || direct_ < 0 || middle == 0 || !aligned) return move_all(in, file_, at, bytes, offset);
  int error = move_all(in, direct_, at + first, middle, offset + first);
  if (error == EINVAL) error = move_all(in, file_, at + first, middle, offset + first);  // stricter than it seemed
  if (error == 0) error = move_all(in, file_, at, first, offset);
  if (error == 0) error = move_all(in, file_, at + first + middle, bytes - first - middle, offset + first + middle);
  return error;
}

}  // namespace adamw
