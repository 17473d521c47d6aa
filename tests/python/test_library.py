"""Owns the laws of loading: the library that is asked for, or an error that says what to do."""

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest
from harness import run_python

from pyadamw import _cdef, _errors, _library

ROOT = Path(__file__).resolve().parents[2]
CONSTRUCT = """
import torch, pyadamw
try:
    pyadamw.AdamW([torch.nn.Parameter(torch.zeros(1))])
except pyadamw.AdamWError as error:
    print(type(error).__name__, error)
"""


def test_a_wrong_path_is_named(tmp_path):
    """PYADAMW_LIBRARY that does not exist, or is no library, or another one, is an error that names it."""
    missing = tmp_path / "nowhere.so"
    text = tmp_path / "text.so"
    text.write_text("no library")
    other = ctypes.util.find_library("m")
    for path, said in ((missing, "there is no such file"), (text, "not a shared library")):
        output = run_python(CONSTRUCT, PYADAMW_LIBRARY=str(path)).stdout
        assert output.startswith("LibraryNotFoundError PYADAMW_LIBRARY = ")
        assert str(path) in output
        assert said in output
    maths = next((p for p in Path("/lib").glob(f"*/{other}")), None)
    if maths is not None:
        output = run_python(CONSTRUCT, PYADAMW_LIBRARY=str(maths)).stdout
        assert output.startswith(f"VersionError {maths} is not libadamw")


def test_import_needs_no_library():
    """`import pyadamw` works without the library; only using it is an error."""
    assert run_python("import pyadamw; print(pyadamw.__version__)", PYADAMW_LIBRARY="/nowhere.so").returncode == 0


def test_another_abi_is_refused(monkeypatch):
    """A library of another ABI version is refused with both numbers."""
    monkeypatch.setattr(_cdef, "ABI_VERSION", 77)
    with pytest.raises(_errors.VersionError, match=r"has ABI version 1, but this pyadamw needs 77"):
        _library.Library()


def test_another_struct_layout_is_refused(monkeypatch):
    """Declarations whose struct size differs from the header's are refused."""
    monkeypatch.setitem(_cdef.SIZES, "adamw_tensor", 96)
    with pytest.raises(_errors.VersionError, match=r"sizeof\(adamw_tensor\) is 104 here, but 96"):
        _library.Library()


def test_declarations_are_the_headers():
    """pyadamw/_cdef.py is what ci/generate_cdef.py makes of the header, and the check notices a difference."""
    script = ROOT / "ci" / "generate_cdef.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


def test_info_command():
    """`python -m pyadamw info` prints versions, library and kernel; without a library it says so and fails."""
    script = "import sys; from pyadamw.cli import main; sys.exit(main(['info']))"
    done = run_python(script)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("pyadamw", "torch", "library", "kernel", "threads"))
    done = run_python(script, PYADAMW_LIBRARY="/nowhere.so")
    assert done.returncode == 1
    assert "/nowhere.so" in done.stderr


def test_unknown_kernel_is_an_error():
    """ADAMW_CPU that names no kernel is an UnsupportedError of every step, and never an abort."""
    script = """
import torch, pyadamw
p = torch.nn.Parameter(torch.zeros(5000)); p.grad = torch.ones(5000)
for cls in (pyadamw.AdamW8bit, pyadamw.AdamW32bit):
    try:
        cls([p]).step()
    except pyadamw.UnsupportedError as error:
        print("refused", error, bool(p.any()))
"""
    done = run_python(script, ADAMW_CPU="mmx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 2
    assert done.stdout.count("mmx") == 2
    assert "True" not in done.stdout


def test_torch_is_loaded_first():
    """The library is opened after torch is imported, so that both share one OpenMP pool; importing touches no GPU."""
    script = """
import sys, pyadamw
assert "torch" in sys.modules
import torch
assert not torch.cuda.is_initialized()
pools = {line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "omp5" in line}
pyadamw._library.library()
print(sorted({line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line} - pools))
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
