// Owns the law that adamw.h, alone and first, means the same to C++ as to C: the C program's checks, compiled as C++17.
#include "../c/header.c"
