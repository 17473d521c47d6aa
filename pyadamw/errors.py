"""Owns the exceptions of the package, one per status of the C interface. Must not know what caused them."""

from __future__ import annotations

import torch


class AdamWError(Exception):
    """The base class: libadamw refused a call, or could not do it. The message names the parameter and the value.

    `stepped` lists the parameters that a failed step() has stepped completely, including their step counts. It is empty
    except for StorageError and DeviceError.
    """

    stepped: tuple[torch.Tensor, ...] = ()


class InvalidArgumentError(AdamWError, ValueError):
    """A value is out of range, missing, misaligned or overlapping (ADAMW_ERROR_INVALID_ARGUMENT)."""


class VersionError(AdamWError, RuntimeError):
    """The library and the package have versions that do not fit (ADAMW_ERROR_VERSION)."""


class UnsupportedError(AdamWError, NotImplementedError):
    """A valid request that this build, device or processor does not support (ADAMW_ERROR_UNSUPPORTED)."""


class OutOfMemoryError(AdamWError, MemoryError):
    """There is no memory for the call; nothing was written (ADAMW_ERROR_OUT_OF_MEMORY)."""


class InternalError(AdamWError, RuntimeError):
    """A defect of libadamw: please report the message (ADAMW_ERROR_INTERNAL)."""


class DeviceError(AdamWError, RuntimeError):
    """A CUDA call failed; the message names it (ADAMW_ERROR_DEVICE)."""


class StorageError(AdamWError, OSError):
    """The file of a page manager cannot be made, grown, read or written (ADAMW_ERROR_STORAGE).

    After a failed step, parameters and state agree: each element was stepped in both, or in neither. Data that could
    not be written to the file is kept in memory.
    """


class LibraryNotFoundError(AdamWError, OSError):
    """The shared library is missing or cannot be loaded."""
