// Owns the laws of a pager with many buffers: they cost what they are, few mappings and little time, are apart and
// zeros; and of the gaps that they are taken from.
#include <chrono>
#include <cstdlib>
#include <map>
#include <string>

#include "../../libadamw/pager/free_list.h"
#include "paged_model.h"

namespace {

// ---- gaps ----

// The same, byte by byte.
struct Simple {
  std::vector<bool> free_ = std::vector<bool>(300, false);
  std::map<std::int64_t, std::int64_t> gaps() const {
    std::map<std::int64_t, std::int64_t> all;
    for (std::size_t i = 0; i < free_.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      if (!free_[i]) continue;
      if (!all.empty() && all.rbegin()->first + all.rbegin()->second == at) {
        ++all.rbegin()->second;
      } else {
        all[at] = 1;
      }
    }
    return all;
  }
  void set(std::int64_t offset, std::int64_t bytes, bool value) {
    for (std::int64_t i = offset; i < offset + bytes; ++i) free_[static_cast<std::size_t>(i)] = value;
  }
};

void check_gaps() {
  Random random(1);
  for (int round = 0; round < (abridged ? 20 : 200); ++round) {
    adamw::Gaps gaps;
    Simple simple;
    for (int i = 0; i < 200; ++i) {
      const std::int64_t offset = random.below(280), bytes = 1 + random.below(20);
      const auto before = simple.gaps();
      if (random.below(2) == 0) {  // of what is free: cut; and then all of it is given back
        std::int64_t cut = 0;
        gaps.cut(offset, bytes, [&](std::int64_t at, std::int64_t size) {
          for (std::int64_t k = at; k < at + size; ++k)
            CHECK(simple.free_[static_cast<std::size_t>(k)] && k >= offset && k < offset + bytes, "%lld was cut",
                  static_cast<long long>(k));
          cut += size;
        });
        std::int64_t must = 0;
        for (std::int64_t k = offset; k < offset + bytes; ++k) must += simple.free_[static_cast<std::size_t>(k)];
        CHECK(cut == must, "%lld of %lld", static_cast<long long>(cut), static_cast<long long>(must));
        simple.set(offset, bytes, true);
        const adamw::Gaps::Gap gap = gaps.add(offset, bytes);
        CHECK(simple.gaps().count(gap.offset) == 1 && simple.gaps()[gap.offset] == gap.bytes, "not the whole gap");
      } else {
        std::int64_t best = -1;
        for (const auto &[at, size] : before)
          if (size >= bytes && (best < 0 || size < before.at(best))) best = at;
        CHECK(gaps.find(bytes) == best, "%lld, must be %lld", static_cast<long long>(gaps.find(bytes)),
              static_cast<long long>(best));
        if (best < 0) continue;
        gaps.take(best, bytes);
        simple.set(best, bytes, false);
      }
      std::map<std::int64_t, std::int64_t> is;
      gaps.for_each([&](std::int64_t at, std::int64_t size) { is[at] = size; });
      CHECK(is == simple.gaps(), "round %d, change %d", round, i);
      if (failures() != 0) return;
    }
  }
}

// ---- buffers ----

// Law: 100,000 small buffers take a few mappings and at most 64 bytes each beyond what was asked for, on the disk, too.
void check_many(adamw_place backing) {
  constexpr std::size_t count = abridged ? 5000 : 100000;
  constexpr int few = abridged ? 500 : 60;  // a sanitizer has its own
  adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  if (backing == ADAMW_PLACE_FILE) options = file_options();
  adamw_pager *pager = new_pager(options);
  std::vector<std::pair<unsigned char *, std::int64_t>> buffers(count);
  const int before = mappings();
  Random random(2);
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < count; ++i) {
    auto &[buffer, size] = buffers[i];
    size = 1 + random.below(i % 100 == 0 ? 9000 : 200);
    void *memory = nullptr;
    CHECK(adamw_pager_alloc(pager, size, &memory, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    buffer = static_cast<unsigned char *>(memory);
    CHECK(std::all_of(buffer, buffer + size, [](unsigned char byte) { return byte == 0; }), "buffer %zu: no zeros", i);
    std::memset(buffer, static_cast<int>(i % 251) + 1, static_cast<std::size_t>(size));
    bytes += size;
  }
  CHECK(mappings() < before + few, "%d mappings, %d before", mappings(), before);
  const adamw_pager_statistics s = stats_of(pager);
  CHECK(s.buffers == static_cast<std::int64_t>(count) && s.file_bytes + s.host_bytes == bytes, "%lld bytes",
        static_cast<long long>(s.file_bytes + s.host_bytes));
  for (std::size_t i = 0; i < count; ++i) {  // every one is alone, and used again after it was given back
    auto &[buffer, size] = buffers[(i * 7919) % count];
    const auto value = static_cast<unsigned char>((i * 7919) % count % 251 + 1);
    CHECK(std::all_of(buffer, buffer + size, [=](unsigned char byte) { return byte == value; }), "another's bytes");
    CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK, "%s", adamw_last_error());
    buffer = nullptr;
    if (i % 3 != 0) continue;
    void *memory = nullptr;
    CHECK(adamw_pager_alloc(pager, size, &memory, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    auto *again = static_cast<unsigned char *>(memory);
    CHECK(std::all_of(again, again + size, [](unsigned char byte) { return byte == 0; }), "used again: no zeros");
    std::memset(again, 0xEE, static_cast<std::size_t>(size));
    CHECK(adamw_pager_free(pager, memory) == ADAMW_OK, "%s", adamw_last_error());
  }
  CHECK(stats_of(pager).file_bytes == 0 && stats_of(pager).host_bytes == 0, "bytes stay");
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(mappings() < before + few, "%d mappings, %d before", mappings(), before);
}

// Law: state in buffers of all sizes, a page and less and more, is stepped as without them.
void check_steps_of_small_buffers() {
  std::vector<TensorShape> shapes;
  for (std::int64_t n :
       {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1000, 1023, 1024, 1025, 2047, 4095, 4096, 4097, 9000})
    for (int k = 0; k < 3; ++k) shapes.push_back({1, n, 0});
  for (adamw_state_format format : {ADAMW_STATE_FLOAT32, ADAMW_STATE_BLOCK8}) {
    adamw_pager *pager = new_pager(file_options());
    {
      Model plain(step_options(format, ADAMW_STEP_AMSGRAD), shapes);
      PagedModel paged(pager, plain.options, shapes);
      plain.run(3);
      paged.run(3);
      CHECK(plain.contents() == paged.paged_contents(), "format %d", format);
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  }
}

// ---- loans ----

// Law: prefetching changes nothing of what is acquired; stretches that overlap are not lent; a window's worth is.
void check_loans() {
  constexpr std::int64_t chunk = 1 << 16, size = 300000;
  adamw_pager *pager = new_pager(file_options(chunk));
  void *memory = nullptr, *usable = nullptr, *other = nullptr;
  CHECK(adamw_pager_alloc(pager, size, &memory, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  auto *const buffer = static_cast<unsigned char *>(memory);
  std::vector<unsigned char> must(size, 0);
  Random random(3);
  for (int i = 0; i < (abridged ? 30 : 300); ++i) {
    const std::int64_t bytes = i % 10 == 0 ? chunk : 1 + random.below(chunk);
    const std::int64_t at = random.below(static_cast<int>(size - bytes + 1));
    const auto n = static_cast<std::size_t>(bytes);
    CHECK(adamw_pager_prefetch(pager, buffer + at, bytes, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    const auto value = static_cast<unsigned char>(random.bits());
    std::memset(buffer + at + bytes / 2, value, n - n / 2);  // by the program, after the hint
    std::memset(must.data() + at + bytes / 2, value, n - n / 2);
    CHECK(adamw_pager_acquire(pager, buffer + at, bytes, nullptr, &usable) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(std::memcmp(usable, must.data() + at, n) == 0, "loan %d: not what the buffer holds", i);
    const std::int64_t across = std::max<std::int64_t>(0, at - random.below(100));
    CHECK(
        adamw_pager_acquire(pager, buffer + across, at - across + 1, nullptr, &other) == ADAMW_ERROR_INVALID_ARGUMENT &&
            other == nullptr && std::strstr(adamw_last_error(), "overlap") != nullptr,
        "%s", adamw_last_error());
    const bool dirty = random.below(2) == 0;
    if (dirty) {
      std::memset(usable, value + 1, n);
      std::memset(must.data() + at, value + 1, n);
    }
    CHECK(adamw_pager_release(pager, usable, dirty, nullptr) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(std::memcmp(buffer, must.data(), must.size()) == 0, "after loan %d", i);
  }
  CHECK(adamw_pager_acquire(pager, buffer, chunk + 1, nullptr, &usable) == ADAMW_ERROR_INVALID_ARGUMENT &&
            std::strstr(adamw_last_error(), "65536") != nullptr,
        "%s", adamw_last_error());
  CHECK(adamw_pager_free(pager, memory) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
        adamw_last_error());
}

}  // namespace

int main() {
  check_gaps();
  check_many(ADAMW_PLACE_FILE);
  check_many(ADAMW_PLACE_HOST);
  check_steps_of_small_buffers();
  check_loans();
  return finish();
}
