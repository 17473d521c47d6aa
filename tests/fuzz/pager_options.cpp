// Owns the options of fuzzed pagers, see pager_options.h.
#include "pager_options.h"

Statuses choose_pager_options(Choices &choices, adamw_pager_options &o) {
  o.backing = choices.below(3) == 0 ? ADAMW_PLACE_HOST : ADAMW_PLACE_FILE;
  const bool file = o.backing == ADAMW_PLACE_FILE;
  if (file) o.chunk_bytes = 65536;
  if (file && choices.below(3) == 0) o.resident_bytes = 4 * 65536 + choices.below(8) * 16384;
  if (file && choices.one_in(4)) o.reserve_bytes = 100000;
  if (!choices.one_in(4)) return 0;
  std::int32_t *const words[] = {&o.backing, &o.device};
  std::int64_t *const numbers[] = {&o.resident_bytes, &o.chunk_bytes, &o.reserve_bytes};
  switch (choices.below(4)) {
    case 0:
      *words[choices.below(2)] = static_cast<std::int32_t>(choices.hostile_integer());
      return 0;
    case 1: {
      std::int64_t &n = *numbers[choices.below(3)];
      n = choices.hostile_integer();
      // Disks are shared: what one might have is not asked for.
      if (&n == numbers[2] && n > 1 << 20 && n <= std::int64_t{1} << 44) n = std::int64_t{1} << 60;
      // Windows of gigabytes would be made, if there is memory for them, when they are first used.
      if (&n != numbers[2] && n > 1 << 20 && n <= std::int64_t{1} << 50) n = INT64_MAX;
      return 0;
    }
    case 2:
      o.size = choices.of<std::size_t>({0, 24, sizeof o - 4, sizeof o + 4, 4104, SIZE_MAX});
      return 0;
    default:
      o.directory = "/nonexistent";
      return file ? no_storage : 0;
  }
}

void call_without_pager(const std::function<void(const char *name, adamw_status, Statuses errors)> &judge) {
  adamw_pager_statistics s{};
  const adamw_pager_options options = ADAMW_PAGER_OPTIONS_INIT;
  adamw_pager *pager = nullptr;
  void *p = &s;
  judge("adamw_pager_create", adamw_pager_create(&options, nullptr), invalid);
  judge("adamw_pager_create", adamw_pager_create(nullptr, &pager), invalid);
  judge("adamw_pager_alloc", adamw_pager_alloc(nullptr, 1, &p, nullptr), invalid);
  judge("adamw_pager_free", adamw_pager_free(nullptr, &s), invalid);
  judge("adamw_pager_acquire", adamw_pager_acquire(nullptr, &s, 1, nullptr, &p), invalid);
  judge("adamw_pager_release", adamw_pager_release(nullptr, &s, 1, nullptr), invalid);
  judge("adamw_pager_prefetch", adamw_pager_prefetch(nullptr, &s, 1, nullptr), invalid);
  judge("adamw_pager_wait", adamw_pager_wait(nullptr), invalid);
  judge("adamw_pager_stats", adamw_pager_stats(nullptr, &s, sizeof s), invalid);
  judge("adamw_pager_destroy", adamw_pager_destroy(nullptr), 0);
}
