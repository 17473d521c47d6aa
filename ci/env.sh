# Sourced by the scripts of this folder: strict mode, the repository root, the project's own tools first on PATH.
set -euo pipefail
CDPATH=
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export PATH="$root/.venv/bin:$PATH"
# The caller's settings of another Python must not leak into .venv.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX
unset PYTHONDONTWRITEBYTECODE # what ci/venv installs is compiled when it is first imported, and once is enough
python=$root/.venv/bin/python
jobs=$(nproc 2>/dev/null || echo 2)
test_jobs=$((jobs + 1)) # tests wait now and then, for a disk or another process
# use_ccache: what is built after it takes from the other builds of this clone what they have compiled already: build/release,
# .venv's and build/cuda have most files in common. Without ccache (ci/test installs it where it can) each compiles its own.
use_ccache() {
  command -v ccache >/dev/null || return 0
  export CMAKE_C_COMPILER_LAUNCHER=ccache CMAKE_CXX_COMPILER_LAUNCHER=ccache CCACHE_DIR=$root/build/ccache
  export CCACHE_DEPEND=1 # what is not there yet is only compiled, not preprocessed first
  export CC=${CC:-cc} CXX=${CXX:-c++} # pip would take the compiler that Python was built with: the same, by another name
}
# wait_passively: what runs after it runs beside others: its threads that wait leave them the processors, instead of spinning.
wait_passively() { export OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0; }
