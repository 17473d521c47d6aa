"""Owns the laws of loading: the library that is asked for, or an error that says what to do."""

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import run_python

from pyadamw import _cdef, _errors, _library

ROOT = Path(__file__).resolve().parents[2]
CPU = _library.PACKAGED / "libadamw_cpu.so"
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


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """Sets the folder of the package's libraries and torch's CUDA version: packaged(cuda, {name: library to copy})."""

    def set_up(cuda, libraries):
        monkeypatch.delenv(_library.ENVIRONMENT, raising=False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(_library, "PACKAGED", tmp_path)
        monkeypatch.setattr(_library, "INSTALLED", tmp_path / "libadamw.so.1")
        for name, source in libraries.items():
            (tmp_path / name).symlink_to(source)
        return tmp_path

    return set_up


@pytest.mark.parametrize(
    "cuda, expected",
    (
        (None, "libadamw_cpu.so"),
        ("12.8", "libadamw_cuda12.so"),
        ("13.0", "libadamw_cuda13.so"),
        ("11.8", "libadamw_cpu.so"),
        ("14.1", "libadamw_cpu.so"),
    ),
)
def test_torch_chooses_the_library(packaged, cuda, expected):
    """The library is the one for torch's CUDA major; where there is none, or torch is for the CPU, the CPU library."""
    real = _library.library().path
    names = ("libadamw_cpu.so", "libadamw_cuda12.so", "libadamw_cuda13.so")
    folder = packaged(cuda, dict.fromkeys(names, real))
    assert _library.Library().path == folder / expected


def test_no_library_for_this_cuda(packaged):
    """Without a library for torch's CUDA the CPU works; a CUDA device is an error: what was tried, what to install."""
    folder = packaged("13.0", {"libadamw_cpu.so": CPU})
    library = _library.Library()
    assert library.path == folder / "libadamw_cpu.so"
    assert library.device_number(torch.device("cpu"), "a parameter") == -1
    with pytest.raises(_errors.UnsupportedError) as caught:
        library.device_number(torch.device("cuda", 1), "parameter 3")
    said = str(caught.value)
    assert said.startswith("parameter 3 is on cuda:1, but ")
    for words in (
        "CUDA 13.0",
        str(folder / "libadamw_cuda13.so"),
        str(folder / "libadamw_cpu.so"),
        "pip install",
        "PYADAMW_",
    ):
        assert words in said
    packaged("11.8", {})
    with pytest.raises(_errors.UnsupportedError, match="Install a torch for CUDA 12 or 13"):
        library.device_number(torch.device("cuda", 1), "parameter 3")


@pytest.mark.parametrize("packages_own", ("libadamw_cuda13.so", "libadamw_cpu.so", None))
def test_the_environments_library(packaged, packages_own):
    """A pyadamw without a library loads lib/libadamw.so.1 of the environment; one inside of pyadamw comes first."""
    assert Path(sys.prefix) / "lib" / "libadamw.so.1" == _library.INSTALLED
    names = ["libadamw.so.1", *([packages_own] if packages_own else [])]
    folder = packaged("13.0", dict.fromkeys(names, CPU))
    library = _library.Library()
    assert library.path == folder / names[-1]
    remedy = "pip install" if packages_own else r"conda install 'libadamw=\*=cuda13\*'"
    with pytest.raises(_errors.UnsupportedError, match=remedy):
        library.device_number(torch.device("cuda", 0), "a parameter")


def test_cuda_devices_of_a_cpu_library(packaged, monkeypatch):
    """A CPU library that was chosen by hand, or by a torch without CUDA, says which of the two it was."""
    packaged(None, {"libadamw_cpu.so": CPU})
    with pytest.raises(_errors.UnsupportedError, match="a torch that is built for CUDA"):
        _library.Library().device_number(torch.device("cuda", 0), "a parameter")
    monkeypatch.setenv(_library.ENVIRONMENT, str(CPU))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(_errors.UnsupportedError, match="PYADAMW_LIBRARY chose it"):
        _library.Library().device_number(torch.device("cuda", 0), "a parameter")
    with pytest.raises(_errors.UnsupportedError, match="is on meta: must be on a CPU or a CUDA device"):
        _library.Library().device_number(torch.device("meta"), "a parameter")


def test_device_numbers(packaged, monkeypatch):
    """A CUDA library takes a device by its index; the CPU is -1."""
    packaged(None, {"libadamw_cpu.so": CPU})
    monkeypatch.setattr(_library.Library, "build_info", lambda self: "libadamw 1.0.0, backend cuda13, CUDA 13.0")
    library = _library.Library()
    assert library.cuda == 13
    assert library.device_number(torch.device("cuda", 5), "a parameter") == 5
    assert library.device_number(torch.device("cpu"), "a parameter") == -1


@pytest.mark.parametrize("major", (12, 13))
def test_cuda_libraries(major):
    """The CUDA libraries are chosen by path, load without a driver, and step tensors on the CPU to the same bits."""
    path = ROOT / "build" / "cuda" / f"libadamw_cuda{major}.so"
    if not path.exists():
        pytest.skip(f"{path.name} is not built: make cuda")
    script = """
import hashlib, torch, pyadamw
torch.manual_seed(0)
p = torch.nn.Parameter(torch.randn(5000))
optimizer = pyadamw.AdamW8bit([p])
for _ in range(3):
    p.grad = torch.randn(5000)
    optimizer.step()
print(pyadamw._library.library().cuda, hashlib.sha256(p.detach().numpy().tobytes()).hexdigest())
"""
    done = run_python(script, PYADAMW_LIBRARY=str(path))
    assert done.returncode == 0, done.stderr
    expected = run_python(script, PYADAMW_LIBRARY=str(CPU)).stdout
    assert done.stdout == expected.replace("None", str(major))


def test_another_struct_layout_is_refused(monkeypatch):
    """Declarations whose struct size differs from the header's are refused."""
    monkeypatch.setitem(_cdef.SIZES, "adamw_tensor", 96)
    with pytest.raises(_errors.VersionError, match=r"sizeof\(adamw_tensor\) is 112 here, but 96"):
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
