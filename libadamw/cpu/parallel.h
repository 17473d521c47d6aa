// Owns threads: how many, and running one function on each. Knows nothing of what they do.
#pragma once

namespace adamw {

// Runs function(context) on up to `threads` threads at once, this one included, with default floating-point modes, and
// waits. Fewer threads than asked for may run: no more than a few for each processor, what the system gives, and one in
// a child of fork() whose parent had threads. So work must be taken from a shared counter, not by number.
void run_on_threads(int threads, void (*function)(void *context), void *context);

// What a call that names no number of threads uses now. At least 1. Any number may be set; 0: what OpenMP says.
int default_threads();
void set_default_threads(int threads);

// Whose threads they are: "OpenMP" or "its own".
const char *thread_layer();

}  // namespace adamw
