// Owns the laws of paging on the CPU: the same bits as without it, buffers that are ordinary memory, nothing left
// behind. (Disks that fail: test_pager_errors.cpp. Forks: test_forks.cpp. Many buffers and loans: test_buffers.cpp. The
// order of bringing in and taking back: test_pager_order.cpp.)
#include <dirent.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <thread>

#include "paged_model.h"

namespace {

// However few of them there are, they are several times as large as the smallest windows together.
constexpr std::int64_t divided = abridged ? 3 : 1;
const std::vector<TensorShape> mixed = {{1, 1, 0},
                                        {5, 100, 0},
                                        {1, 0, 0},
                                        {300 / divided, 301, 0},
                                        {1, 33, 0},
                                        {7, 256, 512},
                                        {1, 300000 / divided + 1, 256},
                                        {0, 64, 0},
                                        {3, 100002 / divided + 1, 0},
                                        {1000 / divided, 512, 7, 512, 2048},  // in runs
                                        {1, 257, 0}};

void for_each_kind(const std::function<void(const adamw_step_options &)> &body) {
  for (int format = ADAMW_STATE_FLOAT32; format <= ADAMW_STATE_BFLOAT16; ++format) {
    for (std::uint32_t flags : {0u, unsigned{ADAMW_STEP_AMSGRAD | ADAMW_STEP_STOCHASTIC_ROUNDING}}) {
      if (format == ADAMW_STATE_BFLOAT16 && flags == 0) continue;
      adamw_step_options o = step_options(static_cast<adamw_state_format>(format), flags,
                                          flags != 0 ? ADAMW_BFLOAT16 : ADAMW_FLOAT32, ADAMW_FLOAT32);
      if (!abridged || flags == 0) body(o);
      o.percentile_clipping = 30;
      o.max_unorm = 0.01;
      if (!abridged || flags != 0) body(o);
    }
    // All buffers that state may have: with 8 bits nine.
    adamw_step_options o = step_options(static_cast<adamw_state_format>(format), ADAMW_STEP_AMSGRAD, ADAMW_BFLOAT16,
                                        ADAMW_BFLOAT16, format % 2 == 0 ? 16 : 8);
    body(o);
    o.max_unorm = 0.01, o.remainder_bits = 24 - o.remainder_bits;
    if (!abridged && format <= ADAMW_STATE_BLOCK8) body(o);
  }
}

// One of several models that are paged in their own ways.
struct Paged {
  adamw_pager_options paging;
  adamw_pager *pager;
  PagedModel model;

