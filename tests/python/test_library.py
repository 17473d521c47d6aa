"""Owns the laws of loading: the library that is asked for, or an error that says what to do."""

import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch
from harness import run_python

from pyadamw import errors
from pyadamw._native import cdef, library, load_errors

ROOT = Path(__file__).resolve().parents[2]
CPU = library.PACKAGED / "libadamw_cpu.so"
CONSTRUCT = """
import torch, pyadamw
try:
    pyadamw.AdamW([torch.nn.Parameter(torch.zeros(1))])
except pyadamw.AdamWError as error:
    print(type(error).__name__, error)
"""


def of_another_machine(path):
    """A copy of the library whose header says that it is for another processor."""
    content = bytearray(CPU.read_bytes())
    content[18:20] = (183 if platform.machine() != "aarch64" else 62).to_bytes(2, "little")
    path.write_bytes(content)


def compiled(body):
    """A maker of a shared library of this C code."""
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-x", "c", "-", "-o"]
    return lambda path: subprocess.run([*command, path], input=body, text=True, check=True)


def without_sections(path, length):
    """As strip leaves it with --strip-section-headers, cut off after so many bytes."""
    content = bytearray(CPU.read_bytes())
    content[40:48], content[58:64] = bytes(8), bytes(6)
    path.write_bytes(content[:length])


