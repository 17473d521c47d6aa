// Owns the test of the test: that the runtime runs right kernels rightly, and that kernels which break a rule are
// caught. (The library's kernels: test_step.cpp.)
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "block_memory.h"
#include "cpp/check.h"
#include "device.h"

using namespace adamw::gpu;

namespace {

std::string message;  // of the last launch that was abandoned

// Runs the kernel under several seeds and returns how many of its launches were abandoned.
template <class Body>
int abandoned(unsigned grid, unsigned block, const Body &body) {
  int count = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    simt::settings().seed = seed;
    message.clear();
    const bool ok = simt::run("kernel", grid, block, body);
    CHECK(ok == message.empty(), "'%s'", message.c_str());
    count += !ok;
  }
  return count;
}

struct Sums {
  std::uint32_t warp[8];
};

// out[block] = the sum of the block's 256 numbers.
void sum_blocks(const std::uint32_t *in, std::uint32_t *out, bool with_barrier) {
  std::uint32_t x = in[block_id() * 256 + thread_id()];
  for (unsigned mask = 16; mask != 0; mask /= 2) x += shuffle_xor(x, mask);
  Sums &sums = shared<Sums>();
  if (lane_id() == 0) sums.warp[thread_id() / 32] = x;
  if (with_barrier) barrier();
  if (thread_id() != 77) return;
  std::uint32_t sum = 0;
  for (std::uint32_t part : sums.warp) sum += part;
  out[block_id()] = sum;
}

// Law: a reduction through shuffles, shared memory and a barrier is right; without the barrier it is not.
void check_reduction() {
  constexpr unsigned blocks = 20;
  std::vector<std::uint32_t> in(blocks * 256), out(blocks), right(blocks);
  for (unsigned i = 0; i < in.size(); ++i) right[i / 256] += in[i] = i * i + 1;
  CHECK(abandoned(blocks, 256, [&] { sum_blocks(in.data(), out.data(), true); }) == 0, "%s", message.c_str());
  CHECK(out == right, "the sums are wrong");
  abandoned(blocks, 256, [&] { sum_blocks(in.data(), out.data(), false); });
  CHECK(out != right, "a missing barrier goes unnoticed");
}

// Law: shuffles, votes and maxima give what they give on a GPU.
void check_primitives() {
  int wrong = 0;
  const auto kernel = [&] {
    const unsigned lane = lane_id(), id = thread_id();
    for (unsigned i = 0; i < 40; ++i) {
      wrong += shuffle(id * 10 + i, (lane + i) % 32) != (id - lane + (lane + i) % 32) * 10 + i;
      wrong += shuffle_xor(static_cast<double>(id), i % 32) != static_cast<double>(id ^ (i % 32));
      wrong += any(lane == i) != (i < 32);
      wrong += warp_max(lane * 7 % 32 + id - lane) != id - lane + 31;
      if (i % 7 == 0) barrier();
    }
    wrong += pack_codes(0x87123456u, 0x007FFFFFu, 0xFFFFFFFFu, 0x43000000u) != 0x00FF7F12u;
  };
  CHECK(abandoned(7, 96, kernel) == 0, "%s", message.c_str());
  CHECK(wrong == 0, "%d results are wrong", wrong);
}

// Law: approximations err as much as they may, and no more.
void check_approximations() {
  double worst_reciprocal = 0, worst_root = 0;
  for (std::uint32_t i = 0; i < 200000; ++i) {
    const std::uint32_t bits = 0x30000000u + i * 2500;  // 2^-31 ... 2^28
    float x;
    std::memcpy(&x, &bits, 4);
    const double r = 1.0 / x, root = 1.0 / std::sqrt(static_cast<double>(x));
    const double unit = std::ldexp(1.0, std::ilogb(r) - 23);
    worst_reciprocal = std::max(worst_reciprocal, std::fabs(approximate_reciprocal(x) - r) / unit);
    worst_root = std::max(worst_root, std::fabs(approximate_inverse_root(x) - root) / root);
  }
  CHECK(worst_reciprocal > 0.9 && worst_reciprocal <= 1.0, "reciprocal: %g units", worst_reciprocal);
  CHECK(worst_root > 0x1.1p-23 && worst_root <= 0x1.13p-23, "inverse root: %g", worst_root);
  CHECK(approximate_inverse_root(0.0f) == HUGE_VALF && approximate_reciprocal(1e-40f) == HUGE_VALF, "zero");
}

