"""Owns the laws of the wheel: what is in it, and that it works where there is no compiler, no home and no UTF-8."""

import json
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import FIGURES, Place

MOST_BYTES = 15_000_000
LIBRARIES = ("cpu", "cuda12", "cuda13")
ARCHITECTURES = {  # of the kernels, by the processor: those of the GPUs beside it
    ("x86_64", "cuda12"): "75 80 86 89 90 100 120",
    ("x86_64", "cuda13"): "75 80 86 89 90 100 120",
    ("aarch64", "cuda12"): "80 87 90 100 120 121",
    ("aarch64", "cuda13"): "80 87 90 100 110 120 121",
}
FATBIN = struct.pack("<IHH", 0xBA55ED50, 1, 16)  # how one begins: its mark, its version, the size of its header
STEPS = Path(__file__).parents[2] / "recipe" / "test" / "step.py"  # of the conda package, too
# What an environment without torch can do with the library: its declarations are read, and it steps a C array.
WITHOUT_TORCH = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pyadamw._native.cdef", sys.argv[1] + "/pyadamw/_native/cdef.py")
cdef = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cdef)
ffi, lib = cdef.ffi, cdef.ffi.dlopen(sys.argv[1] + "/pyadamw/lib/" + sys.argv[2])
numbers = {name: ffi.new("float[1000]", [value] * 1000) for name, value in zip("pgmv", (1.0, 1.0, 0.0, 0.0))}
row = ffi.new("adamw_tensor *")
row.param, row.grad, row.exp_avg, row.exp_avg_sq = (ffi.cast("void *", numbers[name]) for name in "pgmv")
row.numel, row.row_length, row.step = 1000, 1000, 1
options = ffi.new("adamw_step_options *")
assert lib.adamw_step_options_init(options, ffi.sizeof("adamw_step_options")) == 0
options.lr, options.weight_decay, options.num_threads = 0.1, 0.0, 2
status = lib.adamw_step(options, row, ffi.sizeof("adamw_tensor"), 1)
assert status == 0, ffi.string(lib.adamw_last_error())
assert all(abs(p - 0.9) < 1e-6 for p in numbers["p"])
print(ffi.string(lib.adamw_build_info()).decode())
"""


def version(wheel):
    return wheel.name.split("-")[1]


@pytest.mark.parametrize(
    ("platform", "taken"),
    [("manylinux_2_28_x86_64", True), ("manylinux_2_27_x86_64", False), ("musllinux_1_2_x86_64", False)],
)
def test_only_systems_that_can_load_it_get_it(wheel, tmp_path, platform, taken):
    """pip takes the wheel where there is glibc 2.28, and not where it is older or the C library is musl."""
    where = ["--no-index", "--find-links", wheel.parent, "--dest", tmp_path]
    kind = ["--only-binary=:all:", "--no-deps", "--python-version=3.12", f"--platform={platform}"]
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", *where, *kind]
    done = subprocess.run([*command, f"pyadamw=={version(wheel)}"], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == taken, done.stderr
    assert taken or "No matching distribution" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ([wheel.name] if taken else [])


def images(library):
    """What the kernels of a library are: the architectures of its real code, and those of its PTX."""
    start = library.index(FATBIN)
    assert library.find(FATBIN, start + 1) == -1
    found = {1: [], 2: []}  # PTX, real code
    at = start + 16
    end = at + struct.unpack_from("<Q", library, start + 8)[0]
    while at < end:
        kind, _, header, payload = struct.unpack_from("<HHIQ", library, at)
        found[kind].append(struct.unpack_from("<I", library, at + 28)[0])
        at += header + payload
    return found[2], found[1]


def test_contents(each_wheel):
    """One wheel for every Python: three libraries, type hints, licence; 15 MB at most. The tag says glibc 2.28."""
    processor, wheel = each_wheel
    assert wheel.name.endswith(f"-py3-none-manylinux_2_28_{processor}.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (tags,) = [file.read(n).decode() for n in names if n.endswith(".dist-info/WHEEL")]
    assert re.findall(r"^Tag: (.*)$", tags, flags=re.M) == [f"py3-none-manylinux_2_28_{processor}"]
    libraries = [n for n in names if ".so" in n]
    assert sorted(libraries) == [f"pyadamw/lib/libadamw_{name}.so" for name in LIBRARIES]
    assert "pyadamw/py.typed" in names
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    assert not [n for n in names if not re.match(r"pyadamw(-[\d.]+\.dist-info)?/", n)]
    FIGURES.append(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    assert wheel.stat().st_size <= MOST_BYTES


def test_kernels(each_wheel):
    """Kernels for every architecture of the GPUs that are beside this processor, however few a build for tests has, and
    PTX for those to come; the library tells the same."""
    processor, wheel = each_wheel
    with zipfile.ZipFile(wheel) as file:
        libraries = {name: file.read(f"pyadamw/lib/libadamw_{name}.so") for name in LIBRARIES}
    assert FATBIN not in libraries["cpu"]
    for name in ("cuda12", "cuda13"):
        wanted = ARCHITECTURES[processor, name]
        assert images(libraries[name]) == ([int(n) for n in wanted.split()], [90])
        assert f"architectures {wanted} ptx90".encode() in libraries[name]


def test_both_wheels_have_the_same_files(wheel, aarch64_wheel):
    """But for the libraries, what compiled them, and what tells which they are, the two wheels are the same."""
    contents = []
    for path in (wheel, aarch64_wheel):
        with zipfile.ZipFile(path) as file:
            contents.append({n: file.read(n) for n in file.namelist()})
    x86, arm = contents
    assert x86.keys() == arm.keys()
    different = {n for n in x86 if x86[n] != arm[n] and "/sboms/" not in n}
    metadata = {f"pyadamw-{version(wheel)}.dist-info/{name}" for name in ("WHEEL", "RECORD")}
    assert different == {f"pyadamw/lib/libadamw_{name}.so" for name in LIBRARIES} | metadata


def test_bill_of_materials(each_wheel):
    """It names what is linked into the libraries and what compiled them, with versions, in CycloneDX (PEP 770)."""
    _, wheel = each_wheel
    with zipfile.ZipFile(wheel) as file:
        (name,) = [n for n in file.namelist() if n.endswith(".cdx.json")]
        bill = json.loads(file.read(name))
    assert "/sboms/" in name
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == version(wheel)
    inside = {c["name"]: c for c in bill["components"] if c["scope"] == "required"}
    compilers = [c["version"] for c in bill["components"] if c["scope"] == "excluded"]
    assert list(inside) == ["gcc-runtime"]
    assert all(re.fullmatch(r"\d+(\.\d+)+", c["version"]) and c["licenses"] for c in bill["components"])
    assert [version.split(".")[0] for version in compilers] == ["12", "13"]


@pytest.mark.parametrize("locale", ("C.UTF-8", "C", "POSIX"))
def test_steps_without_a_compiler(place, wheel, locale):
    """Every class steps with an empty HOME, no compiler on PATH, in an ASCII locale, from a path that is not ASCII."""
    assert shutil.which("cc", path=str(place.python.parent)) is None
    start = time.perf_counter()
    environment = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    place.run(str(STEPS), version(wheel), **environment)
    seconds = time.perf_counter() - start
    FIGURES.append(f"LC_ALL={locale}: import of torch and pyadamw, one step of each class: {seconds:.1f} s")
    assert "libadamw_cpu.so" in place.run("-m", "pyadamw", "info", **environment).stdout
    assert not any(place.home.iterdir())


def test_the_installed_package_is_what_runs(place):
    """Not the source tree, which an editable install would be."""
    script = "import pyadamw; print(pyadamw.__file__); print(pyadamw._native.library.library().path)"
    files = place.run(script).stdout.splitlines()
    assert len(files) == 2
    assert all(Path(name).is_relative_to(place.site) for name in files)


def test_info(place, wheel):
    """`python -m pyadamw info` tells the version of the wheel and its library."""
    done = place.run("-m", "pyadamw", "info")
    assert version(wheel) in done.stdout
    assert "threads: OpenMP" in done.stdout


def test_requirements(place):
    """What the wheel requires is what is there: torch, cffi and numpy, nothing else."""
    script = "from importlib.metadata import requires; print([r for r in requires('pyadamw') if 'extra' not in r])"
    assert place.run(script).stdout.strip() == "['torch>=2.4', 'cffi>=1.15', 'numpy>=1.24']"


def test_import_time(place):
    """Reports what `import pyadamw` takes beyond torch's own import; at most 50 ms is the aim."""
    script = "import time, torch; t = time.perf_counter(); import pyadamw; print((time.perf_counter() - t) * 1e3)"
    times = [float(place.run(script).stdout) for _ in range(5)]
    FIGURES.append(f"import pyadamw beyond torch: median {statistics.median(times):.0f} ms of 5")


