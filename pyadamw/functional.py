"""Owns the public functions on torch tensors: quantize, dequantize, split_weights, join_weights. Must not know of
optimizers.

    quantized = quantize(x, "exp_avg_sq")          # codes, absmax, floor
    y = dequantize(*quantized, "exp_avg_sq")       # is about x
    w = join_weights(*split_weights(x))            # is x, bit for bit, if that is float32

Blocks are the same as in 8-bit optimizer state. A block has 256 elements; if rows of dimension 0 have at least 64
elements, each row begins a new block. The codes are root codes, as in the state: equidistant on a fourth root of the
magnitude for "exp_avg", and for "exp_avg_sq" on an eighth root, from that of the block's smallest number to 1.
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ._checks import shown
from ._native import master_weights as _master_weights
from ._native import quantize as _calls
from ._native.constants import BLOCK8, MOMENTS, ROUNDINGS, TENSOR8
from ._native.layout import absmax_shape, block_dim, follows_rows, row_length
from ._native.master_weights import Split
from ._native.memory import oddity
from ._native.quantize import Quantized

__all__ = [
    "Quantized",
    "Split",
    "absmax_shape",
    "block_dim",
    "dequantize",
    "follows_rows",
    "join_weights",
    "quantize",
    "row_length",
    "split_weights",
]

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


def _check_real(name: str, value: torch.Tensor) -> None:
    _check_dense(name, value)
    if value.is_complex():
        raise ValueError(f"{name} has dtype {str(value.dtype).removeprefix('torch.')}: must be real numbers")


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
    _check_real("tensor", tensor)
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


def split_weights(
    weights: torch.Tensor,
    master_weight_bits: Literal[24, 32] = 32,
    *,
    rounding: Rounding = "nearest",
    step: int = 0,
    seed: int = 0,
) -> Split:
    """Splits float32 weights into bfloat16 parameters and what these lack, as an optimizer with master weights does.

    With bits() for the pattern of a number as an integer::

        param      weights, rounded to the nearest bfloat16, half a unit away from zero
        remainder  bits(weights) - (bits(param) << 16)              int16, with 32 bits
                   (bits(weights) - (bits(param) << 16)) >> 8       int8, with 24 bits

    So 32 bits lose nothing. With 24 bits, weights are first rounded to their upper 24 bits. A NaN becomes the NaN with
    the bits 0x7FC0, and remainder 0. Source: the integer split of TransformerEngine's FusedAdam.

    Args:
        weights: real numbers of any floating dtype and shape, converted to float32.
        master_weight_bits: 32 or 24.
        rounding: to 24 bits: "nearest" (half a unit away from zero), or "stochastic" as in a step, right on average. No
            effect with 32 bits.
        step, seed: for "stochastic", as in quantize().

    Returns:
        param: bfloat16, with the shape of `weights`.
        remainder: int16 or int8, of the same shape.
    """
    _check_real("weights", weights)
    if master_weight_bits not in (24, 32):
        raise ValueError(f"master_weight_bits = {shown(master_weight_bits)}: must be 24 or 32")
    _check_choice("rounding", rounding, ROUNDINGS)
    return _master_weights.split(weights, int(master_weight_bits) - 16, rounding=rounding, step=step, seed=seed)


def join_weights(param: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """The float32 weights that split_weights() has split: join_weights(*split_weights(x)) is x, if x is float32.

    A weight has the bits (bits(param) << 16) + remainder (int16), or (bits(param) << 16) + remainder * 256 (int8).
    Where that is a NaN, the weight is `param`. Any bfloat16 `param` and any `remainder` are valid.

    Args:
        param: bfloat16.
        remainder: int16 or int8, of the same shape and on the same device.
    """
    _check_dense("param", param)
    _check_dense("remainder", remainder)
    return _master_weights.join(param, remainder)
