"""Owns the forms that remainders of master weights have: integers in the state, bytes in a state dict, and those of the
other width. Must not know of other parts of the state.

A remainder of 16 bits is an int16 in the state. In a state dict it is two int8 in a last dimension of their own, which
share the memory: collectives of torch (NCCL, gloo) do not support int16, and torch.distributed.checkpoint would cast
remainders of one width to those of the other, which mean something else. So the shape tells the width. Both forms load.
"""

from __future__ import annotations

from typing import Any

import torch

from .._native.master_weights import REMAINDER_DTYPES
from .._native.memory import oddity, plain
from .sharding import inner, is_sharded, placed_as


def as_bytes(value: Any) -> Any:
    """Remainders for a state dict, sharded as they are. Other values are unchanged."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.int16 or oddity(inner(value)):
        return value
    pairs = plain(inner(value).detach()).unsqueeze(-1).view(torch.int8)
    return placed_as(pairs, value, torch.Size((*value.shape, 2))) if is_sharded(value) else pairs


def as_integers(value: Any, shape: torch.Size) -> Any:
    """Remainders of this shape for the state, from either form; other values are unchanged."""
    if not isinstance(value, torch.Tensor) or value.dtype != torch.int8 or value.shape != torch.Size((*shape, 2)):
        return value
    pairs = plain(value.detach())
    if pairs.data_ptr() % 2:
        pairs = pairs.clone()
    return pairs.view(torch.int16).squeeze(-1)


def stored_bits(value: Any, shape: torch.Size) -> int:
    """The width of remainders of this shape, in either form; 0 if it is neither."""
    found = getattr(as_integers(value, shape), "dtype", None)
    return next((bits for bits, dtype in REMAINDER_DTYPES.items() if dtype == found), 0)


def in_other_bits(remainder: torch.Tensor, bits: int) -> torch.Tensor:
    """Remainders of the other width, for the same parameters: the nearest, half a unit away from zero like a split, but
    never one that belongs to another parameter."""
    if bits == 16:
        return remainder.to(torch.int16) << 8
    return ((remainder.to(torch.int32) + 0x80) >> 8).clamp_(max=127).to(torch.int8)
