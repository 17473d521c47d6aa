"""Owns checks of single values: numbers, flags, integers. Must not know to which option they belong."""

from __future__ import annotations

import math
import numbers
import stat
from typing import Any

import torch


def shown(value: Any) -> str:
    """A short repr() of any value, even if repr() fails, as for some tensors and for numbers of 5000 digits."""
    try:
        text = repr(value)
    except Exception:  # whatever repr() raises
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 200 else f"{text[:200]}..."


def refuse(name: str, value: Any, need: str) -> None:
    raise ValueError(f"{name} = {shown(value)}: must be {need}")


def is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    """Whether a number is finite as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that is too large for a float
        return False


def scalar(value: Any) -> float:
    """A learning rate, or any other number that may be a one-element tensor, as a float."""
    return value.item() if isinstance(value, torch.Tensor) else float(value)


def finite_at_least_zero(name: str, value: Any) -> None:
    if not (is_real(value) and is_finite(value) and value >= 0):
        refuse(name, value, "a finite number >= 0")


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        refuse(name, value, "True or False")


def integer(minimum: Any, maximum: Any, need: str) -> Any:
    """A check that a value is an integer in [minimum, maximum]; None: no limit."""

    def check(name: str, value: Any) -> None:
        if not (is_integer(value) and value >= minimum and (maximum is None or value <= maximum)):
            refuse(name, value, need)

    return check


# The key of stochastic rounding.
check_seed = integer(0, 2**64 - 1, "an integer in [0, 2^64)")
check_step = integer(0, 2**63 - 1, "an integer in [0, 2^63)")


def kind_of_file(mode: int) -> Any:
    """The kind of something that is not a regular file, in words. `mode`: from os.stat()."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")
