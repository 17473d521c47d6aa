"""Owns finding out what a step consists of: one checked Row per parameter that has a gradient or state, sorted into the
buckets that one C call can take. Creates missing state. Must not know how often a step is taken, or how fast.
"""

from typing import NamedTuple

import torch
from torch.nn.parameter import is_lazy

from . import _state
from ._library import DTYPES, dtype_number, library
from ._local import (
    Local,
    belongs_to_fsdp1,
    fits_shard,
    is_sharded,
    local_gradient,
    local_view,
    unwrapped,
    whole_view,
    wrapped,
)
from ._paging import manager_of
from .functional import BLOCK8, TENSOR8

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


class Row(NamedTuple):
    param: torch.Tensor
    group: int  # index of its parameter group
    position: int  # its place in the group
    local: Local
    grad_dtype: torch.dtype
    spec: _state.Spec
    own: dict  # options of its own, which win over the group's

    def bucket(self):
        """What rows of one call have in common."""
        tensor, own = self.local.tensor, repr(sorted(self.own.items()))
        return (self.group, own, str(tensor.device), DTYPES[tensor.dtype], DTYPES[self.grad_dtype], self.spec.format)


def describe(groups, group, position):
    """A parameter, by its name where it has one."""
    options = groups[group]
    param = options["params"][position]
    shape = "not initialized yet" if is_lazy(param) else f"shape {tuple(param.shape)}"
    if "param_names" in options and position < len(options["param_names"]):
        return f"parameter {options['param_names'][position]!r} ({shape})"
    return f"parameter {position} of group {group} ({shape})"


def _is_eight_bit(local, group):
    return group["optim_bits"] == 8 and local.numel >= group["min_8bit_size"]


def stepped_view(param, group):
    """What of `param` is stepped in this process, with these options."""
    local = local_view(param)
    if not is_sharded(param):
        return local
    of_the_whole = group["percentile_clipping"] < 100 or group["max_unorm"] > 0
    by_index = group["stochastic_rounding"] and local.tensor.dtype != torch.float32
    fits = fits_shard(param, _is_eight_bit(local, group), group["block_wise"], of_the_whole, by_index)
    return local if fits else whole_view(param, local)


def state_spec(local, group, pages):
    """What the state of a stepped_view() is to be, as its options say (of its group, and of its own). `pages`: the page
    manager where they name none."""
    if _is_eight_bit(local, group):
        state_format = BLOCK8 if group["block_wise"] else TENSOR8
    else:
        state_format = _state.FLOAT32
    return _state.Spec(
        local.shape,
        local.tensor.device,
        state_format,
        group["amsgrad"],
        group["percentile_clipping"] < 100,
        manager_of(group, local.numel, pages),
    )


def _check_param(tensor, what):
    dtype_number(tensor.dtype, what)
    library().device_number(tensor.device, what)
    if tensor.layout != torch.strided:
        raise ValueError(f"{what} is sparse: parameters must be dense")
    if any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)):
        raise ValueError(f"{what} is expanded: several of its elements share one memory location")


def _check_not_fsdp1(param, options, what):
    # By the options alone: all processes refuse, also those that have only a small part of the parameter.
    if options["optim_bits"] == 8 and belongs_to_fsdp1(param):
        raise ValueError(
            f"{what} belongs to FullyShardedDataParallel (FSDP1), which cannot save 8-bit state: shard the model with "
            "fully_shard (FSDP2), or take AdamW32bit or optim_bits=32"
        )


def _check_grad(grad, tensor, shape, what):
    if grad.layout != torch.strided:
        raise RuntimeError(
            f"{what} has a sparse gradient: AdamW does not support sparse gradients (pass sparse=False to an embedding)"
        )
    if grad.shape != shape:
        raise ValueError(f"{what} has a gradient of shape {tuple(grad.shape)}: must be that of the parameter")
    if grad.device != tensor.device:
        raise ValueError(f"{what} is on {tensor.device}, but its gradient on {grad.device}")
    dtype_number(grad.dtype, f"the gradient of {what}")


def collect(groups, states, grad_dtypes, pages, overrides):
    """The rows of all groups, in bucket order, and the parameters that have neither a gradient nor state.

    Checks everything first, then creates or converts state in `states` {parameter: state}, so that an error leaves all
    as it was. `grad_dtypes` {id of parameter: dtype} are used for parameters that have state but no gradient now;
    `pages` is the page manager of groups that name none, `overrides` has the options of single parameters.
    """
    rows, waiting, seen = [], [], set()
    overrides.keep_only([*states, *(param for group in groups for param in group["params"])])
    for number, group in enumerate(groups):
        for position, param in enumerate(group["params"]):
            if param.grad is None and not states.get(param):
                waiting.append(param)
                continue
            what = describe(groups, number, position)
            if id(param) in seen:
                raise ValueError(f"{what} is there twice: a parameter can be stepped once a step")
            seen.add(id(param))
            own = overrides.take(param, bool(states.get(param)))
            options = {**group, **own} if own else group
            _check_not_fsdp1(param, options, what)
            local = _named(what, stepped_view, param, options)
            _check_param(local.tensor, what)
            if param.grad is not None:
                grad = param.grad if local.whole else local_gradient(param.grad, param)
                _check_grad(grad, local.tensor, local.shape, what)
                grad_dtype = grad.dtype
            else:
                grad_dtype = grad_dtypes.get(id(param), local.tensor.dtype)
            rows.append(Row(param, number, position, local, grad_dtype, state_spec(local, options, pages), own))
    prepared = [_prepared(row, states, groups) for row in rows]
    for row, state in zip(rows, prepared, strict=True):
        if state is not None:
            current = states.setdefault(row.param, {})
            current.clear()
            current.update(state)
    rows.sort(key=Row.bucket)
    return rows, waiting


def _named(what, call, *arguments):
    try:
        return call(*arguments)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from None


def _prepared(row, states, groups):
    """The state that the row needs, if it is not what `states` holds already."""
    state = states.get(row.param)
    if not state:
        return {"step": torch.tensor(0.0), **wrapped(_state.fresh(row.spec), row.param, row.local.whole)}
    what = describe(groups, row.group, row.position)
    state = unwrapped(state, row.param, row.local.whole)
    right = _state.conform(state, row.spec, what)
    step = state.get("step", 0.0)
    count = _state.step_count(step, what)
    if not (isinstance(step, torch.Tensor) and step.dtype == torch.float32 and step.shape == ()):
        right["step"] = torch.tensor(count)
    if all(state.get(key) is value for key, value in right.items()):
        return None
    kept = {key: value for key, value in state.items() if key not in _state.KEYS or key == "step"}
    return wrapped({**kept, **right}, row.param, row.local.whole, keep={*kept, "step"})
