// Owns the law of test_out_of_memory.cpp on several threads, which are the library's own here, whatever the build:
// OpenMP's runtime ends the process where its own allocations fail.
#define ADAMW_TEST_THREADS 3
#include "test_out_of_memory.cpp"

#ifndef ADAMW_THREADS_STD
#define ADAMW_THREADS_STD
#endif
#include "cpu/parallel.cpp"  // what is defined here is not taken from the library
