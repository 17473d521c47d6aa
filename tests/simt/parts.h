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

// `run` calls a part's body. Ends with the first part that fails.
template <class Run>
int run_parts(int argc, char **argv, std::initializer_list<TestPart> parts, const Run &run) {
  adamw::gpu::replace_driver(fake_driver());
  set_error_handler([](const char *message) { CHECK(false, "%s", message); });
  bool known = argc == 1;
  for (const TestPart &part : parts) {
    if (argc > 1 && std::strcmp(argv[1], part.name) != 0) continue;
    if (failures() != 0) break;
    known = true;
    run(part.body);
  }
  CHECK(known, "no part '%s'", argv[1]);
  return finish();
}

inline int run_parts(int argc, char **argv, std::initializer_list<TestPart> parts) {
  return run_parts(argc, argv, parts, [](void (*body)()) { body(); });
}

}  // namespace simt
