// Owns how a finding is told: the seed and the number of the call, the call in few words, and then the end of the
// process. Knows nothing of what may be found.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "../../include/adamw.h"

// Ends the process with the sentence, and the call that Telling describes.
[[noreturn]] __attribute__((format(printf, 1, 2))) void finding(const char *format, ...);

// What is being done while it lives, for finding() and for signals that end the process.
class Telling {
 public:
  explicit Telling(std::function<std::string()> describe);
  ~Telling();
  Telling(const Telling &) = delete;

 private:
  std::function<std::string()> describe_, outer_;
};

// Says from where an input comes, and makes signals tell it: "seed 1, call 7".
void tell_of_signals();
extern std::uint64_t current_seed, current_call;
extern bool numbered;  // else the fuzzer that calls us keeps the input

std::string describe_options(const adamw_step_options &o);
std::string describe_row(const adamw_tensor &t, std::int64_t number);

// What was done, so that a run shows that its checks were not empty.
struct Tally {
  std::uint64_t calls, steps, accepted, refused, replays, elements, quantized, norms, paged;
};
extern Tally tally;
// Of every byte that calls left behind: the same for every kernel and thread count.
extern std::uint64_t digest;
void add_to_digest(const void *bytes, std::size_t count);
