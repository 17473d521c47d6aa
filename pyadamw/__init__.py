"""Owns the public names of pyadamw: AdamW for PyTorch with 32-, 16- and 8-bit and paged state, on libadamw."""

from importlib import metadata

from . import functional, optim
from ._native.cdef import VERSION_MAJOR, VERSION_MINOR, VERSION_PATCH
from .backward import StepInBackward
from .errors import (
    AdamWError,
    DeviceError,
    InternalError,
    InvalidArgumentError,
    LibraryNotFoundError,
    OutOfMemoryError,
    StorageError,
    UnsupportedError,
    VersionError,
)
from .functional import dequantize, quantize
from .master_weights import fp32_state_dict, load_fp32_state_dict
from .optim import (
    AdamW,
    AdamW8bit,
    AdamW16bit,
    AdamW32bit,
    GlobalOptimManager,
    PagedAdamW,
    PagedAdamW8bit,
    PagedAdamW16bit,
    PagedAdamW32bit,
)
from .paging import PageManager

try:
    __version__ = metadata.version("pyadamw")
except metadata.PackageNotFoundError:  # run from the source tree
    __version__ = f"{VERSION_MAJOR}.{VERSION_MINOR}.{VERSION_PATCH}"

__all__ = [
    "AdamW",
    "AdamW8bit",
    "AdamW16bit",
    "AdamW32bit",
    "AdamWError",
    "DeviceError",
    "GlobalOptimManager",
    "InternalError",
    "InvalidArgumentError",
    "LibraryNotFoundError",
    "OutOfMemoryError",
    "PageManager",
    "PagedAdamW",
    "PagedAdamW8bit",
    "PagedAdamW16bit",
    "PagedAdamW32bit",
    "StepInBackward",
    "StorageError",
    "UnsupportedError",
    "VersionError",
    "dequantize",
    "fp32_state_dict",
    "functional",
    "load_fp32_state_dict",
    "optim",
    "quantize",
]
