"""Owns reading the 8-bit state of earlier versions of this package, formats 1 and 2. Must not know of groups or steps.

Their codes are those of dynamic maps, in the blocks of today's state. The codes of second moments stand for square
roots. Format 1 had codes under torch's keys, and its scales had other shapes.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .._native.constants import BLOCK8
from .._native.layout import block_dim
from . import formats
from .conform import at_work, check_form, stored_format
from .damage import check_not_negative
from .dynamic_maps import BLOCK, decoded, dynamic_map
from .marks import FORMAT, format_of, without_marks


def renamed(state: Any, spec: formats.Spec, number: int, where: str) -> tuple[Any, int]:
    """A state, from a group with this format number, with today's keys and shapes and without marks; and the format of
    its codes. The state stays as it is where it is of today."""
    found = format_of(state, number, where)
    state = without_marks(state, where)
    old = [moment for moment in formats.CODING if _is_codes(state.get(moment)) and formats.absmax_of(moment) in state]
    if not old:
        return state, found
    new = {formats.codes_of(moment): state[moment] for moment in old}
    result = {key: value for key, value in state.items() if key not in old} | new
    shape = spec._replace(format=BLOCK8).absmax_shape()
    for key in map(formats.absmax_of, old):
        scales = result[key]
        if isinstance(scales, torch.Tensor) and scales.numel() == math.prod(shape):
            result[key] = scales.reshape(shape)
    return result, 1


def _is_codes(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8


def in_numbers(state: Any, found: int, spec: formats.Spec, where: str) -> Any:
    """A renamed() state with codes of format `found`, with float32 numbers for codes that are not of today.

    A ValueError names `where`, the key and the fault.
    """
    if found == FORMAT:
        return state
    result = dict(state)
    for moment in formats.CODING:
        if formats.codes_of(moment) not in state:
            continue
        if moment not in state:  # as in conform(), torch's keys win
            result[moment] = _numbers(state, moment, spec, where)
        for part in formats.PARTS.values():
            # A floor can be there if torch.distributed.checkpoint was told to leave what a checkpoint does not have.
            if part.moment == moment and part.role:
                result.pop(part.key, None)
    return result


def _numbers(state: Any, moment: str, spec: formats.Spec, where: str) -> torch.Tensor:
    source = spec._replace(format=stored_format(state, moment, spec._replace(format=BLOCK8), where))
    codes, absmax = (formats.PARTS[key] for key in (formats.codes_of(moment), formats.absmax_of(moment)))
    check_form(state, codes, source, where)
    check_form(state, absmax, source, where)
    squared = moment != "exp_avg"
    scales = at_work(state, absmax, spec)
    if not (scales.square() if squared else scales).isfinite().all():
        raise ValueError(f"{where}: {absmax.key} is not finite: the state is damaged")
    check_not_negative(scales, f"{where}: {absmax.key}")
    dim = block_dim(spec.shape) if spec.block_dim is None else spec.block_dim
    numbers = decoded(at_work(state, codes, spec), scales, dynamic_map(not squared), BLOCK, dim)
    return numbers.square_() if squared else numbers
