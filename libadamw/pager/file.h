// Owns a private file: made without a name, grown by reserving space, read and written at offsets. Knows no buffers and
// no windows.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "../../include/adamw.h"
#include "gaps.h"

namespace adamw {

// The calls that fail when a disk does. Tests put their own in their place.
struct FileCalls {
  ssize_t (*read)(int file, void *memory, std::size_t bytes, off_t offset);
  ssize_t (*write)(int file, const void *memory, std::size_t bytes, off_t offset);
  int (*reserve)(int file, int mode, off_t offset, off_t bytes);  // fallocate
};
extern FileCalls file_calls;

class PrivateFile {
 public:
  PrivateFile() = default;
  ~PrivateFile();
  PrivateFile(const PrivateFile &) = delete;
  PrivateFile &operator=(const PrivateFile &) = delete;

  // In `directory`, with `reserved` bytes of disk space.
  adamw_status open(const char *function, const std::string &directory, std::int64_t reserved);

  // `bytes` of zeros, a whole number of pages, with space of their own on the disk.
  adamw_status take(const char *function, std::int64_t bytes, std::int64_t *offset);
  void give_back(std::int64_t offset, std::int64_t bytes);

  // All of it: 0, or the errno of what went wrong (EIO where the file ends early). Past the page cache for whole pages
  // that begin at a page in memory too, where the file system can do that.
  int read(void *memory, std::int64_t bytes, std::int64_t offset) const { return move(true, memory, bytes, offset); }
  int write(const void *memory, std::int64_t bytes, std::int64_t offset) const {
    return move(false, const_cast<void *>(memory), bytes, offset);
  }

  int descriptor() const { return file_; }
  bool is_direct() const { return direct_ >= 0; }
  const std::string &directory() const { return directory_; }

 private:
  int move(bool in, void *memory, std::int64_t bytes, std::int64_t offset) const;
  int move_all(bool in, int file, char *memory, std::int64_t bytes, std::int64_t offset) const;
  int reserve(std::int64_t offset, std::int64_t bytes);
  int zero(std::int64_t offset, std::int64_t bytes) const;
  void open_direct();

  std::string directory_;
  int file_ = -1, direct_ = -1;           // the same file, with and without the page cache
  std::int64_t size_ = 0, reserved_ = 0;  // disk space now; of it, from the beginning and for good
  Gaps gaps_;                             // of what is reserved and not taken; holes, or zeros
};

}  // namespace adamw
