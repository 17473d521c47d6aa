// Owns a model.h whose state lies in the buffers of a pager.
#pragma once

#include <algorithm>

#include "model.h"

inline adamw_pager *new_pager(const adamw_pager_options &options) {
  adamw_pager *pager = nullptr;
  const adamw_status status = adamw_pager_create(&options, &pager);
  CHECK(status == ADAMW_OK && pager != nullptr, "create: %s", adamw_last_error());
  return pager;
}

inline adamw_pager_options file_options(std::int64_t chunk = 1 << 16, std::int64_t resident = 0) {
  adamw_pager_options o = ADAMW_PAGER_OPTIONS_INIT;
  o.backing = ADAMW_PLACE_FILE;
  o.chunk_bytes = chunk;
  o.resident_bytes = resident;
  return o;
}

inline adamw_pager_statistics stats_of(adamw_pager *pager) {
  adamw_pager_statistics s{};
  CHECK(adamw_pager_stats(pager, &s, sizeof s) == ADAMW_OK, "stats: %s", adamw_last_error());
  return s;
}

// What the process has of them now.
inline int mappings() {
  FILE *file = std::fopen("/proc/self/maps", "r");
  int lines = 0;
  for (int c; file != nullptr && (c = std::fgetc(file)) != EOF;) lines += c == '\n';
  if (file != nullptr) std::fclose(file);
  return lines;
}

// Steps as a Model does; contents() may be compared with a Model's.
struct PagedModel : Model {
  adamw_pager *pager;
  std::vector<std::pair<void *, Bytes *>> buffers;  // and what stands for each in contents()

  PagedModel(adamw_pager *p, const adamw_step_options &o, const std::vector<TensorShape> &shapes,
             std::uint64_t seed = 1)
      : PagedModel(p, Model(o, shapes, seed)) {}
  // Of the parameters and gradients of a model that has not been stepped.
  PagedModel(adamw_pager *p, Model &&model) : Model(std::move(model)), pager(p) {
    options.pager = p;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      adamw_tensor &row = rows[i];
      void **const moments[] = {&row.exp_avg, &row.exp_avg_sq, &row.max_exp_avg_sq};
      float **const scales[] = {&row.exp_avg_absmax, &row.exp_avg_sq_absmax, &row.max_exp_avg_sq_absmax};
      float **const floors[] = {nullptr, &row.exp_avg_sq_floor, &row.max_exp_avg_sq_floor};
      for (std::size_t k = 0; k < 3; ++k) {  // as an optimizer allocates: a moment, then its scales and floors
        take(memory[i][exp_avg + k], moments[k]);
        take(memory[i][absmax0 + k], reinterpret_cast<void **>(scales[k]));
        if (k > 0) take(memory[i][floor1 + k - 1], reinterpret_cast<void **>(floors[k]));
      }
      take(memory[i][remainder], &row.param_remainder);
    }
  }
  ~PagedModel() {
    for (auto &buffer : buffers) CHECK(adamw_pager_free(pager, buffer.first) == ADAMW_OK, "%s", adamw_last_error());
  }
  PagedModel(const PagedModel &) = delete;

  // What the buffers hold now, as their programs see it, in the order of Model.
  std::vector<std::uint8_t> paged_contents() {
    fetch();
    return contents();
  }
  bool paged_holds(const std::vector<std::uint8_t> &must) {
    fetch();
    return holds(must);
  }

 private:
  void fetch() {
    CHECK(adamw_pager_wait(pager) == ADAMW_OK, "%s", adamw_last_error());
    for (auto &[from, to] : buffers) std::memcpy(to->memory.data(), from, to->memory.size());
  }
  void take(Bytes &bytes, void **pointer) {
    if (bytes.memory.empty()) return;
    void *buffer = nullptr;
    std::int32_t place = -1;
    const auto size = static_cast<std::int64_t>(bytes.memory.size());
    CHECK(adamw_pager_alloc(pager, size, &buffer, &place) == ADAMW_OK, "alloc: %s", adamw_last_error());
    CHECK(reinterpret_cast<std::uintptr_t>(buffer) % 64 == 0, "a buffer at %p", buffer);
    const auto *first = static_cast<std::uint8_t *>(buffer);
    CHECK(first[0] == 0 && std::memcmp(first, first + 1, bytes.memory.size() - 1) == 0, "a fresh buffer is not zeros");
    *pointer = buffer;
    buffers.push_back({buffer, &bytes});
  }
};
