"""Owns who may include and import whom: the floors of libadamw and of pyadamw. Must not know what is in a file.

usage: layers.py [ROOT]; prints what breaks a rule, a line each, and exits with 1. What C++ files include is what the
compiler says (-M), what Python files import is what their syntax says, imports inside functions among them.
"""

import ast
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

OWN = ("include/", "libadamw/")

# Lowest first: a file may include those of its own floor and of the floors below it. A file is on the first floor that
# names it exactly, else on the first of which a pattern matches it ("*" matches "/" too).
CPP_FLOORS = [
    ["include/adamw.h", "libadamw/platform*"],
    ["libadamw/numerics/*"],
    ["libadamw/formats.h", "libadamw/status.*", "libadamw/guarded.h", "libadamw/lease.*"],
    ["libadamw/devices.h", "libadamw/backend.h"],
    ["libadamw/cpu/*", "libadamw/gpu/*", "libadamw/pager/*"],
    ["libadamw/check/*"],
    ["libadamw/workspace.*", "libadamw/paged_step.*"],
    [
        "libadamw/api.cpp",
        "libadamw/conversions.cpp",
        "libadamw/init.cpp",
        "libadamw/norm.cpp",
        "libadamw/pager/entry.cpp",
        "libadamw/python/*",
        "libadamw/packaging/*",
    ],
]


class Never(NamedTuple):
    """What some files may not include, directly or not."""

    who: list
    what: list
    why: str
    who_may: tuple = ()  # of these files
    what_may: tuple = ()  # be included all the same


HEADER, NUMERICS, CPU, GPU = "include/adamw.h", "libadamw/numerics/*", "libadamw/cpu/*", "libadamw/gpu/*"
PAGER, CHECK, PAGES, KERNELS = "libadamw/pager/*", "libadamw/check/*", "libadamw/gpu/pages/*", "libadamw/gpu/kernels/*"
MATH, FORMATS, BACKEND = "libadamw/numerics/math.h", "libadamw/formats.h", "libadamw/backend.h"
FOREIGN = ["Python.h", "torch/*", "ATen/*", "c10/*", "pybind11/*", "cuda*", "cu[a-z]*.h", "nv*.h"]

# And within them. ("system" is what is not the project's own.)
CPP_NEVER = [
    Never([HEADER], ["system"], "C programs get nothing else", what_may=("stddef.h", "stdint.h")),
    Never([NUMERICS], ["include/*"], "it is compiled for GPUs, too"),
    Never([PAGER, PAGES], [NUMERICS, FORMATS, BACKEND], "pages are memory that means nothing"),
    Never([PAGER], [CPU, GPU, "libadamw/devices.h"], "places.cpp has what makes its backings"),
    Never([CPU, GPU], [PAGER], "those who step do not know where state comes from", who_may=(PAGES,)),
    Never([CPU], [GPU], "each kind of device is by itself"),
    Never([GPU], [CPU], "each kind of device is by itself", what_may=("libadamw/cpu/registers_scalar.h",)),
    Never([GPU], [KERNELS], "only the compiler for devices sees them", who_may=(KERNELS,)),
    Never([KERNELS], [BACKEND, "libadamw/status.h"], "a device has neither"),
    Never([CHECK, "libadamw/python/*"], [MATH, BACKEND], "they do no arithmetic on moments"),
    Never([CHECK], [CPU, GPU], "devices.h has what they are asked"),
    Never(["*"], FOREIGN, "libadamw is for programs that have none of it"),
]

# What is an operating system's is in platform.h and its files, and in pages in files, which only Linux has. What is a
# processor's or a compiler's is there and in the kernels.
PLATFORM = "libadamw/platform*"
FILE_PAGES = ("file*", "arenas.*", "snapshot.cpp")
OLD_GLIBC = "libadamw/packaging/old_glibc.cpp"
SYSTEM = ["unistd.h", "sys/*", "linux/*", "pthread.h", "dlfcn.h", "fcntl.h", "poll.h", "sched.h", "signal.h", "csignal"]
SYSTEM += ["link.h", "elf.h", "malloc.h", "windows.h", "io.h", "process.h", "mach/*", "libproc.h"]
PROCESSOR = ["cpuid.h", "*intrin.h", "arm_neon.h", "fenv.h", "cfenv"]
CPP_NEVER += [
    Never(
        ["*"],
        SYSTEM,
        "platform.h has what is an operating system's",
        who_may=(PLATFORM, OLD_GLIBC, *(f"libadamw/pager/{name}" for name in FILE_PAGES)),
    ),
    Never(
        ["*"],
        PROCESSOR,
        "platform.h and the kernels have what is a processor's",
        who_may=(PLATFORM, "libadamw/cpu/registers_*.h", "libadamw/cpu/kernels_*.cpp"),
    ),
]

# Words that only these files may have: those of a compiler or a system, which no #include tells of.
PLATFORM_WORDS = re.compile(
    r"\b__attribute__|\b__declspec|\b__builtin_\w+|\b(?:__)?asm(?:__)?\b|#\s*pragma (?!once)"
    r"|\b_WIN32\b|\b__(?:linux|APPLE|MINGW32|MINGW64|x86_64|aarch64|GNUC|clang|GLIBC)__\b|\[\[gnu::"
)
HAVE_PLATFORM_WORDS = [PLATFORM, OLD_GLIBC, HEADER, KERNELS, "libadamw/cpu/registers_*.h"]

