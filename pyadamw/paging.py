"""Owns the choice of pages: which backing, on which device, from which size on. Must not know what they store."""

from __future__ import annotations

import os
import threading
from typing import Literal

import torch

from ._checks import integer, refuse
from ._native.cuda import is_device
from ._native.pager import STATISTICS, Pager
from .errors import UnsupportedError

Backing = Literal["host", "file", "pinned", "managed"]
_BACKINGS = {"host": False, "file": False, "pinned": True, "managed": True}  # whether parameters are on a CUDA device
_bytes = integer(0, 2**60, "a number of bytes >= 0")


class PageManager:
    """Where paged optimizer state lives. One may serve several optimizers, and each group of one.

    Whatever the backing, the bits of a step are those without paging. Tensors of state are ordinary tensors, which stay
    valid as long as somebody holds them; their memory is given back when nobody does.

    Args:
        backing: None: "managed" for parameters on a CUDA device that supports concurrent managed access, "pinned" on
            one that does not (on Windows and WSL, for example), "host" on the CPU. Or:
            "host" - ordinary memory; parameters on the CPU.
            "file" - a private file without a name, for state larger than memory; parameters on the CPU. Space on the
            disk is reserved before state is made.
            "pinned" - page-locked host memory, streamed through the device while it is stepped; the tensors of state
            are then on the CPU, as far as resident_bytes does not hold them.
            "managed" - CUDA unified memory, which the driver moves out of a full device. What resident_bytes does not
            hold stays in host memory, where the device's kernels read and write it.
        resident_bytes: the budget of fast memory: host memory for "file", the device's for "pinned" and "managed". What
            is left of it beside the windows (all of it for "managed") holds the state that is made first. 0: only the
            windows; no limit for "managed". No effect on "host".
        chunk_bytes: bytes of state in a window, of which there are four. 0: as the library finds right.
        reserve_bytes: "file": disk space to reserve at once, beyond that for what is in use.
        directory: "file": where; None: the environment variable TMPDIR, or else /var/tmp.
        min_numel: parameters with fewer elements are not paged: it is not worth it (100,000, as in bitsandbytes).

    Raises:
        ValueError: an argument is not what it may be.
        StorageError (an OSError): the directory is missing or read-only, or has no room. Not for "host", "pinned" and
            "managed".
    """

    def __init__(
        self,
        backing: Backing | None = None,
        *,
        resident_bytes: int = 0,
        chunk_bytes: int = 0,
        reserve_bytes: int = 0,
        directory: str | os.PathLike[str] | None = None,
        min_numel: int = 100_000,
    ) -> None:
        if backing is not None and backing not in _BACKINGS:
            refuse("backing", backing, f"None, {', '.join(map(repr, _BACKINGS))}")
        for name, value in (
            ("resident_bytes", resident_bytes),
            ("chunk_bytes", chunk_bytes),
            ("reserve_bytes", reserve_bytes),
        ):
            _bytes(name, value)
        integer(0, None, "an integer >= 0")("min_numel", min_numel)
        if backing != "file" and directory is not None:
            refuse("directory", directory, 'None but for backing="file"')
        if backing != "file" and reserve_bytes:
            refuse("reserve_bytes", reserve_bytes, '0 but for backing="file"')
        self.backing: Backing | None = backing
        self.min_numel = min_numel
        self.resident_bytes, self.chunk_bytes, self.reserve_bytes = resident_bytes, chunk_bytes, reserve_bytes
        self.directory = None if directory is None else os.fspath(directory)
        self._pagers: dict[torch.device, Pager] = {}
        self._making = threading.Lock()  # optimizers of several threads may ask for the first time
        if backing is not None and not _BACKINGS[backing]:
            self.pager(torch.device("cpu"))  # what is wrong with the directory shows now

    def __repr__(self) -> str:
        return (
            f"PageManager({self.backing!r}, resident_bytes={self.resident_bytes}, chunk_bytes={self.chunk_bytes}, "
            f"reserve_bytes={self.reserve_bytes}, directory={self.directory!r}, min_numel={self.min_numel})"
        )

    # A copied optimizer goes on with the same manager; one that comes out of a pickle gets one like it.
    def __deepcopy__(self, memo: object) -> PageManager:
        return self

    def __copy__(self) -> PageManager:
        return self

    def __reduce__(self):
        return _like, (
            self.backing,
            self.resident_bytes,
            self.chunk_bytes,
            self.reserve_bytes,
            self.directory,
            self.min_numel,
        )

    def pager(self, device: torch.device) -> Pager:
        """The pages for parameters on `device`; they are made at the first call."""
        with self._making:
            pager = self._pagers.get(device)
            if pager is None:
                pager = self._pagers[device] = self._make(device)
            return pager

    def _make(self, device):
        there = is_device(device)
        if self.backing is None:
            if not there:
                return self._new("host", device)
            try:
                return self._new("managed", device)
            except UnsupportedError:
                return self._new("pinned", device)
        if _BACKINGS[self.backing] != there:
            others = " or ".join(repr(name) for name, cuda in _BACKINGS.items() if cuda == there)
            raise ValueError(f"backing = {self.backing!r}, but a parameter is on {device}: must be {others} for that")
        return self._new(self.backing, device)

    def _new(self, backing, device):
        directory = None if self.directory is None else os.fsencode(self.directory)
        return Pager(backing, device, self.resident_bytes, self.chunk_bytes, self.reserve_bytes, directory)

    def wait(self) -> None:
        """Until tensors of state on the CPU show what the steps so far have left there ("pinned"; others always do).

        An optimizer's `state` and state_dict() do this; tensors that were taken from there before a step need it.
        """
        for pager in list(self._pagers.values()):
            pager.wait()

    def stats(self) -> dict[str, int]:
        """What the manager holds and has done since it was made, as a dict of integers, summed over devices.

        buffers; host_bytes, file_bytes, pinned_bytes, managed_bytes, device_bytes: of state, by where it lies;
        resident_bytes, resident_peak_bytes: fast memory in use now and at most; bytes_in, bytes_out: brought in and
        written back by steps ("managed": only what they asked the driver for, not what kernels use over the link);
        wait_ns: nanoseconds that steps waited for bytes; faults_avoided: pages of 4096 bytes that were there before
        they were touched.
        """
        total = dict.fromkeys(STATISTICS, 0)
        for pager in list(self._pagers.values()):
            for name, value in pager.statistics().items():
                total[name] += value
        return total


def _like(backing, resident_bytes, chunk_bytes, reserve_bytes, directory, min_numel):
    return PageManager(
        backing,
        resident_bytes=resident_bytes,
        chunk_bytes=chunk_bytes,
        reserve_bytes=reserve_bytes,
        directory=directory,
        min_numel=min_numel,
    )


def manager_of(group, numel, default):
    """The page manager of a parameter of `numel` elements in a parameter group; None if it is not paged."""
    manager = group["page_manager"] or default
    return manager if group["is_paged"] and numel >= manager.min_numel else None