// Law: the block that comes last sees what the others wrote, and there is exactly one.
void check_last_arriver() {
  constexpr unsigned blocks = 9;
  for (int repetition = 0; repetition < 5; ++repetition) {
    std::vector<double> parts(blocks);
    std::uint32_t arrived = 0, largest = 0;
    std::uint64_t total = 0;
    double sum = 0;
    int last = 0;
    const auto kernel = [&] {
      if (thread_id() == 0) arrived == blocks ? arrived = 0 : 0;
      const auto all = warp_max(thread_id() + block_id());
      atomic_max(&largest, all);
      atomic_add(&total, 1);
      if (thread_id() != 0) return;
      parts[block_id()] = block_id() + 1.0;
      fence();
      if (atomic_add(&arrived, 1) != blocks - 1) return;
      fence();
      ++last;
      for (const double &part : parts) sum += load_fresh(&part);
    };
    CHECK(simt::run("last", blocks, 64, kernel), "%s", message.c_str());
    CHECK(last == 1 && sum == blocks * (blocks + 1) / 2, "last %d, sum %g", last, sum);
    CHECK(largest == 63 + blocks - 1 && total == blocks * 64, "largest %u", largest);
  }
}

// Law: every order of warps, lanes and blocks can come, and the seed decides.
void check_order() {
  std::vector<std::vector<unsigned>> orders;
  std::vector<int> first_blocks(4);
  for (int repetition = 0; repetition < 64; ++repetition) {
    std::vector<unsigned> order;
    simt::run("order", 4, 64, [&] { order.push_back(block_id() * 64 + thread_id()); });
    CHECK(order.size() == 256, "%zu threads ran", order.size());
    ++first_blocks[order[0] / 64];
    for (const auto &other : orders) CHECK(order != other, "the same order came twice");
    orders.push_back(order);
  }
  for (int count : first_blocks) CHECK(count > 0, "a block never comes first");
}

template <class Body>
void check_caught(const char *what, const char *expected, const Body &body) {
  const int count = abandoned(3, 64, body);
  CHECK(count == 8 && message.find(expected) != std::string::npos, "%s: %d of 8 caught, '%s'", what, count,
        message.c_str());
}

// Law: what is undefined on a GPU ends the launch, with a message that names the kernel, the block and the thread.
void check_rules() {
  check_caught("a lane that returned before a shuffle", "deadlock", [] {
    if (lane_id() == 5) return;
    shuffle(1, 0);
  });
  check_caught("a thread that returned before a barrier", "deadlock", [] {
    if (thread_id() != 63) barrier();
  });
  check_caught("a warp that returned before a barrier", "deadlock", [] {
    if (thread_id() < 32) barrier();
  });
  check_caught("lanes in different primitives", "divergence", [] { lane_id() < 9 ? any(true) : warp_max(1) != 0; });
  check_caught("lanes at different places", "divergence", [] {
    if (lane_id() % 2 == 0)
      any(true);
    else
      any(false);
  });
  check_caught("a shuffle in half a warp", "divergence", [] {
    if (lane_id() < 16) shuffle(1, 0);
    barrier();
  });
  check_caught("warps at different barriers", "divergence", [] {
    if (thread_id() < 32)
      barrier();
    else
      barrier();
  });
  check_caught("a lane that does not exist", "must be below 32", [] { shuffle(1, lane_id() + 1); });
  alignas(16) static unsigned char bytes[64];
  std::uint32_t words[4] = {};
  check_caught("a misaligned load", "not aligned", [&] { load_words<4>(bytes + 8, words); });
  check_caught("a misaligned store", "not aligned", [&] { store_words<2>(bytes + 4, words); });
  check_caught("a wait for nothing", "does not come", [&] {
    static const float zero = 0;
    if (thread_id() == 0 && block_id() == 0)
      while (load_fresh(&zero) == 0) {
      }
  });
#ifndef SIMT_GUARDED_BY_ASAN
  check_caught("a write beyond shared memory", "beyond its shared memory",
               [] { (&shared<Sums>())->warp[thread_id()] = 1; });
#endif
  check_caught("two shared memories", "is asked for", [] { shared<Sums>(), shared<double>(); });
  CHECK(message.find("kernel kernel, block ") == 0 && message.find(", thread ") != std::string::npos, "%s",
        message.c_str());
  CHECK(abandoned(0, 32, [] {}) == 8 && abandoned(1, 33, [] {}) == 8 && abandoned(1, 2048, [] {}) == 8,
        "a launch of a wrong size");
  CHECK(abandoned(5, 64, [] { barrier(); }) == 0, "after all this: %s", message.c_str());
}

// Law: shared memory holds nothing of the block before.
void check_poison() {
  int kept = 0;
  abandoned(12, 32, [&] {
    Sums &sums = shared<Sums>();
    if (lane_id() == 0) kept += sums.warp[3] == 12345;
    any(true);
    sums.warp[3] = 12345;
  });
  CHECK(kept == 0, "shared memory of another block is seen");
}

}  // namespace

int main() {
  simt::set_error_handler([](const char *text) { message = text; });
  check_reduction();
  check_primitives();
  check_approximations();
  check_last_arriver();
  check_order();
  check_rules();
  check_poison();
  return finish();
}
