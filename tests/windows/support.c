/* Owns what the tests need on Windows beside themselves; CMake links it into each. Knows no test. */
#include <stdio.h>
#include <stdlib.h>

/* Says that the program came to its end: for ci/wine, since wine sometimes reports a program that crashed as one that
 * succeeded. */
static void ended(void) { fputs("-- ended\n", stderr); }
__attribute__((constructor)) static void begin(void) { atexit(ended); }

/* mingw-w64's own rounds twice (x * y + z in long double). The tests take it for the definition of what is rounded
 * once; the library calls none. */
__attribute__((target("fma"))) float fmaf(float x, float y, float z) {
  float result = x;
  __asm__("vfmadd213ss %2, %1, %0"
          : "+x"(result)
          : "x"(y), "x"(z)); /* not __builtin_fmaf(): it may become a call of this */
  return result;
}
