#!/bin/bash
# Compiles libadamw for one backend and installs it into $PREFIX; each package takes its files from $PREFIX.
set -euo pipefail
options=("-DADAMW_BACKEND=$ADAMW_BACKEND" -DADAMW_INSTALL_STATIC=OFF -DADAMW_TESTS=OFF)
if [ "$toolchain" = system ]; then
  # Conda's compilers come with an old glibc. The system's glibc may be newer, but the package promises 2.28.
  options+=(-DADAMW_OLD_GLIBC=ON)
  # For another processor than this one, the system's cross compiler.
  [ "$target_platform" = "$build_platform" ] ||
    options+=("-DCMAKE_TOOLCHAIN_FILE=$RECIPE_DIR/../ci/${target_platform#linux-}.cmake")
  # The libraries of a platform have most objects in common. ci/conda begins with an empty cache.
  if command -v ccache >/dev/null; then
    export CCACHE_DIR=$RECIPE_DIR/../build/conda/ccache
    options+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  # ci/conda provides NVRTC (from wheels) and the cache of compiled kernels.
  options+=("-DADAMW_CUDA_WHEELS=$RECIPE_DIR/../.venv/cuda" "-DADAMW_CUDA_CACHE=$RECIPE_DIR/../build/cubins")
elif [ "$ADAMW_BACKEND" != cpu ]; then
  options+=("-DADAMW_NVCC=$BUILD_PREFIX/bin/nvcc")
fi
# Conda's compilers set CMAKE_ARGS.
cmake -S . -B build -G Ninja ${CMAKE_ARGS:-} -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$PREFIX" \
  -DCMAKE_INSTALL_LIBDIR=lib "${options[@]}"
cmake --build build -j "${CPU_COUNT:-2}"
cmake --install build
