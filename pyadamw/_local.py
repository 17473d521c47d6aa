"""Owns what a parameter is in this process: the local tensor and its place in the global one, and the way between local
tensors and DTensors. Must not know of moments.

A sharded parameter (DTensor) is stepped in one of two ways. In its shard, where state of the shard is the shard of
the state: 32-bit state, and 8-bit state whose blocks follow whole rows of a tensor that is sharded by rows. Else as a
whole: its gradient and itself are gathered for the step, every process steps all of it and keeps its own part; state is
whole in every process. That is for small tensors (biases, norms: blocks of flat tensors do not end where shards do),
and for what needs norms of the whole.
"""

import math
from typing import NamedTuple

import torch

from .functional import follows_rows, row_length


class Local(NamedTuple):
    tensor: torch.Tensor  # what is stepped here
    numel: int  # elements of the global tensor: decides between 8 and 32 bits
    row_length: int  # elements of one row of dimension 0 of the local tensor, as in adamw_tensor.row_length
    global_offset: int  # index of the first local element in the global tensor
    shape: torch.Size  # of the state
    whole: bool = False  # it is gathered for the step


def is_sharded(value):
    """Whether it is a DTensor. (Their module is large, and need not be there.)"""
    return isinstance(value, torch.Tensor) and hasattr(value, "_local_tensor") and hasattr(value, "placements")


def belongs_to_fsdp1(param):
    """Whether FullyShardedDataParallel, the predecessor of FSDP2, has made it a part of a flat parameter, or is one.

    It keeps state as pieces of flat tensors that have an element for each of the parameter's.
    """
    return getattr(param, "_fsdp_flattened", False) is True or getattr(param, "_is_flat_param", False) is True


def inner(value):
    """The memory behind a tensor: of a DTensor, the tensor of this process."""
    return value._local_tensor if is_sharded(value) else value


def local_view(param):
    """What of `param` lives in this process."""
    shape, numel = param.shape, param.numel()
    if not is_sharded(param):
        return Local(param, numel, row_length(shape), 0, shape)
    tensor, (_, offset) = param._local_tensor, _place(param)
    if any(placement.is_partial() for placement in param.placements):
        raise ValueError(f"its placements are {param.placements}: a sum that is still to be taken cannot be stepped")
    start = offset[0] * math.prod(shape[1:]) if len(shape) else 0
    return Local(tensor, numel, row_length(tensor.shape), start, tensor.shape)


def fits_shard(param, eight_bit, block_wise, of_the_whole, by_index):
    """Whether a DTensor can be stepped in its shard. `of_the_whole`: the step needs norms of the whole; `by_index`: it
    needs to know where each element is."""
    dims = [placement.dim for placement in param.placements if not placement.is_replicate()]
    if not dims:
        return True
    plain = all(type(placement).__name__ in ("Shard", "Replicate") for placement in param.placements)
    by_rows = plain and all(dim == 0 for dim in dims)
    if of_the_whole or (by_index and not by_rows):
        return False
    return not eight_bit or (by_rows and block_wise and follows_rows(param.shape))


def whole_view(param, local):
    """The parameter as it is stepped where every process steps all of it."""
    shape = param.shape
    return Local(local.tensor, local.numel, row_length(shape), 0, shape, whole=True)


def _place(param):
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    return compute_local_shape_and_global_offset(param.shape, param.device_mesh, param.placements)


# ---- gradients, and parameters that are gathered ---------------------------------------------------------------------


def local_gradient(grad, param=None, whole=False):
    """The part of a gradient that belongs to what is stepped of its parameter."""
    if not is_sharded(grad):
        return grad
    if whole:
        return grad.detach().full_tensor()
    if param is not None and is_sharded(param) and grad.placements != param.placements:
        grad = grad.detach().redistribute(placements=param.placements)
    return grad._local_tensor


def gathered(param):
    """All of a sharded parameter, in memory of its own."""
    return param.detach().full_tensor().contiguous().clone()


def own_part(whole, param):
    """What of a whole tensor belongs to this process."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = param.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=param.placements)._local_tensor


# ---- state -----------------------------------------------------------------------------------------------------------


def unwrapped(entry, param, whole):
    """State of a parameter, in which tensors are what this process steps: of DTensors their local parts, of whole
    tensors that part which belongs to the shard."""
    if not is_sharded(param):
        return entry
    return {key: _unwrapped(value, param, whole) for key, value in entry.items()}


def _unwrapped(value, param, whole):
    if not isinstance(value, torch.Tensor) or value.dim() == 0:
        return value
    if whole:
        return value.full_tensor() if is_sharded(value) else value
    if is_sharded(value):
        if value.device_mesh == param.device_mesh and value.placements == param.placements:
            return value._local_tensor
        value = value.full_tensor()
    rows = param.shape[0] if param.dim() else 1
    return own_part(value, param) if value.dim() == param.dim() or value.shape[:1] == (rows,) else value


def wrapped(state, param, whole, keep=()):
    """The state with DTensors, placed as the parameter is; `keep` are keys of what is the same in every process."""
    if not is_sharded(param) or whole:
        return state
    from torch.distributed.tensor import DTensor

    sharded = any(not placement.is_replicate() for placement in param.placements)

    def wrap(key, value):
        if key in keep or is_sharded(value):
            return value
        shape = value.shape
        if sharded:  # as the parameter, but for the length of a row: there are fewer scales than elements
            shape = param.shape if shape == param._local_tensor.shape else torch.Size((param.shape[0], *shape[1:]))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            value, param.device_mesh, param.placements, run_check=False, shape=shape, stride=stride
        )

    return {key: wrap(key, value) for key, value in state.items()}
