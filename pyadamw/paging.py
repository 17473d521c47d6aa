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
    """Decides where paged optimizer state is kept.

    One manager may serve several optimizers and several groups: pass it as page_manager. Whatever the backing, the
    results have the same bits as without paging. The state consists of ordinary tensors. They stay valid as long as
    something refers to them; then their memory is given back.

    With "file" and "pinned", a step brings state into windows of fast memory, steps it there, and writes it back. It
    reads ahead and writes behind. The state that the budget keeps in fast memory is stepped in place.

    On a CUDA device, the options max_unorm and block_wise=False do without windows: the kernels read state twice and
    write it once where it is, over the link if it is in host memory. Expect slower steps with these options.

    Args:
        backing: one of these, or None. None means "host" on the CPU, "managed" on CUDA devices that support concurrent
            managed access, and "pinned" on other CUDA devices.

            - "host": ordinary memory. For parameters on the CPU.
            - "file": a private file without a name, for state larger than memory. For parameters on the CPU. Disk space
              is reserved before state is made.
            - "pinned": page-locked host memory, which a step streams through the device. The tensors of state are on
              the CPU, except those that fit into resident_bytes.
            - "managed": CUDA unified memory, which the driver moves out of a full device. State beyond resident_bytes
              stays in host memory, and the kernels of the device read and write it over the link.
        resident_bytes: the budget of fast memory in bytes: host memory for "file", device memory for "pinned" and
            "managed". First come the four windows ("managed" needs none). The rest keeps the state that is made first.
            0 means only the windows, or no limit for "managed". No effect on "host".
        chunk_bytes: bytes of state in a window, at least 65536. 0: the library chooses: 16 MiB, or less if
            resident_bytes is small.
        reserve_bytes: for "file": bytes of disk space to reserve at once, for the state to come. State beyond them
            reserves its space when it is made.
        directory: for "file": the directory of the file. None: the environment variable TMPDIR, or else /var/tmp.
        min_numel: parameters with fewer elements are not paged, because it does not pay (100,000, as in bitsandbytes).

    The arguments are attributes of the manager. To change one, make another manager.

    Raises:
        ValueError: an argument is wrong. The message has its value and what is allowed.
        StorageError: the directory is missing or read-only, or the disk is full. Only with "file".

    Example:
        >>> import torch, pyadamw
        >>> manager = pyadamw.PageManager("file", resident_bytes=1 << 20)
        >>> model = torch.nn.Linear(1000, 1000)
        >>> optimizer = pyadamw.PagedAdamW8bit(model.parameters(), page_manager=manager)
        >>> model(torch.ones(8, 1000)).square().mean().backward()
        >>> optimizer.step()
        >>> statistics = manager.stats()
        >>> statistics["file_bytes"] >= 2_000_000, statistics["resident_bytes"] <= 1 << 20
        (True, True)
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
        """Returns the pager for parameters on `device`, which the first call makes.

        Optimizers call it when they make state. A program needs it only to find out early whether the backing works on
        a device.

        Args:
            device: where the parameters are.

        Raises:
            ValueError: the backing is not for parameters on this device.
            UnsupportedError: the library or the device does not support the backing.
            OutOfMemoryError: there is no memory for the pager.
            DeviceError: a CUDA call failed.
            StorageError: as in the constructor.
        """
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
        """Waits until tensors of state on the CPU hold the results of all steps so far.

        Only "pinned" needs it; with other backings it returns at once. The optimizer's `state` and state_dict() call
        it. Call it yourself before you read a tensor that you got from them before the last step.

        Raises:
            DeviceError: a CUDA call failed.
            UnsupportedError: this is a worker process of a DataLoader, where the state in files cannot be read.
        """
        for pager in list(self._pagers.values()):
            pager.wait()

    def stats(self) -> dict[str, int]:
        """Returns statistics since the manager was made, summed over devices.

        Returns:
            A dict with these integers.

            - "buffers": number of buffers that are allocated now.
            - "host_bytes", "file_bytes", "pinned_bytes", "managed_bytes", "device_bytes": bytes of state in each kind
              of memory.
            - "resident_bytes", "resident_peak_bytes": bytes of fast memory in use now, and the most so far.
            - "bytes_in", "bytes_out": bytes that steps brought in and wrote back. For "managed" they count only
              requests to the driver, not accesses of kernels over the link.
            - "wait_ns": nanoseconds that steps waited for bytes. On a CUDA device the host does not wait.
            - "faults_avoided": pages of 4096 bytes that were brought in before their first use.
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
