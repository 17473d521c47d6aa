/* Owns a system that refuses: loaded before the C library (LD_PRELOAD), it makes memory, threads, reads, writes or disk
 * space fail where libadamw asks for them, and nobody else. Knows no function of libadamw. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_memalign(size_t, size_t);

static struct {
  uintptr_t begin, end;
} theirs[8]; /* code of libadamw, and of the C++ runtime where that is a library of its own */
static int count;
static volatile long allocations_left; /* until one fails; 0: none does */
static volatile int no_threads, error_of_reads, error_of_writes, error_of_space;

static int note(struct dl_phdr_info *info, size_t size, void *unused) {
  int i;
  (void)size, (void)unused;
  if (!strstr(info->dlpi_name, "libadamw") && !strstr(info->dlpi_name, "libstdc++")) return 0;
  for (i = 0; i < info->dlpi_phnum && count < 8; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
    theirs[count].begin = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    theirs[count].end = theirs[count].begin + info->dlpi_phdr[i].p_memsz;
    ++count;
  }
  return 0;
}

/* After the library has been loaded. */
void refusals_begin(void) { dl_iterate_phdr(note, NULL); }
/* The allocation with this number from now on fails, counted from 1; 0: none. What was left of the last such number. */
long refuse_allocation(long number) {
  const long left = allocations_left;
  allocations_left = number;
  return left;
}
void refuse_threads(int yes) { no_threads = yes; }
void refuse_reads(int error) { error_of_reads = error; }
void refuse_writes(int error) { error_of_writes = error; }
void refuse_space(int error) { error_of_space = error; }

static int is_theirs(const void *caller) {
  int i;
  for (i = 0; i < count; ++i)
    if ((uintptr_t)caller >= theirs[i].begin && (uintptr_t)caller < theirs[i].end) return 1;
  return 0;
}
static int no_memory(const void *caller) {
  if (allocations_left == 0 || !is_theirs(caller) || --allocations_left != 0) return 0;
  errno = ENOMEM;
  return 1;
}
static int failing(int error, const void *caller) {
  if (error == 0 || !is_theirs(caller)) return 0;
  errno = error;
  return 1;
}
#define CALLER __builtin_return_address(0)
#define NEXT(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

void *malloc(size_t size) { return no_memory(CALLER) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return no_memory(CALLER) ? NULL : __libc_calloc(n, size); }
void *aligned_alloc(size_t alignment, size_t size) {
  return no_memory(CALLER) ? NULL : __libc_memalign(alignment, size);
}
void *mmap(void *at, size_t size, int protection, int flags, int file, off_t offset) {
  return no_memory(CALLER) ? MAP_FAILED : NEXT(mmap)(at, size, protection, flags, file, offset);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
  return no_threads && is_theirs(CALLER) ? EAGAIN : NEXT(pthread_create)(thread, attributes, function, argument);
}
ssize_t pread(int file, void *memory, size_t size, off_t offset) {
  return failing(error_of_reads, CALLER) ? -1 : NEXT(pread)(file, memory, size, offset);
}
ssize_t pwrite(int file, const void *memory, size_t size, off_t offset) {
  return failing(error_of_writes, CALLER) ? -1 : NEXT(pwrite)(file, memory, size, offset);
}
int fallocate(int file, int mode, off_t offset, off_t size) {
  return failing(error_of_space, CALLER) ? -1 : NEXT(fallocate)(file, mode, offset, size);
}
