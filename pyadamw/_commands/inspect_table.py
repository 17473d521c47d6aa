"""Owns the lines of the table of `inspect`: their order, and which parameters share one. Must not know what is counted.

A model has hundreds of parameters whose names differ only in the number of their layer. They share a line if they have
one shape, format and number of bits of master weights, and if all of them can be loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._state.statistics import Moment, Statistics
from .output import print_table, share, size

ENOUGH = 40  # parameters that have a line each, without --all
MOMENTS = ("exp_avg", "exp_avg_sq")
HEADINGS = (
    *("count", "bytes", "step", "format", "master", "scales exp_avg", "exp_avg_sq"),
    *("zeros", "codes", "not finite", "shape", "parameter"),
)
LEFT = (3, 10, 11)
MAY_MISS = (0, 4, 5, 6, 8, 9)  # where they say nothing

Line = list[Statistics]  # the parameters that share it


def _scale(one: Statistics) -> float:
    return max((m.scales.largest or 0.0 for m in one.moments.values() if m.scales), default=0.0)


def _zeros(one: Statistics) -> float:
    return sum(m.zeros or 0 for m in one.moments.values()) / max(one.numel, 1)


def _codes(one: Statistics) -> float:
    return min((m.codes_used for m in one.moments.values() if m.codes_used is not None), default=2.0)


# What is looked for comes first: the largest, or of codes the fewest.
_KEYS: dict[str, Callable[[Statistics], Any]] = {
    "file": lambda one: 0,
    "name": lambda one: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", one.title)],
    "bytes": lambda one: -one.bytes,
    "step": lambda one: -(one.step or 0),
    "scale": lambda one: -_scale(one),
    "zeros": lambda one: -_zeros(one),
    "codes": _codes,
    "nonfinite": lambda one: -one.nonfinite,
}
SORTS = tuple(_KEYS)


def ordered(found: Iterable[Statistics], sort: str) -> list[Statistics]:
    return sorted(found, key=_KEYS[sort])


def lines(found: Sequence[Statistics], sort: str, each: bool) -> list[Line]:
    """What stands in each line. A line is where its first parameter would be."""
    if each or len(found) <= ENOUGH:
        return [[one] for one in ordered(found, sort)]
    made: dict[Any, Line] = {}
    for one in ordered(found, sort):
        pattern = None if one.name is None and not isinstance(one.key, str) else re.sub(r"\d+", "*", one.title)
        alone = one.title if one.refused else None
        made.setdefault((pattern, one.shape, one.format, one.master_weight_bits, alone), []).append(one)
    return list(made.values())


def _title(line: Line) -> str:
    first, *others = line
    if not others:
        return first.title
    if first.name is not None or isinstance(first.key, str):
        # A number that all of them have stays.
        parts = [re.split(r"(\d+)", one.title) for one in line]
        return "".join(texts[0] if len(set(texts)) == 1 else "*" for texts in zip(*parts, strict=True))
    return f"{first.title}, {others[0].title}{', ...' if len(others) > 1 else ''}"


def _scales(moments: Sequence[Moment]) -> str:
    known = [m.scales for m in moments if m.scales is not None and m.scales.smallest is not None]
    if not known:
        return "-"
    smallest, largest = min(s.smallest for s in known), max(s.largest for s in known)  # type: ignore[type-var]
    return f"{smallest:.2g} to {largest:.2g}"


def _zero(moments: Sequence[Moment], numel: int) -> float | None:
    counts = [m.zeros for m in moments]
    return None if not counts or not numel or None in counts else sum(filter(None, counts)) / numel


def _pair(values: Iterable[float | None]) -> str:
    """Of exp_avg, and of exp_avg_sq."""
    texts = list(map(share, values))
    return "-" if set(texts) == {"-"} else ", ".join(texts)


def _row(line: Line) -> list[str]:
    first, numel = line[0], sum(one.numel for one in line)
    steps = sorted({one.step for one in line if one.step is not None})
    moments = [[one.moments[name] for one in line if name in one.moments] for name in MOMENTS]
    used = [[m.codes_used for m in found if m.codes_used is not None] for found in moments]
    nonfinite = sum(one.nonfinite for one in line)
    return [
        str(len(line)) if len(line) > 1 else "-",
        size(sum(one.bytes for one in line)),
        "-" if not steps else f"{steps[0]:.0f}" + (f" to {steps[-1]:.0f}" if len(steps) > 1 else ""),
        "refused" if first.refused else first.format or "no state",
        str(first.master_weight_bits or "-"),
        *map(_scales, moments),
        _pair(_zero(found, numel) for found in moments),
        _pair(min(shares, default=None) for shares in used),
        f"{nonfinite:,}" if nonfinite else "-",
        "-" if first.shape is None else "x".join(map(str, first.shape)) or "scalar",
        _title(line),
    ]


def print_lines(found: Sequence[Line]) -> None:
    """The table. Columns that say nothing here are left out."""
    rows = [_row(line) for line in found]
    empty = [number for number in MAY_MISS if all(row[number] == "-" for row in rows)]
    kept = [number for number in range(len(HEADINGS)) if number not in empty]
    left = [place for place, number in enumerate(kept) if number in LEFT]
    print_table([HEADINGS[number] for number in kept], [[row[number] for number in kept] for row in rows], left)
    print("Two shares are of exp_avg and of exp_avg_sq: exact zeros, and how many of the 256 codes are used.")
