/* Owns the question what the system's loader says of a library: prints the library's description, or why it is not
 * loaded. */
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
  void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  const char *(*info)(void) = NULL;
  if (library != NULL) *(void **)&info = dlsym(library, "adamw_build_info");
  puts(info != NULL ? info() : dlerror());
  return info == NULL;
}
