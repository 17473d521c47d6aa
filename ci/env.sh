# Sourced by the scripts of this folder: strict mode, the repository root, the project's own tools first on PATH.
set -euo pipefail
CDPATH=
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
export PATH="$root/.venv/bin:$PATH"
# The caller's settings of another Python must not leak into .venv.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX
python=$root/.venv/bin/python
jobs=$(nproc 2>/dev/null || echo 2)
