"""Owns how a tensor is cut into the blocks of 8-bit state, and the shape of their scales. Must not know what is in
them, or where they lie.

Blocks have 256 elements, and begin anew with each row of dimension 0 where rows have at least 64 elements.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from .cdef import BLOCK_SIZE, SHORTEST_BLOCK_ROW
from .library import ffi, library


class Kind(NamedTuple):
    """A state format, as far as Python has to know it."""

    bits: int  # of an element of a moment
    coded: bool  # codes and scales; else numbers
    block_wise: bool  # a scale for each block; else one, or none


@functools.cache
def kind(state_format: int) -> Kind:
    """Of an adamw_state_format; the library is asked, about a tensor of two blocks."""
    layout, numel = ffi.new("adamw_state_layout *"), 2 * BLOCK_SIZE
    library().check(library().lib.adamw_get_state_layout(state_format, numel, numel, 0, layout))
    return Kind(8 * layout.moment_bytes // numel, layout.absmax_count > 0, layout.absmax_count > 1)


def row_length(shape: Sequence[int]) -> int:
    """adamw_tensor.row_length: elements of one row of dimension 0, or all of a tensor of one dimension."""
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


def follows_rows(shape: Sequence[int]) -> bool:
    """Whether blocks begin anew with each row of dimension 0."""
    return len(shape) > 1 and row_length(shape) >= SHORTEST_BLOCK_ROW


def block_dim(shape: Sequence[int]) -> int:
    """The dimension that blocks cut: those before it are dimensions of the scales, too. 0 where blocks are flat, else
    the last one whose elements, with all that follows, are whole blocks; 1 if there is none."""
    if not follows_rows(shape):
        return 0
    whole = (dim for dim in range(len(shape) - 1, 0, -1) if math.prod(shape[dim:]) % BLOCK_SIZE == 0)
    return next(whole, 1)


def absmax_shape(shape: Sequence[int], block_wise: bool = True, dim: int | None = None) -> tuple[int, ...]:
    """The shape of the scales of 8-bit codes of `shape`: its dimensions before `dim`, then the blocks of the rest.

    For two dimensions that is (rows, blocks of a row), or (blocks,) if blocks are flat. `dim`: block_dim() of a larger
    tensor that this is a part of; None: of this one.
    """
    if not block_wise:
        return (min(math.prod(shape), 1),)
    dim = block_dim(shape) if dim is None else dim
    return (*shape[:dim], -(-math.prod(shape[dim:]) // BLOCK_SIZE))
