"""Owns what the options of a parameter ask for: what of it is stepped in this process, and what its state is to be; and
its name in messages. Must not know whether there is state, how it is made, or what a step does with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .._native.constants import BLOCK8, FLOAT32, TENSOR8
from .._native.memory import is_lazy
from ..paging import PageManager, manager_of
from .formats import BY_BLOCK, BY_ELEMENT, Spec
from .sharding import Local, local_view, wrapped

# The options of a group that decide what its state is made of.
STRUCTURE = (
    "optim_bits",
    "min_8bit_size",
    "block_wise",
    "is_paged",
    "page_manager",
    "amsgrad",
    "percentile_clipping",
    "max_unorm",
    "stochastic_rounding",
    "capturable",
)


def describe(groups: Sequence[Mapping[str, Any]], group: int, position: int) -> str:
    """A parameter, by its name where it has one."""
    options = groups[group]
    param = options["params"][position]
    shape = "not initialized yet" if is_lazy(param) else f"shape {tuple(param.shape)}"
    if "param_names" in options and position < len(options["param_names"]):
        return f"parameter {options['param_names'][position]!r} ({shape})"
    return f"parameter {position} of group {group} ({shape})"


def _is_eight_bit(numel: int, group: Mapping[str, Any]) -> bool:
    return group["optim_bits"] == 8 and numel >= group["min_8bit_size"]


def stepped_view(param: torch.Tensor, group: Mapping[str, Any]) -> Local:
    """What of `param` is stepped in this process, with these options."""
    needs_norm = "percentile_clipping" if group["percentile_clipping"] < 100 else ""
    needs_norm = needs_norm or ("max_unorm" if group["max_unorm"] > 0 else "")
    by_index = group["stochastic_rounding"] and param.dtype != torch.float32
    return local_view(param, _is_eight_bit(param.numel(), group), group["block_wise"], needs_norm, by_index)


def state_spec(local: Local, group: Mapping[str, Any], pages: PageManager) -> Spec:
    """What the state of a stepped_view() is to be, as its options say (of its group, and of its own). `pages`: the page
    manager where they name none."""
    if _is_eight_bit(local.numel, group):
        state_format = BLOCK8 if group["block_wise"] else TENSOR8
    else:
        state_format = FLOAT32
    return Spec(
        local.shape,
        local.device,
        state_format,
        group["amsgrad"],
        group["percentile_clipping"] < 100,
        manager_of(group, local.numel, pages),
        local.block_dim,
    )


def wrapped_state(state: dict[str, Any], param: torch.Tensor, local: Local) -> dict[str, Any]:
    """The state of a stepped_view() with DTensors, where `param` is one."""
    return wrapped(state, param, local, BY_ELEMENT, BY_BLOCK)
