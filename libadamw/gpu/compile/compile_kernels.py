"""Owns turning a kernel source into a fatbin: code for every architecture, and PTX for those to come. Knows no kernel.

Two ways to the same thing, for either CUDA major: NVRTC and nvFatbin from wheels, which need no toolkit, or a toolkit's
nvcc. Neither needs a GPU or a driver. `--describe` only says what would be used.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from nvrtc import WHEELS, Failed, Nvrtc

# The architectures of real code, by the processor that the library is for. AArch64: 87 (Jetson Orin) and 110 (Jetson
# Thor) run no other code, 121 is GB10; 80 runs on 86 and 89, too, which are as rare there as 75, for which torch has no
# wheel either.
REAL = {"x86_64": (75, 80, 86, 89, 90, 100, 120), "aarch64": (80, 87, 90, 100, 110, 120, 121)}
PROCESSORS = {"amd64": "x86_64", "arm64": "aarch64"}  # other names
PTX = 90
MAJORS = {"12": (12, 8), "13": (13, 0)}  # the first release of each that knows every architecture above, but for these:
SINCE = {110: (13, 0), 121: (12, 9)}
# The bits are those of the CPU: no contraction, IEEE division and square root, denormals kept.
FLAGS = ("--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false")
PACKAGES = {
    "12": "nvidia-cuda-nvrtc-cu12 nvidia-nvfatbin-cu12",
    "13": "nvidia-cuda-nvrtc nvidia-nvfatbin",
}


def nvrtc_fatbin(nvrtc, source, flags, cache, real):
    images = cached_images(nvrtc, source, [*(f"sm_{n}" for n in real), f"compute_{PTX}"], flags, cache)
    return nvrtc.bundle(source, images)


class Nvcc:
    """A toolkit's nvcc."""

    def __init__(self, path):
        self.path = path
        self.argument = f"--nvcc={path}"
        try:
            said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise Failed(f"{path}: not an nvcc that runs here: {error}") from error
        found = re.search(r"release (\d+)\.(\d+), V(\S+)", said)
        if not found:
            raise Failed(f"{path} --version does not tell a CUDA release")
        self.version = int(found[1]), int(found[2])
        self.identity = f"nvcc {found[3]}"

    def __str__(self):
        return str(self.path)

    def fatbin_of(self, source, flags, cache, real):
        entry = f"{source.stem}-{self.version[0]}-all", (self.identity, flags, real, contents(source))
        found = cache.find(*entry)
        if found is not None:
            return found
        codes = [f"--generate-code=arch=compute_{n},code=sm_{n}" for n in real]
        codes.append(f"--generate-code=arch=compute_{PTX},code=compute_{PTX}")
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "kernels.fatbin"
            command = [self.path, "--fatbin", *codes, "--threads=2", "-Xfatbin=-compress-all", *flags]
            if subprocess.run([*command, "-o", target, source], check=False).returncode:
                raise Failed(f"{self.path} could not compile {source}")
            cache.put(*entry, target.read_bytes())
            return target.read_bytes()


class Cache:
    """Files by what they were made from; of each name only the latest is kept. Without a folder nothing is kept."""

    def __init__(self, folder):
        self.folder = folder

    def path(self, name, key):
        return self.folder / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:20]}"

    def find(self, name, key):
        path = self.folder and self.path(name, key)
        return path.read_bytes() if path and path.exists() else None

    def put(self, name, key, data):
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob(f"{name}-{'?' * 20}"):
            old.unlink(missing_ok=True)
        write(self.path(name, key), data)


