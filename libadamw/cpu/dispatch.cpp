// Owns the choice of an instruction set. The only file that asks what the processor can do.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "kernels.h"

namespace adamw {

extern const Kernels scalar_kernels, avx2_kernels, avx512_kernels, neon_kernels;

namespace {

bool always() { return true; }

#if defined(__x86_64__)
// clang 14 does not know "f16c" as a name for __builtin_cpu_supports().
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// One line per instruction set, best first.
constexpr struct {
  const Kernels *kernels;
  bool (*supported)();
} table[] = {
#if defined(__x86_64__)
    {&avx512_kernels, has_avx512},
    {&avx2_kernels, has_avx2},
#elif defined(__aarch64__)
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
