"""Owns the laws of the libraries in the wheel for AArch64: to C programs, under qemu-user, they are those of x86-64.

Python with that wheel is ci/wheel_aarch64_python's. The objects of the libraries, and the libraries before they were
stripped, are in the folder that ADAMW_OBJECTS_AARCH64 names (see ci/wheel_build).
"""

import os
import re
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import FIGURES

ROOT = Path(__file__).resolve().parents[2]
TOOLS = "aarch64-linux-gnu-"
EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu")
LIBRARIES = ("cpu", "cuda12", "cuda13")
HEADER = ROOT / "include" / "adamw.h"
GOLDEN = ROOT / "tests" / "golden" / "digests.txt"
KERNELS = ("scalar", "neon")  # that an AArch64 has
pytestmark = pytest.mark.skipif(
    "ADAMW_OBJECTS_AARCH64" not in os.environ, reason="ADAMW_OBJECTS_AARCH64 is not set: ci/wheel says what is missing"
)


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def unpacked(wheel, aarch64_wheel, tmp_path_factory):
    """{processor: the folder of its wheel's libraries}"""
    folders = {}
    for name, path in (("x86_64", wheel), ("aarch64", aarch64_wheel)):
        folder = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(path) as file:
            file.extractall(folder)
        folders[name] = folder / "pyadamw" / "lib"
    return folders


@pytest.fixture(scope="module")
def objects(aarch64_wheel):
    return Path(os.environ["ADAMW_OBJECTS_AARCH64"]).resolve()


def program(folder, source, library):
    """A C program, linked with a library of the wheel."""
    target = folder / source.stem
    options = ("-std=c99", "-O2", "-DADAMW_TESTS_ABRIDGED", "-Iinclude", f"-Wl,-rpath,{library.parent}")
    run(f"{TOOLS}gcc", *options, source, library, "-lm", "-o", target)
    return target


@pytest.mark.parametrize("name", LIBRARIES)
def test_exports(unpacked, name):
    """Both architectures export the same names in the same version nodes, and need the same libraries."""
    libraries = [folder / f"libadamw_{name}.so" for folder in unpacked.values()]
    names = [run("nm", "-D", "--defined-only", library) for library in libraries]
    x86, arm = ({line.split(maxsplit=2)[2] for line in said.splitlines()} for said in names)
    assert x86 == arm
    assert {"adamw_step@@ADAMW_1", "adamw_python_version@@ADAMW_PYTHON_PRIVATE"} <= arm
    headers = [run("readelf", "-d", library) for library in libraries]
    x86, arm = (sorted(re.findall(r"\((?:NEEDED|SONAME)\).*\[(.*)\]", said)) for said in headers)
    assert [n for n in x86 if not n.startswith("ld-linux")] == [n for n in arm if not n.startswith("ld-linux")]
    assert f"libadamw_{name}.so" in arm


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_objects_are_those_of_the_wheel(unpacked, objects, tmp_path, name):
    """What the other tests link and read is what is in the wheel: it becomes the same bytes when it is stripped."""
    run(f"{TOOLS}strip", objects / f"libadamw_{name}.so", "-o", tmp_path / "stripped.so")
    assert (tmp_path / "stripped.so").read_bytes() == (unpacked["aarch64"] / f"libadamw_{name}.so").read_bytes()


def test_abi(objects, tmp_path):
    """The types and functions of the library are the ABI that was recorded on x86-64. Only the name of the architecture
    may differ, and the SONAME, which is another in a wheel. (ci/abi has breaks made on purpose: they are found.)"""
    library, found = objects / "libadamw_cpu.so", tmp_path / "found.abi"
    options = ("--no-show-locs", "--no-comp-dir-path", "--no-corpus-path", "--type-id-style", "hash")
    run("abidw", *options, "--no-elf-needed", "--exported-interfaces-only", "--out-file", found, library)
    described = re.findall(r"<function-decl name='(adamw_\w+)'", found.read_text(encoding="utf-8"))
    declared = run("ci/declared", "include/adamw.h").split()
    assert sorted(set(described)) == declared  # without debug info there would be none, and no difference
    recorded = ROOT / "tests" / "abi" / "libadamw-x86_64.abi"
    run("abidiff", "--no-architecture", "--ignore-soname", "--harmless", "--no-added-syms", recorded, found)


@pytest.mark.parametrize("source", sorted((ROOT / "tests" / "abi").glob("*-program.c")), ids=lambda path: path.stem)
def test_programs_of_recorded_headers(unpacked, tmp_path, source):
    """A program that was compiled with a recorded header calls every function of the wheel's library."""
    run(*EMULATOR, program(tmp_path, source, unpacked["aarch64"] / "libadamw_cpu.so"))


@pytest.mark.parametrize("name", LIBRARIES)
def test_c_programs(unpacked, tmp_path, name):
    """The C programs work with each library. Those for CUDA load where there is no driver, and step on the CPU."""
    library = unpacked["aarch64"] / f"libadamw_{name}.so"
    for source in sorted((ROOT / "tests" / "c").glob("*.c")):
        if name == "cpu" or source.stem != "train":  # which takes the longest, and all have the CPU's very objects
            run(*EMULATOR, program(tmp_path, source, library))
    use = program(tmp_path, ROOT / "recipe" / "test" / "use.c", library)
    version = ".".join(re.findall(r"^#define ADAMW_VERSION_\w+ (\d+)$", HEADER.read_text(encoding="utf-8"), flags=re.M))
    assert f"backend {name}," in run(*EMULATOR, use, version)


def test_digests(objects, tmp_path):
    """The wheel's objects compute the bits that are recorded for x86-64, in every case and with each kernel."""
    options = ("-std=c++17", "-O1", "-ffp-contract=off", "-Iinclude", "-iquote", "libadamw", "-iquote", "tests")
    digest = tmp_path / "digest"
    run(f"{TOOLS}g++", *options, "tests/cpp/digest.cpp", objects / "libadamw.a", "-pthread", "-ldl", "-o", digest)
    assert run(*EMULATOR, digest, "--list").split() == list(KERNELS[::-1])
    with ThreadPoolExecutor(len(KERNELS)) as pool:
        found = list(pool.map(lambda kernel: run(*EMULATOR, digest, kernel), KERNELS))
    golden = GOLDEN.read_text(encoding="utf-8")
    for kernel, lines in zip(KERNELS, found, strict=True):
        different = set(golden.splitlines()) ^ set(lines.splitlines())
        assert lines == golden, f"{kernel}: {len(different)} lines differ, for example {sorted(different)[:4]}"
    FIGURES.append(f"AArch64, {' and '.join(KERNELS)}: the bits of x86-64 in all {len(golden.splitlines())} cases")
