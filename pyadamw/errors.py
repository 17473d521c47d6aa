"""Owns the exceptions of the package, one per status of the C interface. Must not know what caused them."""

from __future__ import annotations

import torch


class AdamWError(Exception):
    """What libadamw refused or could not do. The message is the library's own: it names row, field and value.

    `stepped` are the parameters that a failed step() has stepped completely, their step counts included: none, but for
    StorageError and DeviceError.
    """

    stepped: tuple[torch.Tensor, ...] = ()


class InvalidArgumentError(AdamWError, ValueError):
    """A value is out of range, missing, misaligned or overlapping (ADAMW_ERROR_INVALID_ARGUMENT)."""


class VersionError(AdamWError, RuntimeError):
    """Library and package do not belong together (ADAMW_ERROR_VERSION)."""


class UnsupportedError(AdamWError, NotImplementedError):
    """Valid, but not on this build, device or processor (ADAMW_ERROR_UNSUPPORTED)."""


class OutOfMemoryError(AdamWError, MemoryError):
    """Working memory could not be had; nothing was written (ADAMW_ERROR_OUT_OF_MEMORY)."""


class InternalError(AdamWError, RuntimeError):
    """A defect of libadamw: please report the message (ADAMW_ERROR_INTERNAL)."""


class DeviceError(AdamWError, RuntimeError):
    """A CUDA call failed; the message names it (ADAMW_ERROR_DEVICE)."""


class StorageError(AdamWError, OSError):
    """The file of a page manager cannot be made, grown, read or written (ADAMW_ERROR_STORAGE).

    In a step, parameters and state stay consistent: each element of both has been stepped, or neither. What could not
    be written to the file is kept in memory.
    """


class LibraryNotFoundError(AdamWError, OSError):
    """The shared library is missing or cannot be loaded."""
