// Owns a private file: made without a name, its disk space reserved and given back, read and written at offsets. Knows
// no buffers and no windows.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <cstdint>
#include <string>

#include "../../include/adamw.h"

namespace adamw {

// The calls that fail when a disk does. Tests put their own in their place.
struct FileCalls {
  ssize_t (*read)(int file, void *memory, std::size_t bytes, off_t offset);
  ssize_t (*write)(int file, const void *memory, std::size_t bytes, off_t offset);
  int (*reserve)(int file, int mode, off_t offset, off_t bytes);  // fallocate
};
extern FileCalls file_calls;

// Of the calling thread, all.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked &) = delete;
  SignalsBlocked &operator=(const SignalsBlocked &) = delete;

 private:
  sigset_t before_;
};

// Functions that return an int: 0, or the errno of what went wrong.
class PrivateFile {
 public:
  PrivateFile() = default;
  ~PrivateFile();
  PrivateFile(const PrivateFile &) = delete;
  PrivateFile &operator=(const PrivateFile &) = delete;

  adamw_status open(const char *function, const std::string &directory);

  // Disk space for [offset, offset + bytes), whole pages. What was never written there, or was given back, is zeros.
  int reserve(std::int64_t offset, std::int64_t bytes);
  // Makes them zeros; `keeps_space`: they stay reserved.
  int give_back(std::int64_t offset, std::int64_t bytes, bool keeps_space);
  int zero(std::int64_t offset, std::int64_t bytes) const;

  // All of it (EIO where the file ends early). Past the page cache for whole pages that begin at a page in memory too,
  // where the file system can do that, unless `cached`.
  int read(void *memory, std::int64_t bytes, std::int64_t offset, bool cached = false) const {
    return move(true, memory, bytes, offset, cached);
  }
  int write(const void *memory, std::int64_t bytes, std::int64_t offset, bool cached = false) const {
    return move(false, const_cast<void *>(memory), bytes, offset, cached);
  }

  int descriptor() const { return file_; }
  std::int64_t size() const { return size_; }

 private:
  int move(bool in, void *memory, std::int64_t bytes, std::int64_t offset, bool cached) const;
  int move_all(bool in, int file, char *memory, std::int64_t bytes, std::int64_t offset) const;
  void open_direct();

  int file_ = -1, direct_ = -1;  // the same file, with and without the page cache
  std::int64_t size_ = 0;        // the end of what has been reserved
};

}  // namespace adamw
