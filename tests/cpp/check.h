// Owns how a C++ test says what must hold. A failed CHECK is printed and counted; the test's last line is `return
// finish();`.
#pragma once

#include <cstdio>
#include <cstring>

// Under a sanitizer or an emulator everything takes ten times as long, and what it can find it finds in the first of
// many repetitions: there a test does less of the same. The release build does all.
#ifdef ADAMW_TESTS_ABRIDGED
constexpr bool abridged = true;
#else
constexpr bool abridged = false;
#endif

inline int &failures() {
  static int count = 0;
  return count;
}

// CHECK(condition, printf-style text with the values that matter)
#define CHECK(condition, ...)                                     \
  do {                                                            \
    if (!(condition) && failures()++ < 20) {                      \
      std::printf("%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::printf(__VA_ARGS__);                                   \
      std::printf("\n");                                          \
    }                                                             \
  } while (0)

inline int finish() {
  if (failures() != 0) std::printf("FAILED: %d checks\n", failures());
  return failures() != 0;
}
