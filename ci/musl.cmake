# CMake toolchain of Linux with musl, as on Alpine: clang, musl and libc++ of the package ziglang, which ci/musl puts in build/zig.
# Programs are linked with musl's shared library, whose loader (Debian: musl) then runs them here.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(zig ${CMAKE_CURRENT_LIST_DIR}/../build/zig/ziglang/zig)
set(CMAKE_C_COMPILER ${zig} cc -target x86_64-linux-musl -dynamic -O2)
set(CMAKE_CXX_COMPILER ${zig} c++ -target x86_64-linux-musl -dynamic -O2)
