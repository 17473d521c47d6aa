"""Owns the public functions quantize and dequantize on torch tensors. Must not know of optimizers.

    quantized = quantize(x, "exp_avg_sq")          # codes, absmax, floor
    y = dequantize(*quantized, "exp_avg_sq")       # is about x

Blocks are the same as in 8-bit optimizer state. A block has 256 elements; if rows of dimension 0 have at least 64
elements, each row begins a new block. The codes are root codes, as in the state: equidistant on a fourth root of the
magnitude for "exp_avg", and for "exp_avg_sq" on an eighth root, from that of the block's smallest number to 1.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ._native import quantize as _calls
from ._native.constants import BLOCK8, MOMENTS, ROUNDINGS, TENSOR8
from ._native.layout import absmax_shape, block_dim, follows_rows, row_length
from ._native.memory import oddity
from ._native.quantize import Quantized

__all__ = ["Quantized", "absmax_shape", "block_dim", "dequantize", "follows_rows", "quantize", "row_length"]

Moment = Literal["exp_avg", "exp_avg_sq"]
Rounding = Literal["nearest", "stochastic"]

_EARLIER = {"signed": "exp_avg", "unsigned": "exp_avg_sq"}  # names of maps that are gone


def _check_choice(name: str, value: Any, allowed: Any) -> None:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be {' or '.join(map(repr, allowed))}")


def _check_moment(value: Any) -> None:
    if isinstance(value, str) and value in _EARLIER:
        raise ValueError(
            f"moment = {value!r}: this map is gone; use moment={_EARLIER[value]!r}, which has other codes for "
            f"{'numbers of both signs' if value == 'signed' else 'numbers that are not negative'}"
        )
    _check_choice("moment", value, MOMENTS)


def _check_dense(name: str, value: Any) -> None:
    is_meta = isinstance(value, torch.Tensor) and value.device.type == "meta"  # device_number() refuses it
    if oddity(value) and not is_meta:
        raise ValueError(f"{name} is {oddity(value)}: must be a dense tensor")


def quantize(
    tensor: torch.Tensor,
    moment: Moment = "exp_avg",
    *,
    block_wise: bool = True,
    rounding: Rounding = "nearest",
    step: int = 0,
    seed: int = 0,
) -> Quantized:
    """Quantizes a tensor to 8 bits, as 8-bit state stores this moment: (codes, absmax, floor).

    Args:
        tensor: real numbers of any floating dtype and shape, converted to float32. NaN, infinities and, for
            "exp_avg_sq", negative numbers are stored as zero.
        moment: "exp_avg" for numbers of both signs, "exp_avg_sq" for numbers that are not negative. With "exp_avg_sq",
            a number above zero is never stored as zero, unless the largest of its block is below 2^-126.
        block_wise: True: one scale for each block of 256 elements. False: one scale for the whole tensor.
        rounding: "nearest" or "stochastic". "stochastic" rounds as a step does, and is right on average; for "exp_avg"
            only below a sixteenth of the scale, because from there up it rounds to the nearest code. The random bits
            depend only on `step`, `seed` and the index of the element.
        step: the number of the step, for "stochastic".
        seed: the seed, for "stochastic".

    Returns:
        codes: uint8, with the shape of `tensor`.
        absmax: float32, the largest magnitude of each block, of shape absmax_shape(tensor.shape, block_wise).
        floor: float32, of the same shape: the eighth root of the block's smallest number divided by its largest, where
            its codes begin. None for "exp_avg".
    """
    _check_dense("tensor", tensor)
    if tensor.is_complex():
        raise ValueError(f"tensor has dtype {str(tensor.dtype).removeprefix('torch.')}: must be real numbers")
    _check_moment(moment)
    _check_choice("rounding", rounding, ROUNDINGS)
    return _calls.quantize(
        tensor, moment, state_format=BLOCK8 if block_wise else TENSOR8, rounding=rounding, step=step, seed=seed
    )


def dequantize(
    codes: torch.Tensor,
    absmax: torch.Tensor,
    floor: torch.Tensor | None = None,
    moment: Moment = "exp_avg",
    *,
    block_wise: bool = True,
) -> torch.Tensor:
    """The float32 tensor that quantize() has stored, with the shape of `codes`: dequantize(*quantize(x, m), m).

    With the scale and the floor of an element's block, the element is::

        exp_avg     sign(code - 128) * absmax * power(abs(code - 128) / 127, 2)
        exp_avg_sq  absmax * power(floor + code * (1 - floor) / 255, 3)

    power(t, s) is nearly t ** (2 ** s), and exactly that where t is a power of two. On the bits of float32 it is a
    subtraction and a shift: the result has the bits (bits(t) - z) << s with z = 0x3F800000 - (0x3F800000 >> s), and is
    0 if bits(t) < z.

    Args:
        codes, absmax, floor: from quantize(). `floor` is None for "exp_avg".
        moment: as it was given to quantize().
        block_wise: as it was given to quantize().
    """
    _check_dense("codes", codes)
    _check_dense("absmax", absmax)
    if isinstance(floor, str):
        raise ValueError(f"floor = {floor!r}: must be a tensor or None; the moment is the argument after it")
    if floor is not None:
        _check_dense("floor", floor)
    _check_moment(moment)
    return _calls.dequantize(codes, absmax, floor, moment, state_format=BLOCK8 if block_wise else TENSOR8)
