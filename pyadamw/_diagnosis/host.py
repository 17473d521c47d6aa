"""Owns what is to be known of the machine for steps on the CPU: processors, threads, OpenMP, memory. Must not know of
libadamw's files or of disks.
"""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from .._findings import Finding
from .._native import openmp

LITTLE = 1 << 30  # bytes of free memory


def facts(loaded_threads: int | None, root: str = "/") -> dict[str, Any]:
    """`loaded_threads`: what libadamw takes by itself. `root`: where the folders proc and sys are."""
    files = Path(root)
    allowed, quota = len(os.sched_getaffinity(0)), _quota(files)
    return {
        "processors": {
            "machine": os.cpu_count(),
            "allowed": allowed,
            "quota": quota,
            "usable": allowed if quota is None else max(1, min(allowed, math.ceil(quota))),
        },
        "threads": {
            "torch": torch.get_num_threads(),
            "libadamw": loaded_threads,
            "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "openmp": openmp.loaded(_text(files / "proc/self/maps")),
        "memory": _memory(files),
        "limits": {
            "locked_memory_bytes": _limit(resource.RLIMIT_MEMLOCK),
            "file_bytes": _limit(resource.RLIMIT_FSIZE),
        },
    }


def _limit(which: int) -> int | None:
    soft = resource.getrlimit(which)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


# ---- control groups --------------------------------------------------------------------------------------------------


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those above it, of version 2 or of a controller of version 1.

    In a container the names may be those of the host: then only the topmost folder is there.
    """
    mounted = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = mounted
        elif controller in controllers.split(","):
            top = mounted / controller if (mounted / controller).is_dir() else mounted / controllers
        else:
            continue
        parts = [part for part in path.split("/") if part]
        yield from (top.joinpath(*parts[:length]) for length in range(len(parts), -1, -1))


def _quota(root: Path) -> float | None:
    """How many processors the control groups allow at a time; None: all."""
    found = []
    for group in _groups(root, "cpu"):
        words = _text(group / "cpu.max").split() or [
            _text(group / "cpu.cfs_quota_us").strip(),
            _text(group / "cpu.cfs_period_us").strip(),
        ]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal() and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min(found, default=None)


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _memory(root: Path) -> dict[str, int | None]:
    """Bytes: of the machine, of the control group, and what a program may still take."""
    sizes = {
        name: int(count) * 1024 for name, count in re.findall(r"^(\w+):\s+(\d+) kB", _text(root / "proc/meminfo"), re.M)
    }
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    limits = []
    for group in _groups(root, "memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            most, now = _number(group / limit), _number(group / used)
            # Without a limit, version 1 has a huge number.
            if most is not None and (total is None or most < total):
                limits.append((most, max(0, most - (now or 0))))
    rooms = [room for _, room in limits] + ([available] if available is not None else [])
    return {
        "total": total,
        "limit": min((most for most, _ in limits), default=None),
        "available": min(rooms, default=None),
    }


# ---- findings --------------------------------------------------------------------------------------------------------


def findings(found: dict[str, Any]) -> Iterator[Finding]:
    yield from _of_threads(found["threads"], found["processors"])
    pools = found["openmp"]
    if len(pools) > 1:
        text = f"{len(pools)} OpenMP libraries are loaded, each with threads of its own: {', '.join(pools)}."
        cure = (
            "Import torch before all other packages, so that libadamw and torch share its threads. A package that "
            "brings OpenMP of its own (scikit-learn, MKL) costs time only while both are at work."
        )
        yield Finding("warning", "openmp", text, cure)
    elif pools:
        yield Finding("ok", "openmp", f"One OpenMP library is loaded: {pools[0]}.")
    memory = found["memory"]
    if memory["available"] is not None and memory["available"] < LITTLE:
        text = f"Only {memory['available'] >> 20:,} MiB of memory are free."
        cure = "Paged state on the CPU needs memory (\"host\") or a disk: PageManager('file')."
        yield Finding("warning", "memory", text, cure)


def _of_threads(threads: dict[str, Any], processors: dict[str, Any]) -> Iterator[Finding]:
    count, usable, variable = threads["torch"], processors["usable"], threads["omp_num_threads"]
    why = "" if processors["quota"] is None else f" (the control group allows {processors['quota']:g})"
    said = f"OMP_NUM_THREADS = {variable}" if variable else "torch's default"
    if count > usable:
        text = (
            f"Steps use {count} threads ({said}), but this process may use {usable} processors{why}: they wait in turn."
        )
        yield Finding(
            "warning", "threads", text, f"Set OMP_NUM_THREADS={usable}, or call torch.set_num_threads({usable})."
        )
    elif 2 * count < usable:
        text = f"Steps on the CPU use {count} of {usable} processors ({said})."
        cure = f"For faster steps set OMP_NUM_THREADS={usable}, or call torch.set_num_threads({usable})."
        yield Finding("note", "threads", text, f"{cure} torchrun sets it to 1 for each process.")
    else:
        yield Finding("ok", "threads", f"Steps use {count} threads; this process may use {usable} processors{why}.")
