// Owns child processes of a test: what one says it found, and how it ended; and what the system does not let it have.
// Knows no law.
#pragma once

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <utility>

#include "check.h"

#if defined(__SANITIZE_THREAD__)
constexpr bool can_fork = false;  // ThreadSanitizer's own threads do not survive one
#else
constexpr bool can_fork = true;
#endif

// A child that runs body() after go(). body() is right if it returns 0.
class Child {
 public:
  template <class Body>
  explicit Child(Body body, unsigned seconds = abridged ? 120 : 20) {
    CHECK(pipe(gate_) == 0, "no pipe");
    std::fflush(stdout);
    process_ = fork();
    if (process_ != 0) return;
    alarm(seconds);  // who waits for ever has failed
    close(gate_[1]);
    char byte;
    while (read(gate_[0], &byte, 1) > 0) {
    }
    _exit(body());
  }
  Child(const Child &) = delete;

  // Lets it run, and waits. "": it was right.
  std::string go() {
    close(gate_[0]);
    close(gate_[1]);
    int status = -1;
    if (waitpid(process_, &status, 0) != process_) return "it cannot be waited for";
    if (WIFSIGNALED(status))
      return WTERMSIG(status) == SIGALRM ? "it hangs" : "signal " + std::to_string(WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? "" : "status " + std::to_string(WEXITSTATUS(status));
  }

 private:
  int gate_[2];
  pid_t process_;
};

// Runs body() in a child now.
template <class Body>
std::string in_child(Body body) {
  return Child(std::move(body)).go();
}

// No descriptor is left to open one with: the system does not tell which pages are a process's own.
struct NoDescriptors {
  rlimit before{};
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before);
    rlimit none = before;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before); }
};
