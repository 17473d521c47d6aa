"""Owns what can be counted in the state of one parameter, from any optimizer: scales, zeros, codes, numbers that are
not finite, and whether it can be loaded. Must not know how it is shown, or what is noteworthy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from .._checks import shown
from .._native.constants import FLOAT32
from . import earlier, flashoptim, formats
from .checkpoints import Parameter
from .conform import conform, step_count
from .foreign import shape_of, translated
from .layouts import Layout, layouts, master_weight_bits, tensors
from .marks import FORMAT, FORMAT_KEY, without_marks
from .received import naming

PIECE = 1 << 22  # elements that are counted at once


class Scales(NamedTuple):
    """The scales of the blocks of one moment."""

    blocks: int
    smallest: float | None  # of those that are finite; None: none is
    smallest_above_zero: float | None
    largest: float | None
    zeros: int
    nonfinite: int


class Moment(NamedTuple):
    """One moment of one parameter."""

    format: str
    bits: int  # of an element
    scales: Scales | None  # None: it consists of numbers
    codes: list[int] | None  # how many elements have each of the 256 codes, from the smallest up
    zeros: int | None  # elements that are exactly zero; None: it cannot be decoded
    largest: float | None  # the largest finite magnitude
    nonfinite: int  # numbers that are infinite or NaN, scales and floors among them

    @property
    def codes_used(self) -> float | None:
        """The share of the 256 codes that some element has."""
        return None if self.codes is None else sum(count > 0 for count in self.codes) / 256


class Statistics(NamedTuple):
    """What is in the state of one parameter. Before its first step there is none: moments are {}."""

    key: Any
    name: str | None
    shape: tuple[int, ...] | None
    optimizer: str  # whose form it has; "": there is none
    format: str  # of exp_avg, in words
    bytes: int  # of all tensors but `step`
    step: float | None
    moments: dict[str, Moment]
    master_weight_bits: int | None
    refused: str  # why it cannot be loaded, or not converted; "": it can

    @property
    def title(self) -> str:
        """Its name, or its key. What could control a terminal is escaped: a checkpoint may come from anywhere."""
        name = str(self.key) if self.name is None else self.name
        return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)

    @property
    def numel(self) -> int:
        return 0 if self.shape is None else torch.Size(self.shape).numel()

    @property
    def nonfinite(self) -> int:
        return sum(moment.nonfinite for moment in self.moments.values())


def statistics(parameter: Parameter) -> Statistics:
    """Counts the state of one parameter. It is read here, and is not kept."""
    where = f"parameter {shown(parameter.title)}"
    blank = Statistics(parameter.key, parameter.name, None, "", "", 0, None, {}, None, "")
    entry = parameter.load()
    if entry is None or (isinstance(entry, Mapping) and not entry):
        return blank
    if not isinstance(entry, Mapping):
        return blank._replace(refused=f"{where}: the state is {type(entry).__name__}: must be a dict of tensors")
    if not parameter.listed:
        blank = blank._replace(refused=f"{where}: the state dict has state for it, but none of its groups lists it")
    try:
        with naming(where):
            return _counted(blank, entry, parameter.group, where)
    except ValueError as error:  # nothing can be said of it
        return blank._replace(bytes=_bytes(entry), refused=str(error))


def _bytes(entry: Mapping[str, Any]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors(entry))


def _counted(blank: Statistics, entry: Mapping[str, Any], group: Mapping[str, Any], where: str) -> Statistics:
    for tensor in tensors(entry):
        if (
            tensor.layout == torch.strided
            and tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size()
        ):
            raise ValueError(f"{where}: a tensor of shape {tuple(tensor.shape)} has memory for fewer elements")
    number = group.get(FORMAT_KEY, FORMAT)
    stored = layouts(entry, number)
    if FORMAT_KEY not in group and not any(layout.optimizer == "pyadamw" for layout in stored.values()):
        others = "FlashOptim" if flashoptim.ERROR_BITS in entry or flashoptim.MASTER_BYTES in group else "torch"
        stored = {name: layout._replace(optimizer=layout.optimizer or others) for name, layout in stored.items()}
    refused, numbers, step = blank.refused, {}, None
    try:
        with naming(where):
            step = step_count(entry.get("step"), where)
            numbers = _decoded(entry, number, group, where)
    except ValueError as error:
        refused = refused or str(error)
    first = stored.get("exp_avg") or next(iter(stored.values()), None)
    shape = None
    if first is not None:
        shape = tuple((first.codes if first.codes is not None else first.numbers).shape)  # type: ignore[union-attr]
        if "exp_avg" in numbers:
            shape = tuple(numbers["exp_avg"].shape)  # torchao's codes are flat
    moments = {name: _moment(layout, numbers.get(name)) for name, layout in stored.items()}
    return blank._replace(
        shape=shape,
        optimizer=first.optimizer or "pyadamw" if first is not None else "",
        format=first.name if first is not None else "",
        bytes=_bytes(entry),
        step=step,
        moments=moments,
        master_weight_bits=master_weight_bits(entry, group.get(flashoptim.MASTER_BYTES)),
        refused=refused,
    )


def _decoded(entry: Any, number: int, group: Mapping[str, Any], where: str) -> dict[str, torch.Tensor]:
    """The moments as float32 numbers, checked as in loading; a ValueError says why it would be refused."""
    entry = {key: value for key, value in entry.items() if key != flashoptim.ERROR_BITS}  # needs the parameter
    entry = flashoptim.translated(entry, lambda: None, group, where)
    shape = shape_of(without_marks(entry, where), where)
    spec = formats.Spec(shape, torch.device("cpu"), FLOAT32, False, formats.HISTORY in entry, None)
    entry, found = earlier.renamed(entry, spec, number, where)
    entry = translated(earlier.in_numbers(entry, found, spec, where), shape.numel(), where)
    amsgrad = bool({"max_exp_avg_sq", formats.codes_of("max_exp_avg_sq")} & set(entry))
    if group.get("amsgrad") is True and not amsgrad:
        raise ValueError(f"{where}: the state has no max_exp_avg_sq, although its group has amsgrad=True")
    made = conform(entry, spec._replace(amsgrad=amsgrad), where, received=True)
    return {moment: made[moment] for moment in formats.CODING if moment in made}


# ---- counting --------------------------------------------------------------------------------------------------------


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), PIECE):
        yield flat[start : start + PIECE]


def _moment(stored: Layout, numbers: torch.Tensor | None) -> Moment:
    scales = None if stored.scales is None or not stored.scales.is_floating_point() else _scales(stored.scales)
    values = stored.numbers if numbers is None and stored.numbers is not None else numbers
    zeros: int | None = None
    largest, nonfinite = None, 0 if scales is None else scales.nonfinite
    if values is not None and not values.is_complex():
        zeros = 0
        for piece in _pieces(values):
            zeros += piece.numel() - int(piece.count_nonzero())
            ends = piece.aminmax()
            if not (ends.min.isfinite() and ends.max.isfinite()):  # a NaN is both ends; this is rare, and takes longer
                finite = piece[piece.isfinite()]
                nonfinite += piece.numel() - finite.numel()
                if not finite.numel():
                    continue
                ends = finite.aminmax()
            largest = max(largest or 0.0, -float(ends.min), float(ends.max))
    if stored.floors is not None:
        nonfinite += stored.floors.numel() - int(stored.floors.isfinite().sum())
    codes = None if stored.codes is None else _histogram(stored.codes)
    return Moment(stored.name, stored.bits, scales, codes, zeros, largest, nonfinite)


def _scales(scales: torch.Tensor) -> Scales:
    values = scales.detach().reshape(-1).to(torch.float32)
    finite = values[values.isfinite()]
    above = finite[finite > 0]
    return Scales(
        values.numel(),
        float(finite.min()) if finite.numel() else None,
        float(above.min()) if above.numel() else None,
        float(finite.max()) if finite.numel() else None,
        int((finite == 0).sum()),
        values.numel() - finite.numel(),
    )


def _histogram(codes: torch.Tensor) -> list[int]:
    counts = torch.zeros(256, dtype=torch.int64, device="cpu")
    for piece in _pieces(codes):
        lifted = piece if piece.dtype == torch.uint8 else piece.to(torch.int16) + 128
        counts += torch.bincount(lifted, minlength=256)
    return counts.tolist()
