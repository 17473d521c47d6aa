"""Owns the exceptions of the package, one per status of the C interface. Must not know what caused them."""

from __future__ import annotations

import torch


class AdamWError(Exception):
    """The base class of the errors of libadamw: it refused a call, or could not do it.

    The message names the parameter and the value. Each subclass is also one of Python's own errors, so that programs
    need not know pyadamw to catch it.

    Attributes:
        stepped: a tuple of the parameters that a failed step() has stepped completely, including their step counts.
            Empty if it has stepped none, and for errors of other calls.
    """

    stepped: tuple[torch.Tensor, ...] = ()


class InvalidArgumentError(AdamWError, ValueError):
    """A value is out of range, missing, misaligned or overlapping (ADAMW_ERROR_INVALID_ARGUMENT).

    step() raises it, for example, for a parameter of dtype float64. What pyadamw checks itself is a plain ValueError,
    so catch ValueError for both. Cure: the message says what is allowed.
    """


class VersionError(AdamWError, RuntimeError):
    """The library and the package have versions that do not fit (ADAMW_ERROR_VERSION).

    The first use of the library raises it, such as making an optimizer. Cure: install a pyadamw and a libadamw
    that belong together. If the environment variable PYADAMW_LIBRARY is set, unset it or let it name such a library.
    """


class UnsupportedError(AdamWError, NotImplementedError):
    """A valid request that this build, device or processor does not support (ADAMW_ERROR_UNSUPPORTED).

    step() raises it, for example, for parameters on a CUDA device if the library is for the CPU only. It also does so
    if the environment variable ADAMW_CPU names a kernel that cannot run here. Cure: the message says what to install or
    unset; `python -m pyadamw info` shows which library and kernel are in use.
    """


class OutOfMemoryError(AdamWError, MemoryError):
    """There is no memory for the call (ADAMW_ERROR_OUT_OF_MEMORY).

    A failed step() has stepped the parameters in `stepped` completely. Cure: less state (AdamW8bit), state elsewhere
    (PagedAdamW8bit), or less fast memory for pages (resident_bytes of PageManager).
    """


class InternalError(AdamWError, RuntimeError):
    """A defect of libadamw (ADAMW_ERROR_INTERNAL).

    Any call may raise it, whatever its arguments. Cure: please report the message.
    """


class DeviceError(AdamWError, RuntimeError):
    """A CUDA call failed (ADAMW_ERROR_DEVICE).

    The message names the CUDA call and its error. CUDA also reports errors of earlier work of the program here. Cure:
    set the environment variable CUDA_LAUNCH_BLOCKING=1 to find the call that failed first.
    """


class StorageError(AdamWError, OSError):
    """The file of a page manager cannot be made, grown, read or written (ADAMW_ERROR_STORAGE).

    PageManager("file") and the steps of its optimizers raise it, for example if the disk is full. Cure: free space on
    the disk, or choose another `directory`; reserve_bytes finds a full disk before training begins.

    After a failed step, parameters and state agree: each element was stepped in both, or in neither. Data that could
    not be written to the file is kept in memory.
    """


class LibraryNotFoundError(AdamWError, OSError):
    """The shared library is missing or cannot be loaded.

    The first use of the library raises it, such as making an optimizer. Cure: install pyadamw again, or set the
    environment variable PYADAMW_LIBRARY to the path of a libadamw.so; the message says what was tried.
    """
