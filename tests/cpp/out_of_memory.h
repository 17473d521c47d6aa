// Owns trials of calls while memory runs out: each allocation of a call fails once in a process of its own, alone and
// with all that follow. Included in one file of a program, the allocator of which it replaces. Knows no call.
#pragma once

#include "failing_allocations.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <memory>
#include <string>

#include "paged_model.h"

namespace {

// With OpenMP's threads it is libgomp that ends the process when its own allocations fail; the library's are tested
// everywhere (ADAMW_TEST_THREADS).
#ifndef ADAMW_TEST_THREADS
#define ADAMW_TEST_THREADS 1
#endif

// A call in a fresh process. judge() says what is wrong after it, or nothing; again() is the next call.
struct Trial {
  std::function<adamw_status()> call;
  std::function<std::string(adamw_status)> judge = [](adamw_status) { return std::string(); };
  std::function<adamw_status()> again = call;
  std::shared_ptr<void> kept = nullptr;
};

// make() is called in each process. What they share is made once, by prepare(), which then says how to make the rest;
// that must not be anything that a process knows to be its own, such as a pager, nor a step.
struct Case {
  std::string name;
  std::function<Trial()> make;
  std::function<std::function<Trial()>()> prepare = nullptr;
};

enum Outcome { succeeded, out_of_memory, wrong, no_more };
// By the child, for the parent.
char *const said = static_cast<char *>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));

[[noreturn]] void be_child(const std::function<Trial()> &make, long number, bool all_later) {
  alarm(20);
  const Trial trial = make();
  if (failures() != 0) _exit(wrong);
  allocations::fail_after(number, all_later);
  const adamw_status status = trial.call();
  const bool failed = allocations::succeed_again();
  if (!failed) _exit(no_more);
  const auto complain = [&](const std::string &text) {
    std::snprintf(said, 512, "status %d (%s): %s", status, adamw_last_error(), text.c_str());
    _exit(wrong);
  };
  if (status != ADAMW_OK && status != ADAMW_ERROR_OUT_OF_MEMORY) complain("it must be OK or OUT_OF_MEMORY");
  const std::string complaint = trial.judge(status);
  if (!complaint.empty()) complain(complaint);
  if (const adamw_status next = trial.again(); next != ADAMW_OK)
    complain("the next call: " + std::to_string(next) + " " + adamw_last_error());
  _exit(status == ADAMW_OK ? succeeded : out_of_memory);
}

void try_case(const std::string &name, const std::function<Trial()> &make, bool all_later) {
  int counts[4] = {}, crashes = 0, hangs = 0;
  std::string first;
  // Each fails alone; where the others of its kind are tested so, every third will do.
  const long stride = abridged ? 7 : all_later || ADAMW_TEST_THREADS > 1 ? 3 : 1;
  for (long number = 0; number < 5000 && counts[no_more] == 0 && hangs < 2; number += stride) {
    said[0] = '\0';
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) be_child(make, number, all_later);
    int status = 0;
    waitpid(child, &status, 0);
    std::string text = said;
    if (WIFSIGNALED(status)) {
      ++(WTERMSIG(status) == SIGALRM ? hangs : crashes);
      text = WTERMSIG(status) == SIGALRM ? "it hangs" : "it ends with signal " + std::to_string(WTERMSIG(status));
    } else {
      ++counts[WEXITSTATUS(status) & 3];
      if (WEXITSTATUS(status) > 3) text = "it exits with " + std::to_string(WEXITSTATUS(status)), ++crashes;
    }
    if (first.empty() && !text.empty()) first = "allocation " + std::to_string(number) + ": " + text;
  }
  const bool right = counts[wrong] == 0 && crashes == 0 && hangs == 0;
  failures() += !right;
  std::printf("%-6s %-44s %-9s OK %3d, OUT_OF_MEMORY %3d, wrong %3d, ends %3d, hangs %d%s%s\n",
              right ? "passed" : "FAILED", name.c_str(), all_later ? "all later" : "one", counts[succeeded],
              counts[out_of_memory], counts[wrong], crashes, hangs, first.empty() ? "" : "\n       ", first.c_str());
}

inline int try_all(const std::vector<Case> &cases) {
  if (!ADAMW_FAILING_ALLOCATIONS) {
    std::printf("the allocator of this build cannot be replaced\n");
    return 0;
  }
  for (const Case &c : cases) {
    const std::function<Trial()> make = c.prepare ? c.prepare() : c.make;
    for (bool all_later : {false, true}) try_case(c.name, make, all_later);
  }
  return finish();
}

// A file in memory where that can be: who waits for a disk here waits for a thousand files.
adamw_pager_options quick_file(std::int64_t resident = 0) {
  adamw_pager_options o = file_options(1 << 16, resident);
  if (access("/dev/shm", W_OK) == 0) o.directory = "/dev/shm";
  return o;
}

}  // namespace
