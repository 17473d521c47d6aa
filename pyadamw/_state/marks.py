"""Owns the number of the format of a state dict, and the marks that carry it where the number is lost. Must not know
what the formats are.

Formats: 1 had codes of dynamic maps under torch's keys; 2 gave the codes keys of their own; since 3, the codes are root
codes, and second moments have floors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._checks import is_integer, shown
from .formats import CODING, KEYS, codes_of

FORMAT_KEY, FORMAT = "pyadamw_format", 3  # in each group of a state dict; a later format has a higher number

# In the state dict of 8-bit state, this number is under torch's keys. If torch.distributed.checkpoint should read it as
# 32-bit state, it leaves the number as it is, and loading can report that. No tool can take it for a tensor. It also
# says which format the codes beside it have: a flat checkpoint does not have the groups' number. (Format 2 wrote 8.)
MARK = FORMAT
_FORMAT_OF_MARK = {8: 2, MARK: FORMAT}


def check_format(groups: Any) -> None:
    """Refuses groups that were written by a later version."""
    for number, group in enumerate(groups):
        found = group.get(FORMAT_KEY, FORMAT)
        if not is_integer(found) or found < 1:
            raise ValueError(
                f"group {number}: {FORMAT_KEY} = {shown(found)}: must be a whole number from 1 to {FORMAT}"
            )
        if found > FORMAT:
            raise ValueError(f"group {number}: the state has format {shown(found)}, {_LATER}")


_LATER = (
    f"from a later pyadamw; this one reads formats up to {FORMAT}: update pyadamw, or run `python -m pyadamw convert "
    "IN OUT --to torch` on the machine that wrote the state"
)


def marked(state: Any) -> Any:
    """The state with marks beside its codes, for a state dict."""
    return {**state, **{moment: MARK for moment in CODING if codes_of(moment) in state}}


def _marks(state: Any) -> dict[str, int]:
    return {moment: state[moment] for moment in CODING if isinstance(state.get(moment), int)}


def format_of(state: Any, number: int, where: str) -> int:
    """The format of the codes in the state of a parameter. `number`: the one that its group has."""
    marks = _marks(state)
    found = {_FORMAT_OF_MARK.get(mark) for mark in marks.values()} or {number}
    if None in found or len(found) > 1:
        said = " and ".join(f"{moment} = {shown(mark)}" for moment, mark in marks.items())
        raise ValueError(f"{where}: {said}: the state is damaged, or {_LATER}")
    return found.pop() or number


def without_marks(state: Any, where: str) -> Any:
    """The state without the marks of marked(). Refuses a state that has only the mark of a moment."""
    if not isinstance(state, Mapping):
        return state
    marks = _marks(state)
    for moment in marks:
        if codes_of(moment) not in state:
            raise ValueError(
                f"{where}: the state was saved in 8 bits, but has no {codes_of(moment)}. torch.distributed.checkpoint "
                "reads only keys that the optimizer has, and this optimizer may keep 32-bit state here. Load the "
                "checkpoint into an optimizer of the class and options (min_8bit_size, overrides) that saved it. Then "
                "pass the state_dict() of that optimizer to load_state_dict() of this one, which converts"
            )
    # torch.distributed.checkpoint gives {} for keys that it did not find in a flat checkpoint.
    missing = [key for key in KEYS if isinstance(state.get(key), dict) and not state[key]]
    return {key: value for key, value in state.items() if key not in (*marks, *missing)}
