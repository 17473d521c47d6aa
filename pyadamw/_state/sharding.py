"""Owns the part of a parameter in this process: the local tensor, its place in the global one, and conversions between
local tensors and DTensors. Must not know what state is made of.

A sharded parameter (DTensor) is stepped in one of two ways:

- Each process steps its shard. This works if the state of the shard is the shard of the state: for 32-bit state, and
  for 8-bit state whose blocks end where shards end.
- Every process steps the whole tensor. Parameter and gradient are gathered for the step, and each process keeps its
  part of the parameter. The state is whole in every process. This is for tensors whose shards cut blocks (mostly biases
  and norms), and for options that need a norm of the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .._native.cdef import BLOCK_SIZE, SHORTEST_BLOCK_ROW
from .._native.layout import absmax_shape, block_dim, follows_rows, row_length
from .._native.memory import plain
from .._native.torch_private import dtensors, local_tensor
from .cuts import Cuts


class Local(NamedTuple):
    """The part of a parameter that this process steps, without the tensor itself, which inner() returns."""

    dtype: torch.dtype
    device: torch.device
    numel: int  # elements of the global tensor: decides between 8 and 32 bits
    row_length: int  # elements of one row of dimension 0 of the local tensor, as in adamw_tensor.row_length
    global_offset: int  # as in adamw_tensor, and so are the next two
    run_length: int
    run_stride: int
    shape: torch.Size  # of the state
    block_dim: int  # of the global tensor
    gathered: str = ""  # why it is gathered for the step; "": it is not

    @property
    def whole(self) -> bool:
        return bool(self.gathered)


def is_sharded(value: Any) -> bool:
    """Whether it is a DTensor. (Their module is large, and is not imported for this.)"""
    return isinstance(value, torch.Tensor) and hasattr(value, "placements") and hasattr(value, "to_local")


def inner(value: Any) -> torch.Tensor:
    """The tensor of this process: the local part of a DTensor; any other tensor unchanged."""
    return local_tensor(value) if is_sharded(value) else value


def local_view(
    param: Any, eight_bit: Any, block_wise: bool = True, needs_norm: str = "", by_index: bool = False
) -> Local:
    """The part of `param` that this process steps.

    `needs_norm`: the option that needs a norm of the whole tensor; "" if none does. `by_index`: whether the step needs
    the index of each element. ValueError if `param` cannot be stepped at all.
    """
    shape, numel, tensor = param.shape, param.numel(), inner(param)
    dim = block_dim(shape)
    whole = Local(tensor.dtype, tensor.device, numel, row_length(shape), 0, 0, 0, shape, dim)
    if not is_sharded(param):
        return whole
    if any(placement.is_partial() for placement in param.placements):
        raise ValueError(f"its placements are {param.placements}: a Partial DTensor is not supported; reduce it first")
    if all(placement.is_replicate() for placement in param.placements):
        return whole
    local = whole._replace(shape=tensor.shape, row_length=row_length(tensor.shape))
    if needs_norm:
        return whole._replace(gathered=f"{needs_norm} needs a norm of the whole")
    if eight_bit and not block_wise:
        return whole._replace(gathered="block_wise=False needs the largest number of the whole")
    if not (eight_bit or by_index):
        return local
    cuts = Cuts.of(param)
    if cuts is None:
        return whole._replace(gathered=f"shards of {param.placements} are not contiguous parts")
    problem = _cut_blocks(shape, cuts) if eight_bit else ""
    problem = problem or _no_index(shape, cuts, eight_bit)
    if problem:
        return whole._replace(gathered=problem)
    offset = sum(start * math.prod(shape[d + 1 :]) for d, (start, _) in enumerate(cuts.mine))
    local = local._replace(global_offset=offset)
    inmost = max(cuts.dims)
    if inmost == 0 or not tensor.numel():
        return local
    run = math.prod(tensor.shape[inmost:])
    return local._replace(run_length=run, run_stride=math.prod(shape[inmost:]))


def _cut_blocks(shape: Sequence[int], cuts: Any) -> str:
    """The reason, in words, if shards do not end where blocks end; else ""."""
    dim = block_dim(shape)
    for d in (d for d in cuts.dims if d >= dim):
        if d > dim:
            return f"shards of dimension {d} end within blocks of {BLOCK_SIZE}"
        step = math.prod(shape[d + 1 :])
        for (begin, end), scales in zip(cuts.pieces[d], cuts.scaled(d, absmax_shape(shape)[d]), strict=True):
            first, last = begin * step, end * step
            if begin == end:
                continue
            if first % BLOCK_SIZE or (last % BLOCK_SIZE and end != shape[d]):
                return f"shards of dimension {d} end within blocks of {BLOCK_SIZE}"
            if follows_rows(shape) and last - first < SHORTEST_BLOCK_ROW:
                return f"a shard of dimension {d} has rows of {last - first} elements, which are too short for blocks"
            if scales != (first // BLOCK_SIZE, -(-last // BLOCK_SIZE)):
                return f"shards of dimension {d} differ from the shards of its scales"
    return ""


def _no_index(shape: Sequence[int], cuts: Any, eight_bit: Any) -> str:
    """The reason, in words, if the C library has no way to describe the index of each element; else ""."""
    inmost = max(cuts.dims)
    if any(0 < d < inmost for d in cuts.dims):
        return f"it is cut along dimensions {', '.join(map(str, sorted(cuts.dims)))}"
    step = math.prod(shape[inmost + 1 :])
    lengths = [(end - begin) * step for begin, end in cuts.pieces[inmost]]
    # Blocks of any state follow rows: they lie in one run if runs are rows, or whole blocks.
    fits = (inmost == 1 and min(lengths) >= SHORTEST_BLOCK_ROW) or not any(length % BLOCK_SIZE for length in lengths)
    if inmost > 0 and not eight_bit and not fits:
        return f"shards of dimension {inmost} end within blocks of {BLOCK_SIZE}"
    return ""


# ---- gradients, and parameters that are gathered ---------------------------------------------------------------------


def local_gradient(grad: Any, param: Any | None = None, whole: bool = False) -> torch.Tensor:
    """The part of a gradient that belongs to the stepped part of its parameter."""
    if not is_sharded(grad):
        return grad
    if whole:
        return grad.detach().full_tensor()
    if param is not None and is_sharded(param) and grad.placements != param.placements:
        grad = grad.detach().redistribute(placements=param.placements)
    return local_tensor(grad)


def gathered(param: Any) -> torch.Tensor:
    """The whole of a sharded parameter, in new memory."""
    return plain(param.detach().full_tensor()).clone()


def own_part(whole: Any, param: Any) -> torch.Tensor:
    """The part of a whole tensor, on the device of `param`, that belongs to this process."""
    known, mesh = dtensors(), param.device_mesh
    everywhere = known.DTensor.from_local(whole, mesh, [known.Replicate()] * mesh.ndim, run_check=False)
    return local_tensor(everywhere.redistribute(placements=param.placements))


# ---- state -----------------------------------------------------------------------------------------------------------


def unwrapped(entry: Any, param: Any, whole: Any) -> Any:
    """The state of a parameter as this process steps it: the local parts of DTensors, and the shard's part of whole
    tensors."""
    if not is_sharded(param):
        return entry
    return {key: _unwrapped(value, param, whole) for key, value in entry.items()}


def _unwrapped(value: Any, param: Any, whole: bool) -> Any:
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return value
    shared = value.shape[: param.dim()] == param.shape or value.shape == torch.Size(absmax_shape(param.shape))
    return stepped_part(value, param, whole or not (is_sharded(value) or shared))


def stepped_part(value: Any, param: Any, whole: bool) -> torch.Tensor:
    """The part of a tensor, sharded or not, that belongs to the stepped part of `param`. `whole`: that is all of it."""
    if is_sharded(value):
        same = is_sharded(param) and value.device_mesh == param.device_mesh and value.placements == param.placements
        if same and not whole:
            return local_tensor(value)
        value = value.full_tensor()
    return own_part(value, param) if is_sharded(param) and not whole else value


def placed_as(local: torch.Tensor, param: Any, shape: torch.Size | None = None) -> torch.Tensor:
    """The local part of a tensor that is placed like `param`, as a DTensor if `param` is one. `shape`: of the whole
    tensor; None: that of `param`."""
    if not is_sharded(param):
        return local
    shape = param.shape if shape is None else shape
    stride = torch.empty(shape, dtype=torch.uint8, device="meta").stride()
    placed = param.device_mesh, param.placements
    return dtensors().DTensor.from_local(local, *placed, run_check=False, shape=shape, stride=stride)


def wrapped(state: Any, param: Any, local: Any, by_element: Any, by_block: Any) -> Any:
    """The state with values under these keys as DTensors, which are placed like the parameter. Other values are equal
    in every process."""
    if not is_sharded(param) or local.whole:
        return state
    shapes = dict.fromkeys(by_element, param.shape) | {key: torch.Size(absmax_shape(param.shape)) for key in by_block}
    # What is replicated is whole: it may have one scale, which parts never have.
    replicated = all(placement.is_replicate() for placement in param.placements)

    def wrap(key: str, value: Any) -> Any:
        if key not in shapes or is_sharded(value):
            return value
        return placed_as(value, param, value.shape if replicated else shapes[key])

    return {key: wrap(key, value) for key, value in state.items()}
