"""Owns what users get: a solver chooses packages for machines with and without a GPU, and what it chooses works.

usage: conda_environments.py FOLDER   of conda_packages.py
The machine's driver is what CONDA_OVERRIDE_CUDA says; no GPU is used, so a library for CUDA steps on the CPU here.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from rattler import MatchSpec, VirtualPackage, VirtualPackageOverrides, install, solve

TESTS = Path(__file__).resolve().parents[1] / "recipe" / "test"
# The CUDA version of the driver, what a user asks for besides pyadamw, and the backend that the solver must choose.
CASES = (
    ("", (), "cpu"),
    ("12.0", (), "cpu"),  # older than what libadamw for CUDA 12 needs
    ("12.1", (), "cuda12"),
    ("12.9", (), "cuda12"),
    ("13.0", (), "cuda13"),
    ("13.0", ("cuda-version 12.*",), "cuda12"),
    ("13.0", ("libadamw * cpu*",), "cpu"),
)


def machine(driver):
    """The virtual packages of this machine, with another driver ("" is none)."""
    os.environ["CONDA_OVERRIDE_CUDA"] = driver
    return VirtualPackage.detect(VirtualPackageOverrides.from_env())


async def choose(channels, driver, specs):
    """What a solver takes for a machine with this driver: {name: record}."""
    records = await solve(channels, [MatchSpec(s) for s in specs], virtual_packages=machine(driver))
    return {record.name.normalized: record for record in records}


def run(*command, **environment):
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd="/", text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"FAILED: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def program(prefix, folder):
    """A C program, linked to the libadamw of a prefix, that looks for it where it is told to when it runs."""
    flags = run("pkg-config", "--cflags", "--libs", "libadamw", PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig").split()
    run(os.environ.get("CC", "cc"), TESTS / "use.c", "-o", folder / "use", *flags)
    return folder / "use"


def try_out(prefix, version, backend, use):
    """pyadamw steps in an environment, with the library of that environment; so does a C program."""
    python = prefix / "bin" / "python"
    run(python, TESTS / "library.py", version, backend)
    run(python, TESTS / "step.py", version)
    info = run(python, "-m", "pyadamw", "info")
    if str(prefix / "lib" / "libadamw.so.1") not in info:
        sys.exit(f"FAILED: {prefix}: pyadamw has loaded another library\n{info}")
    said = run(use, version, LD_LIBRARY_PATH=f"{prefix}/lib")
    if f"backend {backend}," not in said:
        sys.exit(f"FAILED: {prefix}: the C program ran with {said}")
    print(f"    {backend}: pyadamw steps; a C program, linked to the library for the CPU, runs with this one")


async def main(folder):
    os.environ["RATTLER_CACHE_DIR"] = str(folder / "cache")
    channels = [(folder / name).as_uri() for name in ("channel", "stand-ins")]
    # Built in an environment without a GPU; it must run in each.
    records = await choose(channels, "", ["libadamw-dev"])
    await install(list(records.values()), folder / "prefix-dev", show_progress=False)
    version = str(records["libadamw"].version)
    use = program(folder / "prefix-dev", folder)

    tried = set()
    for driver, specs, backend in CASES:
        records = await choose(channels, driver, ["pyadamw", *specs])
        build = str(records["libadamw"].build)
        title = f"{'driver of CUDA ' + driver if driver else 'no GPU'}{''.join(', ' + s for s in specs)}"
        if not build.startswith(f"{backend}_"):
            sys.exit(f"FAILED: {title}: libadamw {build} was chosen, not {backend}")
        print(f"  {title}: libadamw {build}")
        if backend not in tried:
            prefix = folder / f"prefix-{backend}"
            await install(list(records.values()), prefix, show_progress=False)
            try_out(prefix, version, backend, use)
            tried.add(backend)


if __name__ == "__main__":
    print("-- environments that a solver makes, and what runs in them (on the CPU)")
    status = 1
    try:
        asyncio.run(main(Path(sys.argv[1]).resolve()))
        status = 0
    except SystemExit as failure:
        print(failure)
    sys.stdout.flush()
    os._exit(status)  # rattler's threads can crash an interpreter that ends in the ordinary way
