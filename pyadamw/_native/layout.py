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
    """Returns the number of elements in a row of dimension 0.

    Of a tensor with one dimension or none, these are all elements. It is the row_length of adamw_tensor in C.

    Args:
        shape: the shape of a tensor.
    """
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


def follows_rows(shape: Sequence[int]) -> bool:
    """Returns whether each row of dimension 0 begins a new block, as rows of at least 64 elements do.

    Args:
        shape: the shape of a tensor.
    """
    return len(shape) > 1 and row_length(shape) >= SHORTEST_BLOCK_ROW


def block_dim(shape: Sequence[int]) -> int:
    """Returns the dimension that blocks cut. The scales also have the dimensions before it.

    It is 0 if blocks are flat. Otherwise it is the last dimension that, together with all later ones, consists of whole
    blocks; 1 if no dimension does.

    Args:
        shape: the shape of a tensor.
    """
    if not follows_rows(shape):
        return 0
    whole = (dim for dim in range(len(shape) - 1, 0, -1) if math.prod(shape[dim:]) % BLOCK_SIZE == 0)
    return next(whole, 1)


def absmax_shape(shape: Sequence[int], block_wise: bool = True, dim: int | None = None) -> tuple[int, ...]:
    """Returns the shape of the scales for 8-bit codes: the dimensions before `dim`, then the number of blocks.

    For two dimensions it is (rows, blocks per row), or (blocks,) if blocks are flat.

    Args:
        shape: the shape of the tensor, and so of the codes.
        block_wise: True: a scale for each block of 256 elements. False: one scale, or none for an empty tensor.
        dim: block_dim() of the tensor that this one is a part of. None: block_dim() of this tensor.

    Example:
        >>> from pyadamw.functional import absmax_shape
        >>> absmax_shape((10, 300)), absmax_shape((1000,))
        ((10, 2), (4,))
    """
    if not block_wise:
        return (min(math.prod(shape), 1),)
    dim = block_dim(shape) if dim is None else dim
    return (*shape[:dim], -(-math.prod(shape[dim:]) // BLOCK_SIZE))
