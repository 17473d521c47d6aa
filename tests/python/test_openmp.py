"""Owns that libadamw takes torch's OpenMP, however torch has loaded it."""

import shutil
from pathlib import Path

from harness import run_python

import pyadamw
from pyadamw._native import openmp

LIBRARY = Path(pyadamw.__file__).parent / "lib" / "libadamw_cpu.so"
SCRIPT = f"""
import ctypes, importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("openmp", {openmp.__file__!r})
openmp = importlib.util.module_from_spec(spec)
spec.loader.exec_module(openmp)
folder = Path(sys.argv[1])
ctypes.CDLL(str(folder / "libgomp-0123abcd.so.1.0.0"))  # as dlopen() does by itself: only its loader sees it
everyone = ctypes.CDLL(None)
openmp.share(folder / "elsewhere")
assert not hasattr(everyone, "GOMP_parallel")
openmp.share(folder / "elsewhere", folder)
assert hasattr(everyone, "GOMP_parallel")
library = ctypes.CDLL({str(LIBRARY)!r})
library.adamw_build_info.restype = ctypes.c_char_p
print(library.adamw_build_info().decode())
"""


def test_a_runtime_that_only_torch_sees(tmp_path):
    """As torch's wheels for AArch64 load it: the process is shown that runtime, no other, and libadamw takes it."""
    (runtime, *_) = openmp.loaded(Path("/proc/self/maps").read_text())
    shutil.copy(runtime, tmp_path / "libgomp-0123abcd.so.1.0.0")
    done = run_python(SCRIPT, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "threads: OpenMP" in done.stdout
