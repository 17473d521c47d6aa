"""Owns how a tensor is cut into the blocks of 8-bit state, and the shape of their scales. Must not know their content,
or where they are in memory.

A block has 256 elements. If rows of dimension 0 have at least 64 elements, each row begins a new block.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from .cdef import BLOCK_SIZE, SHORTEST_BLOCK_ROW
from .constants import NUMBERS
from .library import ffi, library


class Kind(NamedTuple):
    """A state format, as far as Python has to know it."""

    bits: int  # of an element of a moment
    coded: bool  # codes and scales; else numbers
    block_wise: bool  # a scale for each block; else one, or none
    dtype: torch.dtype  # of the numbers, or of the codes


@functools.cache
def kind(state_format: int) -> Kind:
    """Of an adamw_state_format; the library is asked, about a tensor of two blocks."""
    layout, numel = ffi.new("adamw_state_layout *"), 2 * BLOCK_SIZE
    library().check(library().lib.adamw_get_state_layout(state_format, numel, numel, 0, 0, layout))
    bits, dtype = 8 * layout.moment_bytes // numel, NUMBERS.get(state_format, torch.uint8)
    return Kind(bits, layout.absmax_count > 0, layout.absmax_count > 1, dtype)


def row_length(shape: Sequence[int]) -> int:
    """adamw_tensor.row_length: the elements of a row of dimension 0; of a tensor with one dimension, all elements."""
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


def follows_rows(shape: Sequence[int]) -> bool:
    """Whether each row of dimension 0 begins a new block."""
    return len(shape) > 1 and row_length(shape) >= SHORTEST_BLOCK_ROW


def block_dim(shape: Sequence[int]) -> int:
    """The dimension that blocks cut. The scales also have the dimensions before it.

    It is 0 if blocks are flat. Else it is the last dimension that, together with all later ones, consists of whole
    blocks; 1 if no dimension does.
    """
    if not follows_rows(shape):
        return 0
    whole = (dim for dim in range(len(shape) - 1, 0, -1) if math.prod(shape[dim:]) % BLOCK_SIZE == 0)
    return next(whole, 1)


def absmax_shape(shape: Sequence[int], block_wise: bool = True, dim: int | None = None) -> tuple[int, ...]:
    """The shape of the scales for 8-bit codes of shape `shape`: the dimensions before `dim`, then the number of blocks.

    For two dimensions it is (rows, blocks per row), or (blocks,) if blocks are flat. If this tensor is a part of a
    larger one, `dim` is block_dim() of the larger one; None means block_dim() of this tensor.
    """
    if not block_wise:
        return (min(math.prod(shape), 1),)
    dim = block_dim(shape) if dim is None else dim
    return (*shape[:dim], -(-math.prod(shape[dim:]) // BLOCK_SIZE))
