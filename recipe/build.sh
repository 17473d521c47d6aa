#!/bin/bash
# Compiles libadamw for one backend and installs it into $PREFIX; each package takes its files from there.
set -euo pipefail
options=("-DADAMW_BACKEND=$ADAMW_BACKEND" -DADAMW_INSTALL_STATIC=OFF -DADAMW_TESTS=OFF)
if [ "$toolchain" = system ]; then
  # Conda's compilers come with an old glibc; the system's is any, and the package says 2.28.
  [ "$(uname -m)" != x86_64 ] || options+=(-DADAMW_OLD_GLIBC=ON)
  # NVRTC from wheels, and what it has compiled before: those of ci/conda.
  options+=("-DADAMW_CUDA_WHEELS=$RECIPE_DIR/../.venv/cuda" "-DADAMW_CUDA_CACHE=$RECIPE_DIR/../build/cubins")
elif [ "$ADAMW_BACKEND" != cpu ]; then
  options+=("-DADAMW_NVCC=$BUILD_PREFIX/bin/nvcc")
fi
# CMAKE_ARGS: conda's compilers set it.
cmake -S . -B build -G Ninja ${CMAKE_ARGS:-} -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$PREFIX" \
  -DCMAKE_INSTALL_LIBDIR=lib "${options[@]}"
cmake --build build -j "${CPU_COUNT:-2}"
cmake --install build
