"""Owns describing the machine and the software that the figures were taken with. Must not know a figure."""

import os
import platform
from pathlib import Path

import torch

import pyadamw
from pyadamw._native.library import library


def describe():
    """What a reader needs to judge a figure; every value is a string, a number, a list of numbers or None."""
    return {
        "cpu": _from_proc("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory(),
        "load": list(os.getloadavg()),
        "threads": torch.get_num_threads(),
        "kernel": library().cpu_kernel(),
        "library": Path(library().path).name,
        "build": library().build_info(),
        "pyadamw": pyadamw.__version__,
        "torch": torch.__version__,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "gpu": None,
        "driver": None,
    }


def _from_proc(path, key):
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), None)


def _memory():
    total = _from_proc("/proc/meminfo", "MemTotal")
    return int(total.split()[0]) * 1024 if total else None
