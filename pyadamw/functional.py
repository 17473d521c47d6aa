"""Owns the public functions quantize, dequantize and codebook on torch tensors. Must not know of optimizers.

    codes, absmax = quantize(x)                   # x is about absmax[block] * codebook("signed")[codes]
    y = dequantize(codes, absmax)

Blocks are the same as in 8-bit optimizer state. A block has 256 elements; if rows of dimension 0 have at least 64
elements, each row begins a new block. The maps are the dynamic maps of Dettmers et al., "8-bit Optimizers via
Block-wise Quantization", ICLR 2022, as bitsandbytes uses them.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ._native import quantize as _calls
from ._native.constants import BLOCK8, MAPS, ROUNDINGS, TENSOR8
from ._native.layout import absmax_shape, block_dim, follows_rows, row_length
from ._native.memory import oddity

__all__ = ["absmax_shape", "block_dim", "codebook", "dequantize", "follows_rows", "quantize", "row_length"]

Map = Literal["signed", "unsigned"]
Rounding = Literal["nearest", "stochastic"]


def _check_choice(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be {' or '.join(map(repr, allowed))}")


def _check_dense(name: str, value: Any) -> None:
    is_meta = isinstance(value, torch.Tensor) and value.device.type == "meta"  # device_number() refuses it
    if oddity(value) and not is_meta:
        raise ValueError(f"{name} is {oddity(value)}: must be a dense tensor")


def quantize(
    tensor: torch.Tensor,
    map: Map = "signed",
    *,
    block_wise: bool = True,
    rounding: Rounding = "nearest",
    step: int = 0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantizes a tensor to 8 bits: (codes, absmax).

    Args:
        tensor: real numbers of any floating dtype and shape, converted to float32. NaN, infinities and, with the
            unsigned map, negative numbers are stored as zero.
        map: "signed" or "unsigned". With "unsigned", a number above zero is never stored as zero.
        block_wise: True: one scale for each block of 256 elements. False: one scale for the whole tensor.
        rounding: "nearest" or "stochastic". "stochastic" rounds as a step does, and is right on average. The random
            bits depend only on `step`, `seed` and the index of the element. Limits, relative to the scale of the block:
            signed - stochastic up to a tenth of the scale, to nearest above. Right on average from 3.81e-6 upwards;
            below 9e-7, 61% is kept on average.
            unsigned - right on average from 3.25e-7 upwards; smaller numbers above zero become 3.25e-7.
        step: the number of the step, for "stochastic".
        seed: the seed, for "stochastic".

    Returns:
        codes: uint8, with the shape of `tensor`.
        absmax: float32, the largest magnitude of each block, of shape absmax_shape(tensor.shape, block_wise).
    """
    _check_dense("tensor", tensor)
    if tensor.is_complex():
        raise ValueError(f"tensor has dtype {str(tensor.dtype).removeprefix('torch.')}: must be real numbers")
    _check_choice("map", map, MAPS)
    _check_choice("rounding", rounding, ROUNDINGS)
    return _calls.quantize(
        tensor, map, state_format=BLOCK8 if block_wise else TENSOR8, rounding=rounding, step=step, seed=seed
    )


def dequantize(
    codes: torch.Tensor, absmax: torch.Tensor, map: Map = "signed", *, block_wise: bool = True
) -> torch.Tensor:
    """The float32 tensor absmax[block] * codebook(map)[codes], with the shape of `codes`. See quantize()."""
    _check_dense("codes", codes)
    _check_dense("absmax", absmax)
    _check_choice("map", map, MAPS)
    return _calls.dequantize(codes, absmax, map, state_format=BLOCK8 if block_wise else TENSOR8)


def codebook(map: Map = "signed") -> torch.Tensor:
    """The 256 float32 values of a map, in the order of their codes: "signed" from -1 to 1, "unsigned" from 0 to 1."""
    _check_choice("map", map, MAPS)
    return _calls.codebook(map)
