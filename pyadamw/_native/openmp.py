"""Owns that libadamw finds the OpenMP which torch has loaded. Must not know what runs on its threads.

The library takes OpenMP's functions from the names that the whole process sees. Most wheels of torch load their runtime
so. Those for AArch64 load one that only they see: libadamw would start threads of its own in each step.
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path

_NAME = re.compile(r"lib(gomp|omp|iomp)\d*[-.].*\bso\b")  # of the file; in wheels it has a hash


def loaded(maps: str) -> list[str]:
    """The runtimes in a process, from the text of its /proc/self/maps."""
    paths = (line.split(maxsplit=5)[5] for line in maps.splitlines() if line.count("/"))
    return sorted({path.strip() for path in paths if _NAME.match(os.path.basename(path.strip()))})


def share(*folders: Path) -> None:
    """Shows the whole process the runtime that has been loaded from one of these folders, if it sees none yet."""
    if hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        return
    try:
        maps = Path("/proc/self/maps").read_text(errors="replace")
    except OSError:
        return
    for path in loaded(maps):
        if any(Path(path).is_relative_to(folder) for folder in folders):
            try:
                ctypes.CDLL(path, ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)  # nothing is loaded: only who sees it changes
            except OSError:  # the file is not there any more
                continue
            return