VERSIONS = "int adamw_abi_version(void) {{ return {}; }} int adamw_version(void) {{ return {}; }}"
REFUSED = {
    "missing": (lambda path: None, "LibraryNotFoundError", "no such file"),
    "a folder": (Path.mkdir, "LibraryNotFoundError", "it is a folder: give the path of the file in it"),
    "a broken link": (lambda path: path.symlink_to("/nowhere.so"), "LibraryNotFoundError", "a link to /nowhere.so"),
    "text": (
        lambda path: path.write_text("no library"),
        "LibraryNotFoundError",
        "not a shared library (no ELF header)",
    ),
    "cut off": (lambda path: path.write_bytes(CPU.read_bytes()[:-1]), "LibraryNotFoundError", "it is incomplete"),
    "one page": (lambda path: path.write_bytes(CPU.read_bytes()[:4096]), "LibraryNotFoundError", "it is incomplete"),
    "cut off, no sections": (lambda path: without_sections(path, 100_000), "LibraryNotFoundError", "it is incomplete"),
    "a header, no sections": (lambda path: without_sections(path, 64), "LibraryNotFoundError", "it is incomplete"),
    "a FIFO": (os.mkfifo, "LibraryNotFoundError", "it is a FIFO"),
    "a device": (lambda path: path.symlink_to("/dev/null"), "LibraryNotFoundError", "it is a device"),
    "memory": (lambda path: path.symlink_to("/proc/self/mem"), "LibraryNotFoundError", "it cannot be read"),
    "a file of /proc": (lambda path: path.symlink_to("/proc/self/cmdline"), "LibraryNotFoundError", "no ELF header"),
    "for another machine": (of_another_machine, "LibraryNotFoundError", f"and this machine is {platform.machine()}"),
    "another library": (compiled("int another;"), "VersionError", "is not libadamw"),
    "another ABI": (
        compiled(VERSIONS.format(77, 10000)),
        "VersionError",
        "has ABI version 77, but this pyadamw needs 1:",
    ),
    "older": (
        compiled(VERSIONS.format(1, 902)),
        "VersionError",
        "is libadamw 0.9.2, but this pyadamw needs 1.0 or newer",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_library_is_refused(what, tmp_path, monkeypatch):
    """A file that cannot be libadamw is an error that names it and says what to do."""
    make, error, said = REFUSED[what]
    path = tmp_path / "library ü.so"
    make(path)
    monkeypatch.setenv(library.ENVIRONMENT, str(path))
    with pytest.raises(getattr(errors, error)) as caught:
        library.Library()
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_library_cut_off_anywhere(tmp_path):
    """Without its section headers, which loading does not need, it is refused until all that is mapped is there."""
    segments, path = 64, tmp_path / "cut.so"
    header = CPU.read_bytes()[: 64 + 56 * 16]
    (count,) = struct.unpack_from("<H", header, 56)
    fields = (struct.unpack_from("<IIQQQQ", header, segments + 56 * i) for i in range(count))
    ends = [offset + size for kind, _, offset, _, _, size in fields if kind == 1]
    for length in (*range(64, max(ends), 50_000), max(ends) - 1):
        without_sections(path, length)
        assert "incomplete" in load_errors.before(path), length
    without_sections(path, max(ends))
    assert load_errors.before(path) is None


def test_a_library_that_may_not_be_read(tmp_path):
    """Without permission to read the library the error says so, and how to give it."""
    path = tmp_path / "secret.so"
    shutil.copy(CPU, path)
    path.chmod(0)
    # root may read everything: the user "nobody" must look for it.
    script = CONSTRUCT.replace("try:", "import os; os.geteuid() or os.seteuid(65534)\ntry:")
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own, however many they are, are closed to others
        if folder.stat().st_mode & 0o001:
            break
        folder.chmod(0o755)
    output = forked.run(script, PYADAMW_LIBRARY=str(path)).stdout
    assert output.startswith(
        f"LibraryNotFoundError PYADAMW_LIBRARY = {path} cannot be loaded: you have no permission to read it"
    )
    assert f"chmod a+r {path}" in output


def test_a_newer_system_is_named(tmp_path):
    """A library for a newer C library than the system's is an error that says which system it needs."""
    needs = OSError("/lib/libc.so.6: version `GLIBC_2.99' not found (required by libadamw.so)")
    said = load_errors.after(needs)
    assert said.startswith("it is built for a newer system (here: ")
    assert "GLIBC_2.99" in said


@pytest.mark.parametrize(
    "of_musl",
    [
        "Error loading shared library ld-linux-x86-64.so.2: No such file or directory (needed by /x/libadamw_cpu.so)",
        "Error relocating /x/libadamw_cpu.so: __memcpy_chk: symbol not found",
    ],
)
def test_a_system_without_glibc_is_named(of_musl):
    """What musl's loader says of a library for glibc (ci/musl asks it) becomes what is wrong and what to do."""
    said = load_errors.after(OSError(of_musl))
    assert "built for glibc" in said and "musl" in said and "pip install ." in said and of_musl in said


def test_a_wrong_path_is_named_at_the_first_use():
    """Constructing an optimizer does not hide why there is no library."""
    output = forked.run(CONSTRUCT, PYADAMW_LIBRARY="/nowhere.so").stdout
    assert output.startswith("LibraryNotFoundError PYADAMW_LIBRARY = /nowhere.so: no such file")


def test_import_needs_no_library():
    """`import pyadamw` works without the library; only using it is an error."""
    assert forked.run("import pyadamw; print(pyadamw.__version__)", PYADAMW_LIBRARY="/nowhere.so").returncode == 0


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    """Sets the folder of the package's libraries and torch's CUDA version: packaged(cuda, {name: library to copy})."""

    def set_up(cuda, libraries):
        monkeypatch.delenv(library.ENVIRONMENT, raising=False)
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(library, "PACKAGED", tmp_path)
        monkeypatch.setattr(library, "INSTALLED", tmp_path / "libadamw.so.1")
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
    real = library.library().path
    names = ("libadamw_cpu.so", "libadamw_cuda12.so", "libadamw_cuda13.so")
    folder = packaged(cuda, dict.fromkeys(names, real))
    assert library.Library().path == folder / expected


def test_no_library_for_this_cuda(packaged):
    """Without a library for torch's CUDA the CPU works; a CUDA device is an error: what was tried, what to install."""
    folder = packaged("13.0", {"libadamw_cpu.so": CPU})
    loaded = library.Library()
    assert loaded.path == folder / "libadamw_cpu.so"
    assert loaded.device_number(torch.device("cpu"), "a parameter") == -1
    with pytest.raises(errors.UnsupportedError) as caught:
        loaded.device_number(torch.device("cuda", 1), "parameter 3")
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
    with pytest.raises(errors.UnsupportedError, match="Install a torch for CUDA 12 or 13"):
        loaded.device_number(torch.device("cuda", 1), "parameter 3")


@pytest.mark.parametrize("packages_own", ("libadamw_cuda13.so", "libadamw_cpu.so", None))
def test_the_environments_library(packaged, packages_own):
    """A pyadamw without a library loads lib/libadamw.so.1 of the environment; one inside of pyadamw comes first."""
    assert Path(sys.prefix) / "lib" / "libadamw.so.1" == library.INSTALLED
    names = ["libadamw.so.1", *([packages_own] if packages_own else [])]
    folder = packaged("13.0", dict.fromkeys(names, CPU))
    loaded = library.Library()
    assert loaded.path == folder / names[-1]
    remedy = "pip install" if packages_own else r"conda install 'libadamw=\*=cuda13\*'"
    with pytest.raises(errors.UnsupportedError, match=remedy):
        loaded.device_number(torch.device("cuda", 0), "a parameter")


def test_cuda_devices_of_a_cpu_library(packaged, monkeypatch):
    """A CPU library that was chosen by hand, or by a torch without CUDA, says which of the two it was."""
    packaged(None, {"libadamw_cpu.so": CPU})
    with pytest.raises(errors.UnsupportedError, match="a torch that is built for CUDA"):
        library.Library().device_number(torch.device("cuda", 0), "a parameter")
    monkeypatch.setenv(library.ENVIRONMENT, str(CPU))
    monkeypatch.setattr(torch.version, "cuda", "12.6")
    with pytest.raises(errors.UnsupportedError, match="PYADAMW_LIBRARY chose it"):
        library.Library().device_number(torch.device("cuda", 0), "a parameter")
    with pytest.raises(errors.UnsupportedError, match="is on meta: must be on a CPU or a CUDA device"):
        library.Library().device_number(torch.device("meta"), "a parameter")


def test_device_numbers(packaged, monkeypatch):
    """A CUDA library takes a device by its index; the CPU is -1."""
    packaged(None, {"libadamw_cpu.so": CPU})
    monkeypatch.setattr(library.Library, "build_info", lambda self: "libadamw 1.0.0, backend cuda13, CUDA 13.0")
    loaded = library.Library()
    assert loaded.cuda == 13
    assert loaded.device_number(torch.device("cuda", 5), "a parameter") == 5
    assert loaded.device_number(torch.device("cpu"), "a parameter") == -1


def test_another_struct_layout_is_refused(monkeypatch):
    """Declarations whose struct size differs from the header's are refused."""
    monkeypatch.setitem(cdef.SIZES, "adamw_tensor", 96)
    with pytest.raises(errors.VersionError, match=r"sizeof\(adamw_tensor\) is 152 here, but 96"):
        library.Library()


@pytest.mark.skipif(not (ROOT / "pyadamw").is_dir(), reason="the package's source is not here")
def test_declarations_are_the_headers():
    """pyadamw/_native/cdef.py is what ci/generate_cdef.py makes of the header, and the check notices a difference."""
    script = ROOT / "ci" / "generate_cdef.py"
    assert subprocess.run([sys.executable, script, "--check"], check=False).returncode == 0


def test_info_command():
    """`python -m pyadamw info` prints versions, library and kernel; without a library it says so and fails."""
    script = "import sys; from pyadamw.cli import main; sys.exit(main(['info']))"
    done = forked.run(script)
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("pyadamw", "torch", "library", "kernel", "threads"))
    done = forked.run(script, PYADAMW_LIBRARY="/nowhere.so")
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
    done = forked.run(script, ADAMW_CPU="mmx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("refused") == 2
    assert done.stdout.count("mmx") == 2
    assert "True" not in done.stdout


def test_torch_is_loaded_first():
    """The library is opened after torch is imported and takes torch's OpenMP; importing touches no GPU."""
    script = """
import sys, pyadamw
assert "torch" in sys.modules
import torch
assert not torch.cuda.is_initialized()
pools = {line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line or "omp5" in line}
assert "threads: OpenMP" in pyadamw._native.library.library().build_info()
print(sorted({line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line} - pools))
"""
    done = run_python(script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
