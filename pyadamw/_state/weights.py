"""Owns the weights of one parameter as float32 numbers: reading them, and taking them over into parameter and state.
Must not know of models, names or steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .._native.master_weights import join, split
from .._native.memory import plain
from . import formats
from .conform import placed
from .load import Target
from .sharding import inner, is_sharded, own_part, placed_as, stepped_part
from .spec import describe, state_spec, stepped_view, wrapped_state


def _remainder(param: Any, state: Any) -> torch.Tensor | None:
    """This process's part of the remainders of a parameter; None if it has no master weights."""
    found, local = state.get(formats.REMAINDER), inner(param)
    if found is None or local.dtype != torch.bfloat16:
        return None
    part = inner(found).detach().to(local.device)
    if is_sharded(param) and not is_sharded(found):  # it is gathered for each step, and its state is whole
        part = own_part(part, param)
    return part


def float32_weights(param: Any, state: Any) -> torch.Tensor:
    """The weights of a parameter as float32, in new memory, placed like the parameter: its master weights if its state
    has remainders."""
    local, remainder = plain(inner(param).detach()), _remainder(param, state)
    weights = local.to(torch.float32, copy=True) if remainder is None else join(local, remainder)
    return placed_as(weights, param)


class TakeOver(NamedTuple):
    """What has been made to give one parameter float32 weights; nothing is written before write()."""

    param: torch.Tensor
    values: torch.Tensor  # for the parameter, placed like it
    remainder: torch.Tensor  # for the state
    old: torch.Tensor | None  # the remainders that it is copied into, if the state has some of the same form
    state: dict[str, Any] | None  # the whole state with the remainders, if the parameter had none

    def write(self, target: Target) -> None:
        """Writes the state, not the parameter."""
        target.overrides.take(self.param, self.state is None)
        if self.state is not None:
            target.states[self.param] = self.state
        elif self.old is not None:
            inner(self.old).detach().copy_(inner(self.remainder))
        else:
            target.states[self.param][formats.REMAINDER] = self.remainder


def _have_one_form(old: Any, new: torch.Tensor) -> bool:
    return isinstance(old, torch.Tensor) and inner(old).dtype == new.dtype and inner(old).shape == new.shape


def take_over(target: Target, number: int, position: int, weights: torch.Tensor) -> TakeOver | None:
    """Splits float32 weights, sharded or whole, for a parameter of `target`; None if it keeps no master weights."""
    group = target.groups[number]
    param: Any = group["params"][position]
    state, device = target.states.get(param), inner(param).device
    options = target.overrides.applied(group, param, bool(state))
    local = stepped_view(param, options, describe(target.groups, number, position))
    spec = state_spec(local, options, target.pages)
    if not spec.remainder_bits:
        return None
    weights = weights if is_sharded(weights) else weights.to(device)
    parts = split(stepped_part(weights, param, local.whole), spec.remainder_bits)
    values = placed_as(own_part(parts.param, param) if local.whole else parts.param, param)
    if not state:
        fresh = {"step": torch.tensor(0.0, dtype=torch.float32, device="cpu"), **formats.fresh(spec)}
        fresh[formats.REMAINDER].copy_(parts.remainder)
        fresh = wrapped_state(fresh, param, local)
        return TakeOver(param, values, fresh[formats.REMAINDER], None, fresh)
    old = state.get(formats.REMAINDER)
    if is_sharded(old) == (is_sharded(param) and not local.whole) and _have_one_form(old, parts.remainder):
        return TakeOver(param, values, parts.remainder, old, None)
    remainder = placed(parts.remainder, parts.remainder.dtype, spec)
    made = wrapped_state({formats.REMAINDER: remainder}, param, local)
    return TakeOver(param, values, made[formats.REMAINDER], None, None)
