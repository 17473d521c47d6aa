#!/bin/bash
# Compiles libadamw for one backend and installs it into $PREFIX; each package takes its files from there.
set -euo pipefail
cuda=()
if [ "$ADAMW_BACKEND" != cpu ]; then
  if [ "$toolchain" = system ]; then
    # NVRTC from wheels, and what it has compiled before: those of ci/conda.
    cuda=("-DADAMW_CUDA_WHEELS=$RECIPE_DIR/../.venv/cuda" "-DADAMW_CUDA_CACHE=$RECIPE_DIR/../build/cubins")
  else
    cuda=("-DADAMW_NVCC=$BUILD_PREFIX/bin/nvcc")
  fi
fi
# CMAKE_ARGS: conda's compilers set it.
cmake -S . -B build -G Ninja ${CMAKE_ARGS:-} -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$PREFIX" \
  -DCMAKE_INSTALL_LIBDIR=lib "-DADAMW_BACKEND=$ADAMW_BACKEND" -DADAMW_INSTALL_STATIC=OFF -DADAMW_TESTS=OFF "${cuda[@]}"
cmake --build build -j "${CPU_COUNT:-2}"
cmake --install build
