"""Owns the choice of pages: which backing, on which device, for tensors of what size. Must not know what they store."""

from __future__ import annotations

import os
from typing import Any, Literal

import torch

from ._checks import integer, refuse, shown
from ._native.cuda import is_device
from ._native.pager import STATISTICS, Pager
from .errors import UnsupportedError

Backing = Literal["host", "file", "pinned", "managed"]
_BACKINGS = {"host": False, "file": False, "pinned": True, "managed": True}  # whether parameters are on a CUDA device
_bytes = integer(0, 2**60, "a number of bytes >= 0")


class PageManager:
    """Decides where paged optimizer state is kept. One manager may serve several optimizers and several groups.

    Whatever the backing, the results have the same bits as without paging. The state consists of ordinary tensors. They
    stay valid as long as something refers to them; then their memory is given back.

    On a CUDA device, the options max_unorm and block_wise=False do without windows: the kernels read state twice and
    write it once where it is, over the link if it is in host memory. Expect slower steps with these options.

    Args:
        backing: one of these, or None. None means "host" on the CPU, "managed" on CUDA devices that support concurrent
            managed access, and "pinned" on other CUDA devices.
            "host" - ordinary memory. For parameters on the CPU.
            "file" - a private file without a name, for state larger than memory. For parameters on the CPU. Disk space
            is reserved before state is made.
            "pinned" - page-locked host memory, which a step streams through the device. The tensors of state are on the
            CPU, except those that fit into resident_bytes.
            "managed" - CUDA unified memory, which the driver moves out of a full device. State beyond resident_bytes
            stays in host memory, and the kernels of the device read and write it over the link.
        resident_bytes: the budget of fast memory: host memory for "file", device memory for "pinned" and "managed".
            First come the windows ("managed" needs none). The rest keeps the state that is made first. 0 means only the
            windows, or no limit for "managed". No effect on "host".
        chunk_bytes: bytes of state in a window; there are four windows. 0: the library chooses.
        reserve_bytes: for "file": disk space to reserve at once, in addition to the state in use.
        directory: for "file": the directory of the file. None: the environment variable TMPDIR, or else /var/tmp.
        min_numel: parameters with fewer elements are not paged, because it does not pay (100,000, as in bitsandbytes).

    Raises:
        ValueError: an argument is wrong; the message has its value and what is allowed.
        StorageError (an OSError): the directory is missing or read-only, or the disk is full. Only with "file".
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
            raise ValueError(f"directory = {shown(directory)}: only allowed with backing='file'")
        if backing != "file" and reserve_bytes:
            raise ValueError(f"reserve_bytes = {shown(reserve_bytes)}: only allowed with backing='file'")
        self.backing: Backing | None = backing
        self.min_numel = min_numel
        self.resident_bytes, self.chunk_bytes, self.reserve_bytes = resident_bytes, chunk_bytes, reserve_bytes
        self.directory = None if directory is None else os.fspath(directory)
        self._pagers: dict[torch.device, Pager] = {}
        if backing is not None and not _BACKINGS[backing]:
            self.pager(torch.device("cpu"))  # a wrong directory is an error now, not in the first step

    def __repr__(self) -> str:
        return (
            f"PageManager({self.backing!r}, resident_bytes={self.resident_bytes}, chunk_bytes={self.chunk_bytes}, "
            f"reserve_bytes={self.reserve_bytes}, directory={self.directory!r}, min_numel={self.min_numel})"
        )

    # A copied optimizer uses the same manager. An unpickled one gets a new manager with the same arguments.
    def __deepcopy__(self, memo: object) -> PageManager:
        return self

    def __copy__(self) -> PageManager:
        return self

    def __reduce__(self) -> Any:
        return _like, (
            self.backing,
            self.resident_bytes,
            self.chunk_bytes,
            self.reserve_bytes,
            self.directory,
            self.min_numel,
        )

    def pager(self, device: torch.device) -> Pager:
        """The pager for parameters on `device`; the first call makes it."""
        pager = self._pagers.get(device)
        if pager is None:  # two threads may both make one; without a lock, which an interrupt could leave locked
            pager = self._pagers.setdefault(device, self._make(device))
        return pager

    def _make(self, device: torch.device) -> Any:
        on_device = is_device(device)
        if self.backing is None:
            if not on_device:
                return self._new("host", device)
            try:
                return self._new("managed", device)
            except UnsupportedError:
                return self._new("pinned", device)
        if _BACKINGS[self.backing] != on_device:
            others = " or ".join(repr(name) for name, cuda in _BACKINGS.items() if cuda == on_device)
            raise ValueError(f"backing = {self.backing!r}, but a parameter is on {device}: must be {others} for that")
        return self._new(self.backing, device)

    def _new(self, backing: Any, device: torch.device) -> Any:
        directory = None if self.directory is None else os.fsencode(self.directory)
        return Pager(backing, device, self.resident_bytes, self.chunk_bytes, self.reserve_bytes, directory)

    def wait(self) -> None:
        """Waits until tensors of state on the CPU hold the results of all steps so far ("pinned"; others need no wait).

        The optimizer's `state` and state_dict() call it. Call it yourself before you read a tensor that you got from
        them before the last step.
        """
        for pager in list(self._pagers.values()):
            pager.wait()

    def stats(self) -> dict[str, int]:
        """Statistics since the manager was made, as a dict of integers, summed over devices.

        buffers: number of buffers that are allocated now.
        host_bytes, file_bytes, pinned_bytes, managed_bytes, device_bytes: bytes of state in each kind of memory.
        resident_bytes, resident_peak_bytes: fast memory in use now, and at most so far.
        bytes_in, bytes_out: bytes that steps brought in and wrote back. For "managed" they count only requests to the
            driver, not accesses of kernels over the link.
        wait_ns: nanoseconds that steps waited for bytes.
        faults_avoided: pages of 4096 bytes that were brought in before their first use.
        """
        total = dict.fromkeys(STATISTICS, 0)
        for pager in list(self._pagers.values()):
            for name, value in pager.statistics().items():
                total[name] += value
        return total


def _like(
    backing: Any, resident_bytes: Any, chunk_bytes: Any, reserve_bytes: Any, directory: Any, min_numel: Any
) -> Any:
    return PageManager(
        backing,
        resident_bytes=resident_bytes,
        chunk_bytes=chunk_bytes,
        reserve_bytes=reserve_bytes,
        directory=directory,
        min_numel=min_numel,
    )


def manager_of(group: Any, numel: int, default: Any) -> Any:
    """The page manager for a parameter of `numel` elements in a parameter group; None if it is not paged."""
    manager = group["page_manager"] or default
    return manager if group["is_paged"] and numel >= manager.min_numel else None
