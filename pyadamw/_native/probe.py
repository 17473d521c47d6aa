"""Owns finding the bit that Tensor.is_neg() reads, so that thousands of tensors can be checked at once. Must not know
who needs it.

is_neg() takes longer than all other queries about a gradient, because it releases the interpreter's lock. It reads one
bit of a number in the C++ tensor, which a Python tensor points to. torch does not promise where this bit is. So it is
found by comparing many tensors of every kind with their lazily negated views, and used only if all agree. Otherwise the
caller must call is_neg().
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch

from .torch_private import TENSOR_BASE, cpp_tensor, negated_view

_BYTES = 208  # the smallest size of a C++ tensor since torch 2.0; a multiple of 8


class Place(NamedTuple):
    """As in adamw_describe_options."""

    handle: int
    bits_at: int
    bits: int


def _words(address: int, size: int) -> list[int]:
    return list((ctypes.c_uint64 * (size // 8)).from_address(address))


def _samples() -> list[torch.Tensor]:
    def made(dtype: torch.dtype) -> list[torch.Tensor]:
        whole = torch.ones((4, 6), dtype=dtype, device="cpu")
        leaf = torch.ones(3, dtype=dtype, device="cpu", requires_grad=True)
        return [whole, whole[1:, ::2], whole.t(), whole[0, 0], torch.nn.Parameter(whole), leaf, leaf * 2, whole[:0]]

    return [tensor for dtype in (torch.float32, torch.bfloat16, torch.float16) for tensor in made(dtype)]


@functools.cache
def negation() -> Place | None:
    """The place of the bit; None if it cannot be found."""
    try:
        return _found()
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return None


def _samples_and_negated() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The samples and their negated views, made in an order that does not repeat (the Thue-Morse sequence).

    If the two kinds were made in turn, or one kind after the other, a bit of an address might tell them apart too.
    """
    plain: list[torch.Tensor] = []
    negated: list[torch.Tensor] = []
    for _ in range(4):
        samples = _samples()
        for k, sample in enumerate(samples):
            for negate in (True, False) if k.bit_count() % 2 else (False, True):
                (negated if negate else plain).append(negated_view(sample) if negate else sample.detach())
        plain += samples
    return plain, negated


def _found() -> Place | None:
    with torch.no_grad():
        plain, negated = _samples_and_negated()
    plain.append(torch.ones(3, dtype=torch.complex64, device="cpu").conj())
    everyone = [*plain, *negated]
    size = min(TENSOR_BASE.__basicsize__, 128)
    handles = [8 * k for k in range(2, size // 8) if all(_words(id(t), size)[k] == cpp_tensor(t) for t in everyone)]
    if len(handles) != 1 or not all(t.is_neg() for t in negated) or any(t.is_neg() for t in plain):
        return None
    ones, zeros = [~0] * (_BYTES // 8), [~0] * (_BYTES // 8)
    for tensor in negated:
        ones = [seen & word for seen, word in zip(ones, _words(cpp_tensor(tensor), _BYTES), strict=True)]
    for tensor in plain:
        zeros = [seen & ~word for seen, word in zip(zeros, _words(cpp_tensor(tensor), _BYTES), strict=True)]
    both = [(8 * k, one & zero) for k, (one, zero) in enumerate(zip(ones, zeros, strict=True)) if one & zero]
    if len(both) != 1 or both[0][1].bit_count() != 1:
        return None
    return Place(handles[0], *both[0])
