// Owns the main() of a test of several parts: all of them, or the one that the command names. Knows none.
#pragma once

#include <cstring>
#include <initializer_list>

#include "cpp/check.h"
#include "fake_driver.h"
#include "runtime.h"

namespace simt {

struct TestPart {
  const char *name;
  void (*body)();
};

// As the library finds a process in which nothing has been called yet: it forgets what the devices were like.
inline void fresh_driver() {
  adamw::gpu::replace_driver(nullptr);
  CHECK(held() == 0 && handles() == 0, "%d contexts, libraries and pools were not given back, %d handles", held(),
        handles());
  adamw::gpu::replace_driver(fake_driver());
  restart();
}

// `run` calls a part's body. Ends with the first part that fails.
template <class Run>
int run_parts(int argc, char **argv, std::initializer_list<TestPart> parts, const Run &run) {
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  bool known = argc == 1;
  for (const TestPart &part : parts) {
    if (argc > 1 && std::strcmp(argv[1], part.name) != 0) continue;
    if (failures() != 0) break;
    known = true;
    fresh_driver();  // a part finds nothing of those before it
    run(part.body);
  }
  CHECK(known, "no part '%s'", argv[1]);
  return finish();
}

inline int run_parts(int argc, char **argv, std::initializer_list<TestPart> parts) {
  return run_parts(argc, argv, parts, [](void (*body)()) { body(); });
}

}  // namespace simt
