// Owns the laws of pages outside of steps: loans to the kernels of others, and steps in a graph.
#include <algorithm>

#include "../../libadamw/pager/pager.h"
#include "paged_side.h"
#include "parts.h"

using namespace simt;

namespace {

// A program's own use of a buffer: each loan must find what the loans before it have left there, in whatever order
// streams run. `expected` is what it will be when all work is done.
struct Program {
  struct Held {
    std::int64_t begin, bytes;
    void *usable;
    gpu::Stream stream;
  };
  adamw_pager *pager;
  std::vector<std::uint8_t> expected;
  std::uint8_t *buffer = nullptr;
  std::int32_t place = -1;
  std::vector<gpu::Stream> streams{new_stream(), new_stream(), new_stream()};
  std::vector<Held> held;
  Random random;
  std::string what;

  Program(adamw_pager *p, std::int64_t bytes, std::uint64_t seed, std::string name)
      : pager(p), expected(static_cast<std::size_t>(bytes)), random(seed), what(std::move(name)) {
    void *memory = nullptr;
    CHECK(adamw_pager_alloc(pager, bytes, &memory, &place) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    buffer = static_cast<std::uint8_t *>(memory);
    for (std::uint8_t &byte : expected) byte = static_cast<std::uint8_t>(random.bits());
    copy_to_device(buffer, expected.data(), expected.size());
  }
  bool is_free(std::int64_t begin, std::int64_t end) const {
    for (const Held &h : held)
      if (begin < h.begin + h.bytes && h.begin < end) return false;
    return true;
  }
  void acquire() {
    const auto size = static_cast<std::int64_t>(expected.size());
    const std::int64_t bytes = 1 + random.below(60000), begin = random.below(static_cast<int>(size - bytes));
    if (!is_free(begin, begin + bytes)) return;
    const gpu::Stream stream = streams[static_cast<std::size_t>(random.below(3))];
    if (random.below(3) == 0)
      CHECK(adamw_pager_prefetch(pager, buffer + begin, bytes, stream) == ADAMW_OK, "%s", adamw_last_error());
    if (random.below(4) == 0) return;
    Held h{begin, bytes, nullptr, stream};
    CHECK(adamw_pager_acquire(pager, buffer + begin, bytes, stream, &h.usable) == ADAMW_OK, "%s", adamw_last_error());
    const bool in_place = h.usable == buffer + begin;
    CHECK(in_place == (place != ADAMW_PLACE_PINNED), "%s: usable = %p of %p", what.c_str(), h.usable, buffer + begin);
    held.push_back(h);
  }
  void release() {
    const auto at = held.begin() + random.below(static_cast<int>(held.size()));
    const Held h = *at;
    held.erase(at);
    const bool writes = random.below(2) == 0;
    const auto first = expected.begin() + static_cast<std::ptrdiff_t>(h.begin);
    const std::vector<std::uint8_t> found(first, first + static_cast<std::ptrdiff_t>(h.bytes));
    const auto change = static_cast<std::uint8_t>(random.bits() | 1);
    enqueue(h.stream, [this, h, found, writes, change] {
      auto *bytes = static_cast<std::uint8_t *>(h.usable);
      CHECK(failures() != 0 || std::memcmp(bytes, found.data(), found.size()) == 0, "%s: a loan of %lld bytes at %lld",
            what.c_str(), static_cast<long long>(h.bytes), static_cast<long long>(h.begin));
      for (std::size_t i = 0; writes && i < found.size(); ++i) bytes[i] = static_cast<std::uint8_t>(found[i] + change);
    });
    for (auto p = first; writes && p < first + static_cast<std::ptrdiff_t>(h.bytes); ++p)
      *p = static_cast<std::uint8_t>(*p + change);
    CHECK(adamw_pager_release(pager, h.usable, writes, h.stream) == ADAMW_OK, "%s", adamw_last_error());
  }
};

void check_loans() {
  constexpr std::int64_t size = 300000;
  for (int repetition = 0; repetition < 60 && failures() == 0; ++repetition) {
    const int kind = repetition % 3, backing = kind == 2 ? ADAMW_PLACE_MANAGED : ADAMW_PLACE_PINNED;
    reset_for(backing);
    ++settings().seed;
    const std::string what = "loans " + std::to_string(kind) + ", SIMT_SEED " + std::to_string(settings().seed);
    adamw_pager *pager = new_pager(paging(backing, kind == 0 ? 0 : kind == 1 ? 1 << 20 : 1 << 18));
    Program program(pager, size, settings().seed, what);
    for (int i = 0; i < 60; ++i) {
      if (program.held.size() < 3 && program.random.below(2) == 0) program.acquire();
      if (!program.held.empty() && program.random.below(2) == 0) program.release();
      void *other = nullptr;
      if (program.random.below(60) != 0) continue;
      CHECK(adamw_pager_alloc(pager, 1000, &other, nullptr) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
      CHECK(adamw_pager_free(pager, other) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    }
    while (!program.held.empty()) program.release();
    std::vector<std::uint8_t> seen(program.expected.size());
    CHECK(adamw_pager_wait(pager) == ADAMW_OK, "%s: %s", what.c_str(), adamw_last_error());
    if (program.place == ADAMW_PLACE_PINNED)
      CHECK(std::memcmp(program.buffer, program.expected.data(), seen.size()) == 0, "%s: after wait()", what.c_str());
    if (repetition % 2 == 0) CHECK(synchronize(), "%s", what.c_str());
    if (repetition % 2 == 0) {
      copy_from_device(seen.data(), program.buffer, seen.size());
      CHECK(seen == program.expected, "%s: in the end", what.c_str());
    }
    CHECK(adamw_pager_free(pager, program.buffer) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
    check_clean(what);
  }
}

// Inside of the library: windows that are only read, in turn with others. Nothing has such a sweep on a device yet.
void check_windows_read() {
  constexpr std::int64_t bytes = 40000, count = 12;
  for (int repetition = 0; repetition < 20 && failures() == 0; ++repetition) {
    reset_for(ADAMW_PLACE_PINNED);
    ++settings().seed;
    const std::string what = "windows read, SIMT_SEED " + std::to_string(settings().seed);
    adamw_pager *pager = new_pager(paging(ADAMW_PLACE_PINNED));
    const gpu::Stream stream = new_stream();
    void *memory = nullptr;
    CHECK(adamw_pager_alloc(pager, bytes * count, &memory, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    auto *const buffer = static_cast<std::uint8_t *>(memory);
    for (std::int64_t i = 0; i < bytes * count; ++i) buffer[i] = static_cast<std::uint8_t>(i / bytes);
    {
      adamw::Pager::Session session(*pager, "test", stream);
      CHECK(session.begin() == ADAMW_OK, "%s", adamw_last_error());
      std::vector<adamw::Loan> loans(count);
      for (std::int64_t i = 0, fetched = 0; i < count; ++i) {
        for (; fetched < count && fetched < i + 3; ++fetched) {
          auto &loan = loans[static_cast<std::size_t>(fetched)];
          std::uint8_t *const home = buffer + fetched * bytes;
          loan.pieces.push_back({nullptr, home, bytes, home});
          CHECK(session.find(home, bytes, {0, "test"}, &loan.pieces[0].buffer) == ADAMW_OK &&
                    session.fetch(loan) == ADAMW_OK,
                "%s", adamw_last_error());
        }
        adamw::Loan &loan = loans[static_cast<std::size_t>(i)];
        CHECK(session.arrive(loan) == ADAMW_OK, "%s", adamw_last_error());
        enqueue(stream, [&what, i, usable = static_cast<std::uint8_t *>(loan.pieces[0].usable)] {
          CHECK(usable[0] == i && usable[bytes - 1] == i, "%s: window %lld holds %d", what.c_str(),
                static_cast<long long>(i), usable[0]);
        });
        CHECK(session.give_back(loan, i % 5 == 4) == ADAMW_OK, "%s", adamw_last_error());
      }
      CHECK(session.end() == ADAMW_OK && synchronize(), "%s", adamw_last_error());
    }
    CHECK(adamw_pager_free(pager, memory) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
          adamw_last_error());
    check_clean(what);
  }
}

// A buffer that the budget has room for is used where it lies.
void check_resident_loan() {
  reset_for(ADAMW_PLACE_PINNED);
  adamw_pager *pager = new_pager(paging(ADAMW_PLACE_PINNED, 1 << 20));
  void *buffer = nullptr, *usable = nullptr;
  std::int32_t place = -1;
  CHECK(adamw_pager_alloc(pager, 10000, &buffer, &place) == ADAMW_OK && place == ADAMW_PLACE_DEVICE, "place %d", place);
  CHECK(adamw_pager_acquire(pager, buffer, 10000, nullptr, &usable) == ADAMW_OK && usable == buffer, "%p", usable);
  CHECK(adamw_pager_release(pager, usable, 1, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
        adamw_last_error());
  check_clean("a resident loan");
}

const std::vector<TensorShape> shapes = {{1, 30000, 0}, {30, 301, 0}, {1, 33, 0}};

// A graph cannot take copies to and from pinned memory, and the pager is as it was.
void check_capture_refused(bool fetched) {
  const auto body = [&](adamw_pager *pager, Side &cpu, PagedSide &side) {
    const gpu::Stream stream = new_stream();
    side.options.stream = stream;
    void *const address = side.buffers[0].memory;
    if (fetched) CHECK(adamw_pager_prefetch(pager, address, 1000, stream) == ADAMW_OK, "%s", adamw_last_error());
    begin_capture(stream);
    const adamw_status status = side.step(1, false);
    CHECK(status == ADAMW_ERROR_UNSUPPORTED && std::strstr(adamw_last_error(), "ADAMW_PLACE_MANAGED") != nullptr,
          "captured, fetched %d: status %d: %s", fetched, status, adamw_last_error());
    end_capture(stream);
    void *usable = nullptr;
    CHECK(adamw_pager_acquire(pager, address, 1000, stream, &usable) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(adamw_pager_release(pager, usable, 1, stream) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(cpu.step(1, false) == ADAMW_OK && side.step(1, false) == ADAMW_OK, "%s", adamw_last_error());
    side.get_state("after a capture");
    check_same(cpu, side, "after a capture");
  };
  with_both(paging(ADAMW_PLACE_PINNED), step_options(ADAMW_STATE_BLOCK8), shapes, "capture, pinned", body);
}

// A captured step of unified memory can be played back.
void check_captured() {
  const auto body = [&](adamw_pager *, Side &cpu, PagedSide &side) {
    const gpu::Stream stream = new_stream();
    side.options.stream = stream;
    const auto compare = [&](int number) {
      side.get_state("captured");
      check_same(cpu, side, "captured, step " + std::to_string(number));
    };
    CHECK(cpu.step(1, true) == ADAMW_OK && side.step(1, true) == ADAMW_OK, "%s", adamw_last_error());
    compare(1);
    begin_capture(stream);
    CHECK(side.step(2, true) == ADAMW_OK, "%s", adamw_last_error());
    end_capture(stream);
    for (int number = 2; number <= 4; ++number) {
      CHECK(cpu.step(number, true) == ADAMW_OK, "%s", adamw_last_error());
      for (std::size_t i = 0; i < shapes.size(); ++i) side.step_numbers.floats()[i] = static_cast<float>(number);
      replay(stream);
      compare(number);
    }
    CHECK(cpu.step(5, true) == ADAMW_OK && side.step(5, true) == ADAMW_OK, "%s", adamw_last_error());
    compare(5);
  };
  with_both(paging(ADAMW_PLACE_MANAGED, 1 << 18), step_options(ADAMW_STATE_BLOCK8), shapes, "capture, managed", body);
}

}  // namespace

int main(int argc, char **argv) {
  return run_parts(argc, argv,
                   {{"loans", check_loans},
                    {"windows", check_windows_read},
                    {"resident", check_resident_loan},
                    {"refused", [] { check_capture_refused(false), check_capture_refused(true); }},
                    {"captured", check_captured}});
}
