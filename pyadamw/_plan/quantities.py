"""Owns numbers of bytes and of parameters as text, in both directions. Must not know what is counted."""

from __future__ import annotations

import re
from decimal import Decimal

from .._checks import is_integer, refuse

_BYTES = {
    "": 1,
    "B": 1,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
}
_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_NUMBER = re.compile(r"(\d{1,30}(?:\.\d{1,30})?(?:[eE]\+?\d{1,2})?)\s*([A-Za-z]*)")
LARGEST = 2**58  # elements of a tensor, as in adamw.h


def _read(text: str, units: dict[str, int]) -> int | None:
    """A whole number; None if it is none, or its unit is unknown."""
    found = _NUMBER.fullmatch(text.strip())
    names = {name.casefold(): unit for name, unit in units.items()}
    unit = names.get(found[2].casefold()) if found else None
    if found is None or unit is None:
        return None
    exact = Decimal(found[1]) * unit
    return int(exact) if exact == int(exact) else None


def bytes_of(name: str, value: object) -> int:
    """A number of bytes from an integer, or from text such as "24GiB". ValueError, which begins with `name`."""
    count = value if is_integer(value) else _read(value, _BYTES) if isinstance(value, str) else None
    if count is None or not 0 < int(count) < 2**63:  # type: ignore[call-overload]
        refuse(name, value, "a number of bytes > 0, or a text such as '24GiB' or '80GB'")
    return int(count)  # type: ignore[call-overload]


def looks_like_a_count(text: str) -> bool:
    return _NUMBER.fullmatch(text.strip()) is not None


def parameters_of(value: object) -> int:
    """A number of parameters from an integer, or from text such as "7B". ValueError if it is none."""
    count = value if is_integer(value) else _read(str(value), _COUNTS)
    if count is None or not 0 < int(count) <= LARGEST:  # type: ignore[call-overload]
        refuse("model", value, "a whole number of parameters in [1, 2^58], such as 7B, 350M or 7e9")
    return int(count)  # type: ignore[call-overload]


class Unit:
    """The unit of all numbers of a table, in which the largest has at most six characters."""

    def __init__(self, largest: float) -> None:
        power = 3 if largest >= 1024**3 else 2 if largest >= 1024**2 else 1 if largest >= 1024 else 0
        self.name, self.bytes = ("bytes", "KiB", "MiB", "GiB")[power], 1024**power
        self._decimals = next((d for d in (2, 1) if power and largest / self.bytes < 10 ** (5 - d) - 1), 0)

    def __call__(self, count: float) -> str:
        return f"{count / self.bytes:.{self._decimals}f}"


def shown_bytes(count: float) -> str:
    """With its unit, and without zeros at the end: "24 GiB", "2.4 GiB"."""
    unit = Unit(count)
    number = unit(count)
    return f"{number.rstrip('0').rstrip('.') if '.' in number else number} {unit.name}"
