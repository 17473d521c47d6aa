"""Owns finding the parts of a step: one checked Row for each parameter with a gradient or state, sorted into buckets
that one C call can step. Creates missing state. Must not know how often steps happen, or how fast they are.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .._native.constants import DTYPES
from .._native.library import dtype_number, library
from .._native.memory import lies_plainly
from .._native.torch_private import belongs_to_fsdp1
from .._state import formats
from .._state.conform import conform, step_count
from .._state.marks import without_marks
from .._state.sharding import Local, inner, local_gradient, unwrapped
from .._state.spec import describe, state_spec, stepped_view, wrapped_state


class Row(NamedTuple):
    """The knowledge about a parameter from step to step. It holds no tensor: what the user releases is free at once."""

    index: int  # type: ignore[assignment]  # of its parameter among those of all groups
    group: int  # index of its parameter group
    position: int  # its place in the group
    local: Local
    plain: bool  # the library can step it in place; else it is copied for the step
    grad_dtype: torch.dtype
    spec: formats.Spec
    own: dict  # options of this parameter, which win over the group's

    def bucket(self) -> Any:
        """The properties that all rows of one call share."""
        own, local, spec = repr(sorted(self.own.items())), self.local, self.spec
        dtypes = DTYPES[local.dtype], DTYPES[self.grad_dtype]
        return (self.group, own, str(local.device), *dtypes, spec.format, spec.remainder_bits, local.whole)


def _check_param(local: Any, tensor: torch.Tensor, what: str) -> None:
    dtype_number(local.dtype, what)
    library().device_number(local.device, what)
    if tensor.layout != torch.strided:
        raise ValueError(f"{what} is sparse: parameters must be dense")
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise ValueError(f"{what} is expanded: several of its elements share one memory location")


def _check_not_fsdp1(param: torch.Tensor, options: Any, what: str) -> None:
    # By the options alone: all processes refuse, also those that have only a small part of the parameter.
    has_masters = options["master_weight_bits"] is not None and param.dtype == torch.bfloat16
    if (options["optim_bits"] == 8 or has_masters) and belongs_to_fsdp1(param):
        what_not = "8-bit state" if options["optim_bits"] == 8 else "master weights"
        instead = "AdamW32bit or optim_bits=32" if options["optim_bits"] == 8 else "master_weight_bits=None"
        raise ValueError(
            f"{what} belongs to FullyShardedDataParallel (FSDP1), which cannot save {what_not}: shard the model with "
            f"fully_shard (FSDP2), or use {instead}"
        )


def _check_grad(grad: Any, local: Any, what: str) -> None:
    if grad.layout != torch.strided:
        raise RuntimeError(
            f"{what} has a sparse gradient: AdamW does not support sparse gradients (pass sparse=False to an embedding)"
        )
    if grad.shape != local.shape:
        raise ValueError(f"{what} has a gradient of shape {tuple(grad.shape)}: must have the shape of the parameter")
    if grad.device != local.device:
        raise ValueError(f"{what} is on {local.device}, but its gradient is on {grad.device}")
    dtype_number(grad.dtype, f"the gradient of {what}")


def collect(groups: Any, states: Any, grad_dtypes: Any, pages: Any, overrides: Any) -> Any:
    """The rows of all groups, in bucket order, and the indices of parameters that have neither a gradient nor state.

    Checks everything first, then creates or converts state in `states` {parameter: state}. So an error changes nothing.

    `grad_dtypes`: {id of parameter: dtype} for parameters that have state but no gradient now. `pages`: the page
    manager for groups that name none. `overrides`: the options of single parameters.
    """
    everyone = [
        (number, position, param)
        for number, group in enumerate(groups)
        for position, param in enumerate(group["params"])
    ]
    rows, waiting, seen = [], [], set()
    for index, (number, position, param) in enumerate(everyone):
        if param.grad is None and not states.get(param):
            waiting.append(index)
            continue
        what = describe(groups, number, position)
        if id(param) in seen:
            raise ValueError(f"{what} appears more than once in the parameter groups")
        seen.add(id(param))
        own = overrides.take(param, bool(states.get(param)))
        options = {**groups[number], **own}
        _check_not_fsdp1(param, options, what)
        local = stepped_view(param, options, what)
        _check_param(local, inner(param), what)
        if param.grad is not None:
            grad = param.grad if local.whole else local_gradient(param.grad, param)
            _check_grad(grad, local, what)
            grad_dtype = grad.dtype
        else:
            grad_dtype = grad_dtypes.get(id(param), local.dtype)
        spec = state_spec(local, options, pages)
        plain = not local.whole and lies_plainly(inner(param))
        rows.append(Row(index, number, position, local, plain, grad_dtype, spec, own))
    prepared = [_prepared(row, everyone[row.index][2], states, groups) for row in rows]
    for row, state in zip(rows, prepared, strict=True):
        if state is not None:
            current = states.setdefault(everyone[row.index][2], {})
            # The update comes first: an interrupt then leaves numbers beside codes, and both have the same values.
            current.update(state)
            for key in current.keys() - state.keys():
                del current[key]
    rows.sort(key=Row.bucket)
    return rows, waiting


def _prepared(row: Any, param: torch.Tensor, states: Any, groups: Any) -> Any:
    """The state that the row needs; None if `states` holds it already."""
    state = states.get(param)
    if not state:
        fresh = {"step": torch.tensor(0.0, dtype=torch.float32, device="cpu"), **formats.fresh(row.spec)}
        return wrapped_state(fresh, param, row.local)
    what = describe(groups, row.group, row.position)
    state = unwrapped(state, param, row.local.whole)
    valid = conform(without_marks(state, what), row.spec, what)
    step = state.get("step", 0.0)
    count = step_count(step, what)
    if not _is_count(step):
        valid["step"] = torch.tensor(count, dtype=torch.float32, device="cpu")
    if all(state.get(key) is value for key, value in valid.items()) and not _leftover(state, valid):
        return None
    kept = {key: value for key, value in state.items() if key not in formats.KEYS or key == "step"}
    return wrapped_state({**kept, **valid}, param, row.local)


def _is_count(step: Any) -> bool:
    """Whether a step count can stay where it is."""
    if not isinstance(step, torch.Tensor) or step.dtype != torch.float32 or math.prod(step.shape) != 1:
        return False
    return lies_plainly(step) and not step.requires_grad


def _leftover(state: Any, valid: Any) -> Any:
    """Whether the state has keys that must go, such as codes of a moment that is stored as numbers now."""
    return any(key in state and key not in valid for key in formats.PARTS)