  Paged(const adamw_pager_options &p, const adamw_step_options &options)
      : paging(p), pager(new_pager(p)), model(pager, options, mixed) {}
};

void check_step(Paged &paged, const Model &plain, const std::vector<std::uint8_t> &expected, int step) {
  std::int64_t rows = -1;
  paged.model.options.rows_stepped = &rows;
  paged.model.take_gradients(plain);
  CHECK(paged.model.call(step) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(rows == static_cast<std::int64_t>(mixed.size()), "rows_stepped = %lld", static_cast<long long>(rows));
  CHECK(expected == paged.model.paged_contents(), "backing %d, chunk %lld, resident %lld, format %d, flags %u: step %d",
        paged.paging.backing, static_cast<long long>(paged.paging.chunk_bytes),
        static_cast<long long>(paged.paging.resident_bytes), plain.options.state_format, plain.options.flags, step);
}

void check_statistics(const Paged &paged) {
  const adamw_pager_statistics s = stats_of(paged.pager);
  const std::int64_t resident = paged.paging.resident_bytes;
  if (resident > 0) CHECK(s.resident_peak_bytes <= resident, "%lld", static_cast<long long>(s.resident_peak_bytes));
  if (paged.paging.backing == ADAMW_PLACE_FILE && resident == 0)
    CHECK(s.bytes_in > 0 && s.bytes_out >= s.bytes_in / 3 && s.faults_avoided >= s.bytes_in / 4096, "%lld in, %lld out",
          static_cast<long long>(s.bytes_in), static_cast<long long>(s.bytes_out));
}

void check_end(adamw_pager *pager) {
  const adamw_pager_statistics s = stats_of(pager);
  CHECK(s.buffers == 0 && s.host_bytes == 0 && s.file_bytes == 0, "%lld buffers stay",
        static_cast<long long>(s.buffers));
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// Law: paged = unpaged, after each of several steps, for every backing, window and budget.
void check_same_bits(const adamw_step_options &options, const std::vector<adamw_pager_options> &pagings) {
  std::vector<adamw_pager *> pagers;
  {
    Model plain(options, mixed);
    std::vector<std::unique_ptr<Paged>> all;
    for (const adamw_pager_options &paging : pagings) {
      all.push_back(std::make_unique<Paged>(paging, options));
      pagers.push_back(all.back()->pager);
    }
    for (int step = 1; step <= (abridged ? 2 : 3); ++step) {
      plain.new_gradients(static_cast<std::uint64_t>(step));
      CHECK(plain.call(step) == ADAMW_OK, "%s", adamw_last_error());
      const auto expected = plain.contents();
      for (auto &paged : all) check_step(*paged, plain, expected, step);
    }
    for (const auto &paged : all) check_statistics(*paged);
  }
  for (adamw_pager *pager : pagers) check_end(pager);
}

void check_all_same_bits() {
  const adamw_pager_options host = ADAMW_PAGER_OPTIONS_INIT;
  for_each_kind([&](const adamw_step_options &options) {
    check_same_bits(options, {host, file_options(options.max_unorm > 0 ? 1 << 17 : 1 << 16), file_options(0),
                              file_options(0, (4 << 20) / divided)});
  });
}

// Law: state may begin anywhere in a buffer, at a multiple of its element and of nothing more: also of a step that
// needs as many stretches as there can be, in the smallest windows. `measured`: in those that adamw.h says are enough,
// of which a segment of 31 blocks of 32-bit state takes every byte.
void check_anywhere(bool measured) {
  const std::vector<TensorShape> shapes = {{1, 70001, 0}, {1, 3, 0}, {90, 301, 0}, {1, 31 * 256, 0}};
  for (int format = ADAMW_STATE_FLOAT32; format <= ADAMW_STATE_BFLOAT16; ++format) {
    if (format == ADAMW_STATE_TENSOR8 && !measured) continue;
    for (int bits : {8, 16}) {
      adamw_step_options options = step_options(static_cast<adamw_state_format>(format), ADAMW_STEP_AMSGRAD,
                                                ADAMW_BFLOAT16, ADAMW_BFLOAT16, bits);
      options.max_unorm = measured ? 0.01 : 0.0;
      adamw_pager *pager = new_pager(file_options(measured ? 1 << 17 : 1 << 16));
      Model plain(options, shapes), paged(options, shapes);
      void *buffer = nullptr;
      CHECK(adamw_pager_alloc(pager, 4 << 20, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
      std::vector<std::pair<char *, Bytes *>> all;
      char *next = static_cast<char *>(buffer);
      const auto take = [&](Bytes &bytes, std::size_t size) {
        if (bytes.memory.empty()) return next;
        const auto rest = static_cast<std::size_t>(next - static_cast<char *>(buffer)) % (2 * size);
        next += 3 * size - rest;  // an odd multiple
        all.push_back({next, &bytes});
        next += bytes.memory.size();
        return all.back().first;
      };
      for (std::size_t i = 0; i < shapes.size(); ++i) {
        adamw_tensor &row = paged.rows[i];
        auto &b = paged.memory[i];
        const std::size_t moment = b[Model::exp_avg].memory.size() / static_cast<std::size_t>(row.numel);
        row.param_remainder = take(b[Model::remainder], static_cast<std::size_t>(bits / 8));
        row.exp_avg = take(b[Model::exp_avg], moment), row.exp_avg_sq = take(b[Model::exp_avg_sq], moment);
        row.max_exp_avg_sq = take(b[Model::max_exp_avg_sq], moment);
        float **const scales[] = {&row.exp_avg_absmax, &row.exp_avg_sq_absmax, &row.max_exp_avg_sq_absmax,
                                  &row.exp_avg_sq_floor, &row.max_exp_avg_sq_floor};
        for (std::size_t k = 0; k < 5; ++k)
          *scales[k] = reinterpret_cast<float *>(take(b[Model::absmax0 + k], sizeof(float)));
      }
      CHECK(next <= static_cast<char *>(buffer) + (4 << 20), "the buffer is too small");
      paged.options.pager = pager;
      plain.run(2);
      paged.run(2);
      for (auto &[from, to] : all) std::memcpy(to->memory.data(), from, to->memory.size());
      CHECK(plain.contents() == paged.contents(), "format %d, %d bits", format, bits);
      CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_destroy(pager) == ADAMW_OK, "%s",
            adamw_last_error());
    }
  }
}

// Law: every buffer is ordinary memory between steps: what a program writes there, the next step finds.
void check_edits() {
  adamw_pager *pager = new_pager(file_options());
  {
    const adamw_step_options options = step_options(ADAMW_STATE_FLOAT32);
    Model plain(options, {{1, 200000, 0}});
    PagedModel paged(pager, options, {{1, 200000, 0}});
    plain.run(2);
    paged.run(2);
    for (Model *model : {&plain, static_cast<Model *>(&paged)}) {
      auto *moment = static_cast<float *>(model->rows[0].exp_avg);
      for (int i = 0; i < 200000; i += 777) moment[i] = static_cast<float>(i);
      model->new_gradients(9);
      CHECK(model->call(3) == ADAMW_OK, "%s", adamw_last_error());
    }
    CHECK(plain.contents() == paged.paged_contents(), "edits were lost");
  }
  adamw_pager_destroy(pager);
}

// Law: several threads may step with one pager, and others allocate and free meanwhile.
void check_threads() {
  adamw_pager *pager = new_pager(file_options());
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([=] {
      const adamw_step_options options = step_options(ADAMW_STATE_BLOCK8);
      const std::vector<TensorShape> shapes = {{1, 100000 + 1000 * t, 0}, {20, 300, 0}};
      Model plain(options, shapes);
      PagedModel paged(pager, options, shapes);
      plain.run(4);
      paged.run(4);
      CHECK(plain.contents() == paged.paged_contents(), "thread %d", t);
    });
  }
  for (std::thread &thread : threads) thread.join();
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
}

// The public way to bytes, for other kernels.
void check_acquire() {
  adamw_pager *pager = new_pager(file_options(1 << 16));
  void *buffer = nullptr, *usable[4] = {};
  constexpr std::int64_t bytes = 300000;
  CHECK(adamw_pager_alloc(pager, bytes, &buffer, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  auto *at = static_cast<unsigned char *>(buffer);
  for (std::int64_t i = 0; i < bytes; ++i) at[i] = static_cast<unsigned char>(i % 251);
  CHECK(adamw_pager_prefetch(pager, at + 5000, 40000, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  for (int i = 0; i < 3; ++i) {
    const std::int64_t from = 5000 + 50000 * i;
    CHECK(adamw_pager_acquire(pager, at + from, 40000, nullptr, &usable[i]) == ADAMW_OK, "%s", adamw_last_error());
    CHECK(usable[i] != nullptr && std::memcmp(usable[i], at + from, 40000) == 0, "stretch %d", i);
    std::memset(usable[i], 100 + i, 40000);
  }
  CHECK(
      adamw_pager_acquire(pager, at, 100, nullptr, &usable[3]) == ADAMW_ERROR_INVALID_ARGUMENT && usable[3] == nullptr,
      "a fourth");
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_ERROR_INVALID_ARGUMENT, "freed while acquired");
  Model model(step_options(), {{1, 5000, 0}});
  model.options.pager = pager;
  CHECK(model.call(1) == ADAMW_ERROR_INVALID_ARGUMENT, "a step while acquired");
  for (int i : {1, 0, 2})
    CHECK(adamw_pager_release(pager, usable[i], i != 2, nullptr) == ADAMW_OK, "%s", adamw_last_error());
  CHECK(adamw_pager_release(pager, usable[0], 1, nullptr) == ADAMW_ERROR_INVALID_ARGUMENT, "released twice");
  for (std::int64_t i = 0; i < bytes; ++i) {
    const std::int64_t stretch = (i - 5000) / 50000, within = (i - 5000) % 50000;
    const bool changed = i >= 5000 && stretch < 2 && within < 40000;
    const int must = changed ? 100 + static_cast<int>(stretch) : static_cast<int>(i % 251);
    if (at[i] != must) {
      CHECK(at[i] == must, "byte %lld is %d, must be %d", static_cast<long long>(i), at[i], must);
      break;
    }
  }
  CHECK(adamw_pager_acquire(pager, at, 70000, nullptr, &usable[0]) == ADAMW_ERROR_INVALID_ARGUMENT, "beyond a window");
  CHECK(adamw_pager_acquire(pager, at + bytes - 10, 11, nullptr, &usable[0]) == ADAMW_ERROR_INVALID_ARGUMENT,
        "beyond the end");
  CHECK(adamw_pager_acquire(pager, &usable, 1, nullptr, &usable[0]) == ADAMW_ERROR_INVALID_ARGUMENT,
        "not of the pager");
  CHECK(adamw_pager_destroy(pager) == ADAMW_ERROR_INVALID_ARGUMENT, "destroyed with a buffer");
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_OK && adamw_pager_free(pager, nullptr) == ADAMW_OK, "%s",
        adamw_last_error());
  CHECK(adamw_pager_free(pager, buffer) == ADAMW_ERROR_INVALID_ARGUMENT, "freed twice");
  CHECK(adamw_pager_destroy(pager) == ADAMW_OK && adamw_pager_destroy(nullptr) == ADAMW_OK, "%s", adamw_last_error());
}

// A buffer that was freed comes back as zeros (PagedModel looks), and its space is used again.
void check_reuse() {
  for (std::int64_t reserved : {0, 1 << 20}) {
    adamw_pager_options options = file_options();
    options.reserve_bytes = reserved;
    adamw_pager *pager = new_pager(options);
    for (int round = 0; round < 5; ++round) {
      PagedModel a(pager, step_options(ADAMW_STATE_BLOCK8), {{1, 100000, 0}}),
          b(pager, step_options(), {{1, 50000, 0}});
      a.run(1);
      b.run(1);
    }
    CHECK(adamw_pager_destroy(pager) == ADAMW_OK, "%s", adamw_last_error());
  }
}

int open_files() {
  int count = 0;
  DIR *files = opendir("/proc/self/fd");
  if (files == nullptr) return 0;
  while (readdir(files) != nullptr) ++count;
  closedir(files);
  return count;
}

// Law: hundreds of pagers leave no file, no descriptor and no thread.
void check_nothing_left() {
  const int before = open_files();
  for (int i = 0; i < (abridged ? 20 : 200); ++i) {
    adamw_pager *pager = new_pager(file_options());
    {
      PagedModel(pager, step_options(ADAMW_STATE_BLOCK8), {{1, 5000, 0}}).run(1);
    }
    adamw_pager_destroy(pager);
  }
  CHECK(open_files() == before, "%d descriptors were open, now %d", before, open_files());
}

}  // namespace

int main() {
  check_all_same_bits();
  for (bool measured : {false, true}) check_anywhere(measured);
  check_edits();
  check_threads();
  check_acquire();
  check_reuse();
  check_nothing_left();
  return finish();
}
