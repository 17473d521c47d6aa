// Owns the fuzzer without libFuzzer: inputs of pseudo-random bytes, one after the other, each from the seed and its
// number. usage: fuzz [--seed S] [--seconds T | --inputs N] [--input N, that one alone]
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../cpp/inputs.h"
#include "finding.h"
#include "target.h"

namespace {

void run_number(std::uint64_t seed, std::uint64_t number, std::vector<std::uint8_t> &bytes) {
  Random random(seed * 0x9E3779B97F4A7C15u + number);
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    const std::uint64_t word = random.next();
    std::memcpy(&bytes[i], &word, 8);
  }
  current_call = number;
  if (number % 256 == 0) alarm(60);  // inputs take a millisecond at most, or hang
  run_input(bytes.data(), bytes.size());
}

unsigned long long whole(std::uint64_t x) { return x; }

}  // namespace

int main(int count, char **arguments) {
  double seconds = 10;
  std::uint64_t inputs = UINT64_MAX, one = UINT64_MAX;
  current_seed = 1;
  for (int i = 1; i + 1 < count; i += 2) {
    const char *const name = arguments[i], *const value = arguments[i + 1];
    if (std::strcmp(name, "--seed") == 0) current_seed = std::strtoull(value, nullptr, 10);
    if (std::strcmp(name, "--seconds") == 0) seconds = std::strtod(value, nullptr);
    if (std::strcmp(name, "--inputs") == 0) inputs = std::strtoull(value, nullptr, 10);
    if (std::strcmp(name, "--input") == 0) one = std::strtoull(value, nullptr, 10);
  }
  if (inputs != UINT64_MAX) seconds = 1e9;
  numbered = true;
  tell_of_signals();
  std::vector<std::uint8_t> bytes(2048);
  const auto start = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  std::uint64_t n = 0;
  if (one != UINT64_MAX) {
    run_number(current_seed, one, bytes);
    n = 1;
  } else {
    for (; n < inputs && (n % 64 != 0 || passed() < seconds); ++n) run_number(current_seed, n, bytes);
  }
  std::printf(
      "seed %llu: %llu inputs in %.1f s; steps %llu, of which accepted %llu, refused %llu, replayed %llu; %llu "
      "elements "
      "compared; %llu quantizations, %llu norms and factors, %llu calls of pagers, %llu others; digest %016llx\n",
      whole(current_seed), whole(n), passed(), whole(tally.steps), whole(tally.accepted), whole(tally.refused),
      whole(tally.replays), whole(tally.elements), whole(tally.quantized), whole(tally.norms), whole(tally.paged),
      whole(tally.calls), whole(digest));
  return 0;
}