PYTHON_FLOORS = [
    ["pyadamw._checks", "pyadamw.errors", "pyadamw._findings", "pyadamw._optional"],
    ["pyadamw._native", "pyadamw._native.*"],
    ["pyadamw.paging"],
    ["pyadamw._options", "pyadamw._options.*"],
    ["pyadamw._state", "pyadamw._state.*"],
    ["pyadamw._step", "pyadamw._step.*"],
    ["pyadamw._base"],
    ["pyadamw.optim", "pyadamw.functional"],
    ["pyadamw.backward"],
    ["pyadamw.master_weights"],
    ["pyadamw._plan", "pyadamw._plan.*"],
    ["pyadamw"],
    ["pyadamw.integrations", "pyadamw.integrations.*", "pyadamw.demo", "pyadamw.demo.*"],
    ["pyadamw._diagnosis", "pyadamw._diagnosis.*"],
    ["pyadamw._commands", "pyadamw._commands.*"],
    ["pyadamw.cli", "pyadamw.__main__"],
]


def matches(name, patterns):
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def floor_of(name, floors):
    for number, patterns in enumerate(floors):
        if name in patterns:
            return number
    for number, patterns in enumerate(floors):
        if matches(name, patterns):
            return number
    return None


def reaches(uses):
    """{file: all that it includes, or imports, directly or not}"""
    all_of = {}
    for name in uses:
        found, new = set(), [name]
        while new:
            for other in uses.get(new.pop(), ()):
                if other not in found:
                    found.add(other)
                    new.append(other)
        all_of[name] = found
    return all_of


def culprits(reached, breaks):
    """The pairs (a, b) that break a rule by themselves, not only since something between a and b does."""
    broken = {(a, b) for a, others in reached.items() for b in others if breaks(a, b)}

    def on_the_way(a, b):
        others = reached[a] - {a, b}
        return any((via, b) in broken or ((a, via) in broken and b in reached.get(via, ())) for via in others)

    return sorted((a, b) for a, b in broken if not on_the_way(a, b))


def check_floors(reached, floors, verb):
    for name in sorted(reached):
        if floor_of(name, floors) is None:
            yield f"{name} is on no floor: give it one in ci/layers.py"
    ranks = {name: floor_of(name, floors) or 0 for name in reached}
    upwards = culprits(reached, lambda a, b: b in ranks and ranks[b] > ranks[a])
    yield from (f"{a} must not {verb} {b}, which is on a floor above it" for a, b in upwards)
    circles = sorted((a, b) for a in reached for b in reached[a] if a < b and a in reached.get(b, ()))
    yield from (f"{a} and {b} {verb} each other" for a, b in circles)


# ---- C++ ----


def included_by(root, file):
    """What the compiler says: the project's own by their paths, others by the names in their #include."""
    # Nothing of the system's is read, which takes most of the time: what cannot be found is believed to be there (-MG).
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-M", "-MG", "-nostdinc", "-nostdinc++", "-Iinclude"]
    made = subprocess.run([*command, "-x", "c++", file], cwd=root, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise SystemExit(f"error: {file}: {made.stderr.strip()}")
    names = made.stdout.split(":", 1)[1].replace("\\\n", " ").split()
    own = {name: os.path.normpath(name) for name in names}
    return {path if path.startswith(OWN) else name for name, path in own.items()} - {file}


def check_cpp(root):
    files = [
        str(path.relative_to(root))
        for folder in ("include", "libadamw")
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in (".h", ".cpp", ".cu")
    ]
    with ThreadPoolExecutor(2) as pool:
        reached = dict(zip(files, pool.map(lambda file: included_by(root, file), files), strict=True))
    yield from check_floors(reached, CPP_FLOORS, "include")
    for rule in CPP_NEVER:

        def breaks(a, b, rule=rule):
            kind = b if b.startswith(OWN) else "system"
            named = matches(b, rule.what) or kind in rule.what
            return matches(a, rule.who) and named and not matches(a, rule.who_may) and b not in rule.what_may

        yield from (f"{a} must not include {b}: {rule.why}" for a, b in culprits(reached, breaks))
    yield from check_words(root, files)


def without_comments(text):
    return re.sub(r"//[^\n]*|/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.DOTALL)


def check_words(root, files):
    for file in files:
        if matches(file, HAVE_PLATFORM_WORDS):
            continue
        words = PLATFORM_WORDS.findall(without_comments((root / file).read_text(encoding="utf-8")))
        yield from (f"{file} must not say {word}: platform.h does" for word in sorted(set(words)))


# ---- Python ----


def imported_by(path, name, modules):
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            inside = [f"{base}.{alias.name}" for alias in node.names]
            found.update(module if module in modules else base for module in inside)
    return found & modules - {name}


def check_python(root):
    paths = {}
    for path in sorted((root / "pyadamw").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    uses = {name: imported_by(path, name, set(paths)) for name, path in paths.items()}
    yield from check_floors(reaches(uses), PYTHON_FLOORS, "import")


def main(root):
    broken = [*check_cpp(root), *check_python(root)]
    print(*broken, sep="\n", end="\n" if broken else "")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])))
