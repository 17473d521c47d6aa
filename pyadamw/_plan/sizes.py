"""Owns the bytes that tensors take, by the rules of each optimizer. Must not know which choices there are.

For this package the rules are those of a step: its code is asked about tensors without memory (on torch's meta device),
and about such tensors as FSDP2 would cut them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .._native.cdef import BLOCK_SIZE
from .._state.cuts import chunks
from .._state.formats import REMAINDER, wanted
from .._state.sharding import inner
from .._state.spec import state_spec, stepped_view
from ..paging import PageManager
from .weights import Form

# Four windows of 16 MiB, on the device: what a page manager with the default options takes there if its backing is
# "pinned" (adamw.h, adamw_pager_options). "managed" needs none.
WINDOWS = 4 * (16 << 20)


class Process(NamedTuple):
    """One of those that FSDP2 shards a model over, on dimension 0."""

    number: int = 0
    of: int = 1


class State(NamedTuple):
    """Bytes of the optimizer state of one tensor, without its step count."""

    moments: int  # with their scales
    remainder: int  # what a bfloat16 parameter lacks of its master weight
    paged: int  # of both: how many are in pages


# ---- tensors without memory ----------------------------------------------------------------------------------------


class Shard(NamedTuple):
    """A placement, as torch.distributed.tensor has it, whose import would take longer than the whole plan."""

    dim: int

    def is_partial(self) -> bool:
        return False

    def is_replicate(self) -> bool:
        return False


class _Line(NamedTuple):
    """A mesh of one dimension."""

    process: Process
    ndim: int = 1

    def size(self, _dim: int) -> int:
        return self.process.of

    def get_coordinate(self) -> list[int]:
        return [self.process.number]


class _Sharded(torch.Tensor):
    """A sharded tensor as far as the decisions of a step look at it: how it lies in the processes, without any."""

    device_mesh: Any
    placements: tuple[Any, ...]
    _local_tensor: torch.Tensor

    def to_local(self) -> torch.Tensor:
        return self._local_tensor


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def stand_in(form: Form, process: Process) -> torch.Tensor:
    """A tensor without memory that a step would treat as a parameter of this form in this process."""
    if form.placed is not None:
        mesh, placements, local_shape = form.placed
    elif process.of > 1 and form.sharded:
        mesh, placements = _Line(process), (Shard(0),)
        begin, end = chunks((0, form.shape[0]), process.of)[process.number]
        local_shape = (end - begin, *form.shape[1:])
    else:
        return _empty(form.shape, form.dtype)
    made = _empty(form.shape, form.dtype).as_subclass(_Sharded)
    made.device_mesh, made.placements = mesh, placements
    made._local_tensor = _empty(local_shape, form.dtype)
    return made


# ---- bytes ---------------------------------------------------------------------------------------------------------


def local_bytes(form: Form, process: Process) -> int:
    """Of the tensor itself, or of a gradient of it: what this process has."""
    local = inner(stand_in(form, process))
    return local.numel() * local.element_size()


def state(form: Form, process: Process, options: Mapping[str, Any], pages: PageManager, name: str) -> State:
    """Of this package's state. `options`: those of a parameter group; `pages`: the page manager if they name none."""
    spec = state_spec(stepped_view(stand_in(form, process), options, name), options, pages)
    moments = remainder = paged = 0
    for part in wanted(spec):
        count = math.prod(part.shape(spec)) * part.dtype(spec).itemsize
        if part.key == REMAINDER:
            remainder += count
        else:
            moments += count
        if part.placing(spec).pages is not None:
            paged += count
    return State(moments, remainder, paged)


def why_gathered(form: Form, process: Process, options: Mapping[str, Any], name: str) -> str:
    """Why a step gathers the tensor, so that its state is whole in every process; "" if it does not."""
    return stepped_view(stand_in(form, process), options, name).gathered


def torch_state(form: Form, process: Process) -> State:
    """torch.optim.AdamW: two moments, of the dtype of the parameter, cut as it is."""
    return State(2 * local_bytes(form, process), 0, 0)


BITSANDBYTES_MAPS = 2 * 256 * 4  # of the two kinds of codes, once for an optimizer that has any
_BITSANDBYTES_MIN_8BIT_SIZE = 4096
_BITSANDBYTES_MIN_PAGED = 100_000


def bitsandbytes_has_codes(form: Form) -> bool:
    return form.numel >= _BITSANDBYTES_MIN_8BIT_SIZE


def bitsandbytes_state(form: Form, is_paged: bool) -> State:
    """bitsandbytes' AdamW8bit: flat blocks of 256 with a scale for each moment; float32 moments for small tensors.

    PagedAdamW8bit has the codes in pages, not the scales.
    """
    if not bitsandbytes_has_codes(form):
        return State(2 * 4 * form.numel, 0, 0)
    codes, scales = 2 * form.numel, 2 * 4 * -(-form.numel // BLOCK_SIZE)
    return State(codes + scales, 0, codes if is_paged and form.numel >= _BITSANDBYTES_MIN_PAGED else 0)
