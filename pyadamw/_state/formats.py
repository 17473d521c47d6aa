"""Owns the parts of the optimizer state of one parameter: keys, shapes and dtypes, and making it.

Must not know of parameter groups, checkpoints or steps. Elements are in the logical order of the parameter. PARTS lists
all tensors of state beside `step`; whoever needs a key, a shape or the places of numbers takes them from there.

A moment of 32-bit state has the key `exp_avg`, as in torch. A moment of 8-bit state has the keys `exp_avg_codes` and
`exp_avg_absmax`, and a second moment also `exp_avg_sq_floor` (adamw.h, adamw_state_format). Codes never have torch's
keys: so a tool that knows only those fails, and does not read codes as numbers. A moment of 16-bit state consists of
numbers, and has torch's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from .._native import cdef
from .._native.layout import absmax_shape, kind
from .._native.master_weights import REMAINDER_DTYPES
from .._native.pager import home
from ..paging import PageManager
from .damage import check_floors, check_moment, check_scales

# The moments, and which codes of the library each has.
CODING = {"exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "max_exp_avg_sq": "exp_avg_sq"}
HISTORY = "gnorm_history"
REMAINDER = "param_remainder"  # what a bfloat16 parameter lacks of its master weight


class Spec(NamedTuple):
    """The kind of state that a parameter needs."""

    shape: torch.Size
    device: torch.device
    format: int  # adamw_state_format
    amsgrad: bool
    clipping: bool  # percentile clipping: there is a history of gradient norms
    pages: PageManager | None  # None: it is not paged
    block_dim: int | None = None  # of the whole parameter, if this is a part of it; None: this is the whole
    remainder_bits: int = 0  # of a master weight, beside the parameter; 0: there are no master weights

    def moments(self) -> tuple[str, ...]:
        return tuple(CODING) if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def absmax_shape(self) -> tuple[int, ...]:
        return absmax_shape(self.shape, kind(self.format).block_wise, self.block_dim)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Any:
        if self.pages is not None:
            return self.pages.pager(self.device).zeros(shape, dtype)
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def is_home(self, tensor: torch.Tensor) -> bool:
        """Whether the memory of `tensor` is where the state of this parameter belongs."""
        pager = home(tensor)[0]
        if self.pages is None or is_shared(tensor):  # shared memory stays where it is
            return pager is None and tensor.device == self.device
        return pager is self.pages.pager(self.device)

    def workplace(self) -> Any:
        """The device that converts state: paged state must not pass through the memory of a CUDA device."""
        return self.device if self.pages is None else torch.device("cpu")


# ---- the parts -------------------------------------------------------------------------------------------------------


def by_element(spec: Spec) -> tuple[int, ...]:
    return tuple(spec.shape)


def by_block(spec: Spec) -> tuple[int, ...]:
    return spec.absmax_shape()


def by_step(_spec: Spec) -> tuple[int, ...]:
    return (cdef.GNORM_HISTORY,)


def of_numbers(spec: Spec) -> torch.dtype:
    return kind(spec.format).dtype


def of_remainders(spec: Spec) -> torch.dtype:
    return REMAINDER_DTYPES[spec.remainder_bits]


def always(dtype: torch.dtype) -> Callable[[Spec], torch.dtype]:
    return lambda _spec: dtype


class Part(NamedTuple):
    """A tensor of state. All zeros are its value before the first step."""

    key: str
    shape: Callable[[Spec], tuple[int, ...]]  # one of by_...() above
    dtype: Callable[[Spec], torch.dtype]  # likewise
    check: Callable[[torch.Tensor, str], None]  # refuses numbers that no step can produce, for state from elsewhere
    moment: str = ""  # that it belongs to; "": to none
    role: str = ""  # in a Quantized, for a part of 8-bit state; "": it is the moment itself, as numbers
    wanted: Callable[[Spec], bool] = lambda _spec: True  # of a part without a moment: whether a step needs it
    paged: bool = True  # whether it is in pages if the parameter's state is paged

    @property
    def column(self) -> str:
        """The field of adamw_tensor that points to it."""
        return self.moment if self.role == "codes" else self.key

    def placing(self, spec: Spec) -> Spec:
        """`spec`, as far as it says where this part belongs."""
        return spec if self.paged else spec._replace(pages=None)


def _anything(_values: torch.Tensor, _where: str) -> None:
    """Every byte is a code, and every integer a remainder."""


def _parts_of_moment(moment: str) -> list[Part]:
    squared = CODING[moment] == "exp_avg_sq"
    parts = [
        Part(moment, by_element, of_numbers, lambda values, where: check_moment(values, where, not squared), moment),
        Part(f"{moment}_codes", by_element, always(torch.uint8), _anything, moment, "codes"),
        Part(f"{moment}_absmax", by_block, always(torch.float32), check_scales, moment, "absmax"),
    ]
    if squared:
        parts.append(Part(f"{moment}_floor", by_block, always(torch.float32), check_floors, moment, "floor"))
    return parts


PARTS = {
    part.key: part
    for part in (
        *(part for moment in CODING for part in _parts_of_moment(moment)),
        # Before its first step it is zeros: the step then fills all entries with its squared norm.
        Part(HISTORY, by_step, always(torch.float32), check_scales, wanted=lambda spec: spec.clipping, paged=False),
        Part(REMAINDER, by_element, of_remainders, _anything, wanted=lambda spec: spec.remainder_bits > 0),
    )
}
BY_ELEMENT = {key for key, part in PARTS.items() if part.shape is by_element}
BY_BLOCK = {key for key, part in PARTS.items() if part.shape is by_block}
KEYS = {"step", *PARTS}


def columns() -> dict[str, list[str]]:
    """For each field of adamw_tensor that points to state, the keys of which a state has at most one."""
    found: dict[str, list[str]] = {}
    for part in PARTS.values():
        found.setdefault(part.column, []).append(part.key)
    return found


def parts_of(moment: str, state_format: int) -> list[Part]:
    """The parts that a moment has in a state format, in the order of Quantized."""
    coded = kind(state_format).coded
    return [part for part in PARTS.values() if part.moment == moment and bool(part.role) == coded]


def codes_of(moment: str) -> str:
    return f"{moment}_codes"


def absmax_of(moment: str) -> str:
    return f"{moment}_absmax"


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether other processes may use the same host memory. (torch calls every GPU tensor shared.)"""
    return tensor.device.type == "cpu" and tensor.is_shared()


def zeros(part: Part, spec: Spec) -> Any:
    return part.placing(spec).zeros(part.shape(spec), part.dtype(spec))


def wanted(spec: Spec) -> list[Part]:
    """The parts of this kind of state, without `step`, in the order in which they are made."""
    parts = [part for moment in spec.moments() for part in parts_of(moment, spec.format)]
    return parts + [part for part in PARTS.values() if not part.moment and part.wanted(spec)]


def fresh(spec: Spec) -> dict[str, Any]:
    """The state before the first step, without `step`: zeros."""
    return {part.key: zeros(part, spec) for part in wanted(spec)}
