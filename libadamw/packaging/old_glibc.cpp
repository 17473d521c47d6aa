// Lets a binary that is linked on a newer glibc load on glibc 2.28, as a wheel for manylinux_2_28 must; x86-64 and
// AArch64 only. Built where CMake's ADAMW_OLD_GLIBC asks for it. Knows nothing of the library.
//
// glibc 2.34 moved the functions of libpthread and libdl into libc under new versions, and keeps the old ones for
// binaries that ask for them; gcc's static runtime wants a few that are newer still. A hidden definition here takes
// each reference before the linker can bind it to a new version. That nothing newer than 2.28 is left is for auditwheel
// to say.
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>

// The first glibc of this architecture.
#if defined(__x86_64__)
#define ADAMW_FIRST_GLIBC "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define ADAMW_FIRST_GLIBC "GLIBC_2.17"
#else
#error "ADAMW_OLD_GLIBC is for x86-64 and AArch64"
#endif

// The function `name` as every glibc for this architecture has it; ADAMW_HIDDEN gives the definition that the rest of
// the binary sees.
#define ADAMW_OLD_SYMBOL(name)          \
  extern "C" decltype(name) old_##name; \
  __asm__(".symver old_" #name "," #name "@" ADAMW_FIRST_GLIBC);
#define ADAMW_HIDDEN extern "C" __attribute__((visibility("hidden")))

extern "C" int __pthread_key_create(pthread_key_t *, void (*)(void *)) noexcept;

ADAMW_OLD_SYMBOL(pthread_create)
ADAMW_OLD_SYMBOL(pthread_detach)
ADAMW_OLD_SYMBOL(pthread_join)
ADAMW_OLD_SYMBOL(pthread_once)
ADAMW_OLD_SYMBOL(pthread_mutex_trylock)
ADAMW_OLD_SYMBOL(pthread_key_create)
ADAMW_OLD_SYMBOL(pthread_key_delete)
ADAMW_OLD_SYMBOL(pthread_getspecific)
ADAMW_OLD_SYMBOL(pthread_setspecific)
ADAMW_OLD_SYMBOL(pthread_sigmask)
ADAMW_OLD_SYMBOL(dlopen)
ADAMW_OLD_SYMBOL(dlsym)
ADAMW_OLD_SYMBOL(dlclose)
ADAMW_OLD_SYMBOL(dlerror)

ADAMW_HIDDEN int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *),
                                void *argument) noexcept {
  return old_pthread_create(thread, attributes, start, argument);
}
ADAMW_HIDDEN int pthread_detach(pthread_t thread) noexcept { return old_pthread_detach(thread); }
ADAMW_HIDDEN int pthread_join(pthread_t thread, void **result) { return old_pthread_join(thread, result); }
ADAMW_HIDDEN int pthread_once(pthread_once_t *control, void (*initialize)()) {
  return old_pthread_once(control, initialize);
}
ADAMW_HIDDEN int pthread_mutex_trylock(pthread_mutex_t *mutex) noexcept { return old_pthread_mutex_trylock(mutex); }
ADAMW_HIDDEN int pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) noexcept {
  return old_pthread_key_create(key, destroy);
}
ADAMW_HIDDEN int __pthread_key_create(pthread_key_t *key, void (*destroy)(void *)) noexcept {
  return old_pthread_key_create(key, destroy);
}
ADAMW_HIDDEN int pthread_key_delete(pthread_key_t key) noexcept { return old_pthread_key_delete(key); }
ADAMW_HIDDEN void *pthread_getspecific(pthread_key_t key) noexcept { return old_pthread_getspecific(key); }
ADAMW_HIDDEN int pthread_setspecific(pthread_key_t key, const void *value) noexcept {
  return old_pthread_setspecific(key, value);
}
ADAMW_HIDDEN int pthread_sigmask(int how, const sigset_t *set, sigset_t *before) noexcept {
  return old_pthread_sigmask(how, set, before);
}
ADAMW_HIDDEN void *dlopen(const char *file, int mode) noexcept { return old_dlopen(file, mode); }
ADAMW_HIDDEN void *dlsym(void *handle, const char *symbol) noexcept { return old_dlsym(handle, symbol); }
ADAMW_HIDDEN int dlclose(void *handle) noexcept { return old_dlclose(handle); }
ADAMW_HIDDEN char *dlerror() noexcept { return old_dlerror(); }

// 2.32. Zero is "there may be other threads", which is never wrong.
ADAMW_HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;

// 2.35. Minus one is "not found": gcc's unwinder then asks dl_iterate_phdr(), as it does on older systems.
struct dl_find_object;
ADAMW_HIDDEN int _dl_find_object(void *, dl_find_object *) noexcept { return -1; }

// 2.36. Only std::random_device would call it.
ADAMW_HIDDEN unsigned arc4random() noexcept {
  unsigned number;
  if (getentropy(&number, sizeof(number)) != 0) std::abort();
  return number;
}