def pythons():
    """The other Pythons from 3.10 on that are here: {version: path}."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for minor in range(10, 20):
        name = f"python3.{minor}"
        for path in [shutil.which(name), *sorted(pyenv.glob(f"versions/*/bin/{name}"))]:
            if path is not None and minor != sys.version_info.minor and works(path):
                found[f"3.{minor}"] = path
    return found


def works(python):
    """Whether it makes virtual environments; pyenv's stand-ins on PATH, for one, need not run."""
    return subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("other", pythons() or [None])
def test_other_pythons(other, wheel, tmp_path):
    """The same wheel installs in every Python here; its modules compile, its library loads and steps.

    Without torch, which takes gigabytes for each.
    """
    if other is None:
        pytest.skip("no other Python from 3.10 on is here")
    place = Place(tmp_path, pythons()[other], borrow=False)
    place.install(wheel)
    place.pip("install", "cffi", "-c", Path(__file__).parents[2] / "ci" / "constraints.txt")
    place.run("-W", "error", "-m", "compileall", "-q", "-f", str(place.site / "pyadamw"))
    for name in LIBRARIES:
        done = place.run("-c", WITHOUT_TORCH, str(place.site), f"libadamw_{name}.so")
        assert f"backend {name}" in done.stdout
        assert "threads: std::thread" in done.stdout
    FIGURES.append(f"Python {other}: the package compiles, each of its libraries steps (without torch)")
