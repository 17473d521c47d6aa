"""Owns how memory is measured: bytes held by tensors, resident memory of the process. Must not know what is trained."""

from __future__ import annotations

import sys
from typing import Any

import torch


def tensor_bytes(value: Any) -> int:
    """The bytes of all tensors within `value` (nested dicts, lists, objects), each storage counted once and whole."""
    storages: dict[int, int] = {}
    _collect(value, storages, set())
    return sum(storages.values())


def _collect(value: Any, storages: dict[int, int], seen: set[int]) -> None:
    if id(value) in seen or isinstance(value, torch.nn.Parameter):
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, dict):
        for item in value.values():
            _collect(item, storages, seen)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, storages, seen)
    elif hasattr(value, "__dict__"):
        _collect(vars(value), storages, seen)


def reset_peak_memory() -> int:
    """Makes now the start of what `peak_memory` reports, where the system can, and returns the bytes resident now.

    On Linux ru_maxrss will not do: it starts at what the parent had resident, and it cannot be reset.
    """
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass
    resident = _proc_status("VmRSS")
    return peak_memory() if resident is None else resident


def peak_memory() -> int:
    """The most bytes this process had resident at once, since `reset_peak_memory` or else since it began."""
    peak = _proc_status("VmHWM")
    if peak is not None:
        return peak
    import resource

    # Kilobytes everywhere but on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _proc_status(field: str) -> int | None:
    try:
        with open("/proc/self/status") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines[field].split()[0]) * 1024
    except (OSError, KeyError):
        return None
