// Owns the choice of an instruction set. The only file that asks what the processor can do.
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace adamw {

extern const Kernels scalar_kernels;
namespace {
bool always() { return true; }
}  // namespace

// One line per instruction set, best first.
#if defined(__x86_64__)
extern const Kernels avx2_kernels, avx512_kernels;
namespace {
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
constexpr struct {
  const Kernels *kernels;
  bool (*supported)();
} table[] = {{&avx512_kernels, has_avx512}, {&avx2_kernels, has_avx2}, {&scalar_kernels, always}};
}  // namespace
const char *built_kernels() { return "avx512 avx2 scalar"; }
#elif defined(__aarch64__)
extern const Kernels neon_kernels;
namespace {
constexpr struct {
  const Kernels *kernels;
  bool (*supported)();
} table[] = {{&neon_kernels, always}, {&scalar_kernels, always}};
}  // namespace
const char *built_kernels() { return "neon scalar"; }
#else
namespace {
constexpr struct {
  const Kernels *kernels;
  bool (*supported)();
} table[] = {{&scalar_kernels, always}};
}  // namespace
const char *built_kernels() { return "scalar"; }
#endif

int usable_kernels(const Kernels *list[4]) {
  int n = 0;
  for (const auto &entry : table) {
    if (entry.supported()) list[n++] = entry.kernels;
  }
  return n;
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
                    "ADAMW_CPU=%s, but this processor has no %s: unset it or choose another of: %s", wanted, wanted,
                    built_kernels());
      return;
    }
    std::snprintf(error, sizeof error, "ADAMW_CPU=%.40s is not a kernel of this library: unset it or choose one of: %s",
                  wanted, built_kernels());
  }
};

}  // namespace

const Kernels *active_kernels(const char **error) {
  static const Choice choice;
  *error = choice.error;
  return choice.kernels;
}

}  // namespace adamw
