"""Owns the public names of pyadamw: AdamW for PyTorch with 32-, 16- and 8-bit and paged state, on libadamw.

- Optimizers: AdamW, AdamW32bit, AdamW16bit, AdamW8bit, the same with Paged before the name, and StepInBackward.
- State elsewhere: PageManager. Options of single parameters: parameter groups, or GlobalOptimManager.
- Master weights: fp32_state_dict() and load_fp32_state_dict().
- 8-bit codes of any tensor: quantize() and dequantize(); more in `pyadamw.functional`.
- Errors: AdamWError and its subclasses.

Example:
    >>> import torch, pyadamw
    >>> model = torch.nn.Linear(256, 256)
    >>> optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3)
    >>> model(torch.ones(8, 256)).square().mean().backward()
    >>> optimizer.step()
    >>> optimizer.zero_grad()
"""

from importlib import metadata

from . import functional, optim
from ._native.cdef import VERSION_MAJOR, VERSION_MINOR, VERSION_PATCH
from ._plan import Plan, plan
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
    "Plan",
    "StepInBackward",
    "StorageError",
    "UnsupportedError",
    "VersionError",
    "dequantize",
    "fp32_state_dict",
    "functional",
    "load_fp32_state_dict",
    "optim",
    "plan",
    "quantize",
]
