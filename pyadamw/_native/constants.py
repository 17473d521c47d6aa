"""Owns what the numbers of adamw.h are called in Python. All of them are read from its declarations: none is copied.
Must not know what they are for.

What the header gains arrives here by itself. Where Python must have something of its own for it (a dtype of torch, an
exception), the import fails until that is there.
"""

from __future__ import annotations

import torch

from .. import errors
from .cdef import ffi


def numbers(enum: str, prefix: str) -> dict[str, int]:
    """The enumerators of an enum without a prefix, in small letters. Others are left out."""
    found = sorted((number, name) for name, number in ffi.typeof(enum).relements.items() if name.startswith(prefix))
    return {name.removeprefix(prefix).lower(): number for number, name in found}


def _dtype_or_none(name: str) -> torch.dtype | None:
    dtype = getattr(torch, name, None)
    return dtype if isinstance(dtype, torch.dtype) else None


def _dtype(name: str) -> torch.dtype:
    dtype = _dtype_or_none(name)
    if dtype is None:
        raise ImportError(f"adamw.h has ADAMW_{name.upper()}, but torch.{name} is no dtype: constants.py must name one")
    return dtype


def _exception(name: str) -> type[errors.AdamWError]:
    words = name.replace("_", " ").title().replace(" ", "")
    found = getattr(errors, f"{words}Error", None)
    if found is None:
        raise ImportError(f"adamw.h has ADAMW_ERROR_{name.upper()}, but errors.py has no {words}Error")
    return found


STATE_FORMATS = numbers("adamw_state_format", "ADAMW_STATE_")
FLOAT32, BLOCK8, TENSOR8 = (STATE_FORMATS[name] for name in ("float32", "block8", "tensor8"))
# The formats whose moments are numbers, which are named after their dtypes; the others have codes.
NUMBERS = {number: found for name, number in STATE_FORMATS.items() if (found := _dtype_or_none(name)) is not None}
FORMAT_OF_DTYPE = {dtype: number for number, dtype in NUMBERS.items()}
FORMAT_OF_BITS = {8 * dtype.itemsize: number for number, dtype in NUMBERS.items()}

DTYPES = {_dtype(name): number for name, number in numbers("adamw_dtype", "ADAMW_").items()}
DTYPE_NAMES = " or ".join(", ".join(numbers("adamw_dtype", "ADAMW_")).rsplit(", ", 1))

FLAGS = numbers("adamw_step_flags", "ADAMW_STEP_")  # by the group option that sets them
MOMENTS = numbers("adamw_moment", "ADAMW_MOMENT_")
ROUNDINGS = numbers("adamw_rounding", "ADAMW_ROUND_")
PLACES = numbers("adamw_place", "ADAMW_PLACE_")
PLACE_NAMES = {number: name for name, number in PLACES.items()}
BY_STATUS = {number: _exception(name) for name, number in numbers("adamw_status", "ADAMW_ERROR_").items()}
