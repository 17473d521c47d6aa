"""Owns the consequences of a parameter's options: which part of it this process steps, the kind of its state, and its
name in messages. Must not know whether state exists, how it is made, or what a step does with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .._native.constants import BLOCK8, FLOAT32, FORMAT_OF_BITS, TENSOR8
from .._native.memory import is_lazy
from ..paging import PageManager, manager_of
from .formats import BY_BLOCK, BY_ELEMENT, Spec
from .sharding import Local, local_view, wrapped

# The options of a group that decide about the kind of its state.
STRUCTURE = (
    "optim_bits",
    "min_8bit_size",
    "block_wise",
    "master_weight_bits",
    "is_paged",
    "page_manager",
    "amsgrad",
    "percentile_clipping",
    "max_unorm",
    "stochastic_rounding",
    "capturable",
)


# The key of (group, position) in a group that stands for one parameter of another group, with its names and options.
PLACE = object()


def describe(groups: Sequence[Mapping[Any, Any]], group: int, position: int) -> str:
    """The name of a parameter in messages: its name in the group if it has one, else its position."""
    options = groups[group]
    param = options["params"][position]
    group, position = options.get(PLACE, (group, position))
    shape = "not initialized yet" if is_lazy(param) else f"shape {tuple(param.shape)}"
    if "param_names" in options and position < len(options["param_names"]):
        return f"parameter {options['param_names'][position]!r} ({shape})"
    return f"parameter {position} of group {group} ({shape})"


def _is_eight_bit(numel: int, group: Mapping[str, Any]) -> bool:
    return group["optim_bits"] == 8 and numel >= group["min_8bit_size"]


def _remainder_bits(dtype: torch.dtype, group: Mapping[str, Any]) -> int:
    """How many bits the master weight of a parameter of this dtype has beside the parameter, with these options."""
    bits = group["master_weight_bits"]
    if bits is not None and dtype == torch.float16:
        raise ValueError(
            f"it is float16, but master_weight_bits = {bits}: a master weight consists of a bfloat16 parameter, which "
            "is the upper half of a float32, and the bits below. Convert the model to bfloat16, or pass "
            "master_weight_bits=None for this parameter"
        )
    return bits - 16 if bits is not None and dtype == torch.bfloat16 else 0


def stepped_view(param: torch.Tensor, group: Mapping[str, Any], what: str) -> Local:
    """The part of `param` that this process steps, with these options.

    A ValueError, which begins with `what`, if the parameter cannot be stepped, or not with these options.
    """
    try:
        return _stepped_view(param, group)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _stepped_view(param: torch.Tensor, group: Mapping[str, Any]) -> Local:
    remainder_bits = _remainder_bits(param.dtype, group)
    needs_norm = "percentile_clipping" if group["percentile_clipping"] < 100 else ""
    needs_norm = needs_norm or ("max_unorm" if group["max_unorm"] > 0 else "")
    # What a step rounds stochastically, by the index of each element: parameters, master weights, moments.
    rounds_param = group["stochastic_rounding"] and param.dtype != torch.float32 and not remainder_bits
    by_index = rounds_param or remainder_bits == 8 or group["optim_bits"] == 16
    return local_view(param, _is_eight_bit(param.numel(), group), group["block_wise"], needs_norm, by_index)


def state_spec(local: Local, group: Mapping[str, Any], pages: PageManager) -> Spec:
    """The kind of state that these options (of the group and of the parameter) demand for a stepped_view().

    `pages`: the page manager if the options name none.
    """
    if _is_eight_bit(local.numel, group):
        state_format = BLOCK8 if group["block_wise"] else TENSOR8
    else:
        state_format = FORMAT_OF_BITS.get(group["optim_bits"], FLOAT32)  # of 8, for small tensors: FLOAT32
    return Spec(
        local.shape,
        local.device,
        state_format,
        group["amsgrad"],
        group["percentile_clipping"] < 100,
        manager_of(group, local.numel, pages),
        local.block_dim,
        _remainder_bits(local.dtype, group),
    )


def wrapped_state(state: dict[str, Any], param: torch.Tensor, local: Local) -> dict[str, Any]:
    """The state of a stepped_view(), with DTensors if `param` is one."""
    return wrapped(state, param, local, BY_ELEMENT, BY_BLOCK)
