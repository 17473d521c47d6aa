"""Owns one adamw_pager of libadamw and the tensors in its pages. Must not know the content of the tensors.

A tensor holds its pages, and pages hold the pager. So everything is freed when nothing refers to a tensor or the pager.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch

from ..errors import UnsupportedError
from .constants import PLACE_NAMES, PLACES
from .cuda import is_capturing, is_device
from .library import ffi, library, new_options
from .workers import leave_in_workers

STATISTICS = tuple(name for name, _ in ffi.typeof("adamw_pager_statistics").fields)

_homes: dict[int, tuple[Pager, str]] = {}  # address of a buffer: (its pager, its place), as long as the buffer exists


class Pager:
    """Pages for state of parameters on one device. The arguments are the fields of adamw_pager_options."""

    def __init__(
        self,
        backing: Any,
        device: torch.device,
        resident_bytes: Any,
        chunk_bytes: Any,
        reserve_bytes: Any,
        directory: Any,
    ) -> None:
        self._library = library()
        self.device = device
        options, pager = new_options("adamw_pager_options"), ffi.new("adamw_pager **")
        options.backing = PLACES[backing]
        options.device = self._library.device_number(device, "a parameter")
        options.resident_bytes, options.chunk_bytes, options.reserve_bytes = resident_bytes, chunk_bytes, reserve_bytes
        directory = ffi.NULL if directory is None else ffi.new("char[]", directory)
        options.directory = directory
        lib = self._library.lib
        self._library.check(lib.adamw_pager_create(options, pager))
        self.backing = backing
        self.pointer = ffi.gc(pager[0], lib.adamw_pager_destroy)
        self._in_files: set[int] = set()  # addresses of buffers
        self._left = False
        self._process = os.getpid()
        leave_in_workers(self, Pager._leave)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Any:
        """A contiguous tensor of zeros in pages: on the device if the device can use these pages, else on the CPU."""
        if math.prod(shape) == 0:
            return torch.zeros(shape, dtype=dtype, device=self.device)
        bytes_ = math.prod(shape) * dtype.itemsize
        buffer, place = ffi.new("void **"), ffi.new("int32_t *")
        self._library.check(self._library.lib.adamw_pager_alloc(self.pointer, bytes_, buffer, place))
        address = int(ffi.cast("uintptr_t", buffer[0]))
        _homes[address] = (self, PLACE_NAMES[place[0]])
        if PLACE_NAMES[place[0]] == "file":
            self._in_files.add(address)
        owner = ffi.gc(buffer[0], self._free, bytes_)
        on_device = PLACE_NAMES[place[0]] in ("managed", "device") and self.device.type != "cpu"
        if on_device:
            return torch.as_tensor(_CudaMemory(owner, address, bytes_), device=self.device).view(dtype).view(shape)
        return torch.frombuffer(ffi.buffer(owner, bytes_), dtype=dtype).view(shape)

    def _free(self, buffer: Any) -> None:
        address = int(ffi.cast("uintptr_t", buffer))
        _homes.pop(address, None)
        if self._left and address in self._in_files:
            return
        self._in_files.discard(address)
        ours = os.getpid() == self._process  # in a child of fork() CUDA does not work
        if self.device.type == "cuda" and ours and not sys.is_finalizing() and not is_capturing():
            torch.cuda.synchronize(self.device)  # torch's own kernels may still read the tensor
        self._library.lib.adamw_pager_free(self.pointer, buffer)

    def _leave(self) -> None:
        """In a worker: gives back the buffers in files. Their tensors must not be read any more."""
        self._left = bool(self._in_files)
        for address in self._in_files:
            self._library.lib.adamw_pager_free(self.pointer, ffi.cast("void *", address))

    def wait(self) -> None:
        """Waits until tensors on the CPU hold the results of all steps so far."""
        if self._left:
            raise UnsupportedError(
                "a worker of a DataLoader has no optimizer state in files, because it has given its snapshot back: "
                "read or save the state in the process that trains"
            )
        if is_device(self.device):
            self._library.check(self._library.lib.adamw_pager_wait(self.pointer))

    def statistics(self) -> dict[str, int]:
        """adamw_pager_statistics, as a dict."""
        result = ffi.new("adamw_pager_statistics *")
        size = ffi.sizeof("adamw_pager_statistics")
        self._library.check(self._library.lib.adamw_pager_stats(self.pointer, result, size))
        return {name: getattr(result, name) for name in STATISTICS}


class _CudaMemory:
    """Bytes that a CUDA device can use, in the form in which torch takes memory from other packages."""

    def __init__(self, owner: Any, address: int, bytes_: Any) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {"shape": (bytes_,), "typestr": "|u1", "data": (address, False), "version": 2}


def home(tensor: torch.Tensor) -> Any:
    """(pager, place) of a tensor in the pages of a pager; (None, None) of any other tensor."""
    return _homes.get(tensor.untyped_storage().data_ptr(), (None, None))
