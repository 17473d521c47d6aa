"""Owns what users get: a solver chooses packages for machines with and without a GPU, and what it chooses works.

usage: conda_environments.py FOLDER [PLATFORM...]   of conda_packages.py
The machine's driver is what CONDA_OVERRIDE_CUDA says; no GPU is used, so a library for CUDA steps on the CPU here.
For the other platforms the solver chooses, too. Of what it chooses the library is installed, and a C program runs with
it, emulated.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from rattler import MatchSpec, VirtualPackage, VirtualPackageOverrides, install, solve
from rattler.platform import Subdir

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


# What compiles for a platform that is not this machine's, and what runs its programs here.
ABROAD = {"linux-aarch64": (["aarch64-linux-gnu-gcc"], ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"])}
HERE = ([os.environ.get("CC", "cc")], [])


def machine(driver):
    """The virtual packages of this machine, with another driver ("" is none); those of its processor are no one's."""
    os.environ["CONDA_OVERRIDE_CUDA"] = driver
    found = VirtualPackage.detect(VirtualPackageOverrides.from_env())
    return [v for v in (p.into_generic() for p in found) if v.name.normalized != "__archspec"]


async def choose(channels, platform, driver, specs):
    """What a solver takes for a machine of this platform with this driver: {name: record}."""
    platforms = [Subdir(platform), Subdir("noarch")]
    records = await solve(
        channels, [MatchSpec(s) for s in specs], platforms=platforms, virtual_packages=machine(driver)
    )
    return {record.name.normalized: record for record in records}


def run(*command, **environment):
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd="/", text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"FAILED: {' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def program(prefix, folder, compiler):
    """A C program, linked to the libadamw of a prefix, that looks for it where it is told to when it runs."""
    flags = run("pkg-config", "--cflags", "--libs", "libadamw", PKG_CONFIG_PATH=f"{prefix}/lib/pkgconfig").split()
    run(*compiler, TESTS / "use.c", "-o", folder / "use", *flags)
    return folder / "use"


def try_python(prefix, version, backend):
    """pyadamw steps in an environment, with the library of that environment."""
    python = prefix / "bin" / "python"
    run(python, TESTS / "library.py", version, backend)
    run(python, TESTS / "step.py", version)
    info = run(python, "-m", "pyadamw", "info")
    if str(prefix / "lib" / "libadamw.so.1") not in info:
        sys.exit(f"FAILED: {prefix}: pyadamw has loaded another library\n{info}")


def try_program(prefix, version, backend, use):
    """The C program runs with the library of an environment."""
    said = run(*use, version, LD_LIBRARY_PATH=f"{prefix}/lib")
    if f"backend {backend}," not in said:
        sys.exit(f"FAILED: {prefix}: the C program ran with {said}")


async def try_platform(folder, channels, platform):
    """All cases for a platform; a C program steps with each library, and on this machine's so does pyadamw."""
    here = platform == str(Subdir.current())
    compiler, emulator = HERE if here else ABROAD[platform]
    folder = folder if here else folder / platform
    # Built in an environment without a GPU; it must run in each.
    records = await choose(channels, platform, "", ["libadamw-dev"])
    await install(list(records.values()), folder / "prefix-dev", platform=Subdir(platform), show_progress=False)
    version = str(records["libadamw"].version)
    use = [*emulator, program(folder / "prefix-dev", folder, compiler)]

    tried = set()
    for driver, specs, backend in CASES:
        records = await choose(channels, platform, driver, ["pyadamw", *specs])
        build = str(records["libadamw"].build)
        title = f"{platform}, {'driver of CUDA ' + driver if driver else 'no GPU'}{''.join(', ' + s for s in specs)}"
        if not build.startswith(f"{backend}_") or records["libadamw"].subdir != platform:
            sys.exit(f"FAILED: {title}: libadamw {build} was chosen, not {backend}")
        print(f"  {title}: libadamw {build}")
        if backend not in tried:
            tried.add(backend)
            prefix = folder / f"prefix-{backend}"
            chosen = list(records.values()) if here else [records["libadamw"]]
            await install(chosen, prefix, platform=Subdir(platform), show_progress=False)
            if here:
                try_python(prefix, version, backend)
            try_program(prefix, version, backend, use)
            steps = "pyadamw steps; a" if here else "a"
            print(f"    {backend}: {steps} C program, linked to the library for the CPU, runs with this one")


async def main(folder, others):
    os.environ["RATTLER_CACHE_DIR"] = str(folder / "cache")
    channels = [(folder / name).as_uri() for name in ("channel", "stand-ins")]
    for platform in (str(Subdir.current()), *others):
        await try_platform(folder, channels, platform)


if __name__ == "__main__":
    print("-- environments that a solver makes, and what runs in them (on the CPU)")
    status = 1
    try:
        asyncio.run(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
        status = 0
    except SystemExit as failure:
        print(failure)
    sys.stdout.flush()
    os._exit(status)  # rattler's threads can crash an interpreter that ends in the ordinary way
