// Owns the choice of an instruction set.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "../platform.h"
#include "kernels.h"

namespace adamw {

extern const Kernels scalar_kernels, avx2_kernels, avx512_kernels, neon_kernels;

namespace {

bool always() { return true; }

// One line per instruction set, best first.
constexpr struct {
  const Kernels *kernels;
  bool (*supported)();
} table[] = {
#ifdef ADAMW_X86_64
    {&avx512_kernels, cpu_has_avx512},
    {&avx2_kernels, cpu_has_avx2},
#elif defined(ADAMW_AARCH64)
    {&neon_kernels, always},
#endif
    {&scalar_kernels, always},
};

}  // namespace

std::vector<const Kernels *> usable_kernels() {
  std::vector<const Kernels *> list;
  for (const auto &entry : table) {
    if (entry.supported()) list.push_back(entry.kernels);
  }
  return list;
}

const char *built_kernels() {
  struct Names {  // in memory that is there: adamw_build_info() cannot fail
    char text[16 * std::size(table)] = "";
    Names() {
      std::size_t length = 0;
      for (const auto &entry : table) {
        const char *space = length == 0 ? "" : " ";
        std::snprintf(text + length, sizeof text - length, "%s%s", space, entry.kernels->name);
        length = std::strlen(text);
      }
    }
  };
  static const Names names;
  return names.text;
}

namespace {

struct Choice {
  const Kernels *kernels = nullptr;
  char error[200] = "";

  Choice() {
    const char *wanted = std::getenv("ADAMW_CPU");
    const bool any = wanted == nullptr || *wanted == '\0';
    for (const auto &entry : table) {
      if (!any && std::strcmp(wanted, entry.kernels->name) != 0) continue;
      if (entry.supported()) {
        kernels = entry.kernels;
        return;
      }
      if (any) continue;
      std::snprintf(error, sizeof error,
                    "ADAMW_CPU=%s, but this processor does not support %s: unset the variable or choose one of: %s",
                    wanted, wanted, built_kernels());
      return;
    }
    std::snprintf(error, sizeof error,
                  "ADAMW_CPU=%.40s is not a kernel of this library: unset the variable or choose one of: %s", wanted,
                  built_kernels());
  }
};

}  // namespace

const Kernels *active_kernels(const char **error) {
  static const Choice choice;
  *error = choice.error;
  return choice.kernels;
}

}  // namespace adamw