def write(path, data):
    """All or nothing: another process may look at the same time."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(data)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def files_of(source):
    """The source and every file that it includes in quotes, directly or not."""
    found, waiting = [], [source.resolve()]
    while waiting:
        path = waiting.pop()
        if path in found or not path.exists():
            continue
        found.append(path)
        names = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(encoding="utf-8"), flags=re.M)
        waiting += [(path.parent / name).resolve() for name in names]
    return found


def contents(source):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files_of(source)]


_worker = None


def _start_worker(major, folder):
    global _worker  # noqa: PLW0603 - a process of the pool loads the libraries once
    _worker = Nvrtc(major, folder)


def _work(source, architecture, flags):
    return _worker.images(source, architecture, flags)


def cached_images(nvrtc, source, architectures, flags, cache):
    """{architecture: image}; what is not in the cache is compiled, two at a time."""
    major, what = str(nvrtc.version[0]), contents(source)
    entries = {a: (f"{source.stem}-{major}-{a}", (nvrtc.identity, flags, what)) for a in architectures}
    images = {a: cache.find(*entries[a]) for a in architectures}
    missing = {a for a in architectures if images[a] is None}
    # Real code comes with its PTX.
    compiled = [a for a in architectures if a in missing and a.replace("compute_", "sm_") not in missing - {a}]
    if compiled:
        workers, said = min(2, os.cpu_count() or 1, len(compiled)), set()
        with ProcessPoolExecutor(workers, initializer=_start_worker, initargs=(major, nvrtc.folder)) as pool:
            results = pool.map(_work, *zip(*((source, a, flags) for a in compiled), strict=True))
            for architecture, (found, log) in zip(compiled, results, strict=True):
                if contents(source) != what:
                    raise Failed(f"{source.name}, or what it includes, was changed while it was compiled: once more")
                for name in missing & found.keys():
                    cache.put(*entries[name], found[name])
                    images[name] = found[name]
                if log and log not in said:  # as a rule each architecture has the same
                    print(f"{architecture}:\n{log}", file=sys.stderr)
                    said.add(log)
    return images


def site_folders(first):
    """Where wheels may lie. sysconfig knows the environment that an isolated build of pip hides from sys.path."""
    paths = sysconfig.get_paths()
    folders = [*([first] if first else []), *sys.path, paths["purelib"], paths["platlib"]]
    return [Path(p).resolve() for p in dict.fromkeys(folders) if p]


def real_for(processor, version):
    """The architectures of real code in a library for this processor, as far as this release of CUDA knows them."""
    processor = processor.lower()
    wanted = REAL.get(PROCESSORS.get(processor, processor), REAL["x86_64"])
    return tuple(n for n in wanted if version >= SINCE.get(n, (0, 0)))


def toolkits():
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [Path(home) / "bin" / "nvcc" for home in homes if home]
    on_path = shutil.which("nvcc")
    places += [Path(on_path)] if on_path else []
    places += sorted(Path("/usr/local").glob("cuda*/bin/nvcc"))
    return list(dict.fromkeys(p.resolve() for p in places if p.exists()))


def candidates(major, nvcc, wheels):
    """What could compile, in order: the nvcc that was named, wheels, a toolkit's nvcc."""
    if nvcc:
        yield lambda: Nvcc(nvcc)
    for folder in site_folders(wheels):
        nvrtc, fatbin = (folder / part for part in WHEELS[major])
        if (nvrtc / f"libnvrtc.so.{major}").exists() and (fatbin / f"libnvfatbin.so.{major}").exists():
            yield lambda folder=folder: Nvrtc(major, folder)
    for path in toolkits():
        yield lambda path=path: Nvcc(path)


def find(major, nvcc=None, wheels=None):
    """The compiler of a CUDA major, or Failed with all that was tried."""
    if major not in MAJORS:
        raise Failed(f"CUDA {major}: only {' and '.join(MAJORS)} are known")
    oldest = MAJORS[major]
    tried = []
    for candidate in candidates(major, nvcc, wheels):
        try:
            compiler = candidate()
        except Failed as failed:
            tried.append(f"; {failed}")
            continue
        if compiler.version[0] == oldest[0] and compiler.version >= oldest:
            return compiler
        tried.append("; {} is of CUDA {}.{}".format(compiler, *compiler.version))
    raise Failed(
        "no compiler for CUDA {0}: it takes the wheels {3}, or an nvcc of {1}.{2} or a later {0}.x{4}".format(
            major, *oldest, PACKAGES[major], "".join(tried)
        )
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", default=Path(__file__).parent.parent / "kernels" / "kernels.cu")
    parser.add_argument("--major", required=True, help="CUDA major: 12 or 13")
    parser.add_argument("--nvcc", type=Path, help="this nvcc before all else, if it is of that major")
    parser.add_argument("--wheels", help="a folder with the wheels, looked at before Python's own")
    parser.add_argument("--processor", default=platform.machine(), help=f"that the library is for: {', '.join(REAL)}")
    parser.add_argument("--architectures", help="of real code, instead of all for that processor: 80 90")
    parser.add_argument("--cache", type=Path, help="folder in which compiled architectures are kept")
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--output", type=Path, help="the fatbin")
    parser.add_argument("--depfile", type=Path, help="a Makefile rule: what the fatbin was made from")
    parser.add_argument("--describe", action="store_true", help="only print VERSION;ARCHITECTURES;ARGUMENT")
    o = parser.parse_args(arguments)
    if not o.describe and not o.output:
        parser.error("--output is missing")
    try:
        compiler = find(o.major, o.nvcc, o.wheels)
        asked = o.architectures and tuple(map(int, o.architectures.split()))
        real = asked or real_for(o.processor, compiler.version)
        if o.describe:
            names = " ".join([*map(str, real), f"ptx{PTX}"])
            print("{}.{};{};{}".format(*compiler.version, names, compiler.argument))
            return 0
        if not o.source.exists():
            raise Failed(f"there is no {o.source}")
        flags = (*FLAGS, *(f"--define-macro={d}" for d in o.define))
        make = nvrtc_fatbin if isinstance(compiler, Nvrtc) else Nvcc.fatbin_of
        write(o.output, make(compiler, o.source.resolve(), flags, Cache(o.cache), real))
    except Failed as failed:
        print(f"error: {failed}", file=sys.stderr)
        return 1
    if o.depfile:
        scripts = [Path(__file__).resolve(), Path(__file__).resolve().with_name("nvrtc.py")]
        escaped = [str(p).replace(" ", "\\ ") for p in [o.output, *files_of(o.source), *scripts]]
        write(o.depfile, f"{escaped[0]}: {' '.join(escaped[1:])}\n".encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
