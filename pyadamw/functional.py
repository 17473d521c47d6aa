"""Owns the public functions on torch tensors: 8-bit codes and master weights. Must not know of optimizers.

quantize() and dequantize() convert tensors to 8 bits and back. split_weights() and join_weights() do so with float32
weights and their bfloat16 parameters. The other functions say how a tensor is cut into blocks.

Blocks are the same as in 8-bit optimizer state. A block has 256 elements; if rows of dimension 0 have at least 64
elements, each row begins a new block. The codes are root codes, as in the state: equidistant on a fourth root of the
magnitude for "exp_avg", and for "exp_avg_sq" on an eighth root, from that of the block's smallest number to 1.

Example:
    >>> import torch
    >>> from pyadamw.functional import dequantize, join_weights, quantize, split_weights
    >>> x = torch.rand(4, 300)
    >>> codes, absmax, floor = quantize(x, "exp_avg_sq")
    >>> y = dequantize(codes, absmax, floor, "exp_avg_sq")
    >>> torch.allclose(x, y, rtol=0.05, atol=1e-6)
    True
    >>> torch.equal(join_weights(*split_weights(x)), x)
    True
"""

from __future__ import annotations

from typing import Any, Literal

import torch

from ._checks import check_seed, check_step, shown
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


def _check_key(rounding: Any, step: Any, seed: Any) -> None:
    _check_choice("rounding", rounding, ROUNDINGS)
    check_step("step", step)
    check_seed("seed", seed)


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
    """Quantizes a tensor to 8 bits, as 8-bit state stores this moment.

    dequantize() has the formula of the codes. They are this project's own "root codes", with block-wise scales as in
    Dettmers et al., "8-bit Optimizers via Block-wise Quantization", ICLR 2022.

    Args:
        tensor: real numbers of any floating dtype and shape, converted to float32. NaN, infinities and, for
            "exp_avg_sq", negative numbers are stored as zero.
        moment: "exp_avg" for numbers of both signs, "exp_avg_sq" for numbers that are not negative. With "exp_avg_sq",
            a number above zero is never stored as zero, unless the largest of its block is below 2^-126.
        block_wise: True: one scale for each block of 256 elements. False: one scale for the whole tensor.
        rounding: "nearest" or "stochastic". "stochastic" rounds as a step does, and is right on average; for "exp_avg"
            only below a sixteenth of the scale, because from there up it rounds to the nearest code. The random bits
            depend only on `step`, `seed` and the index of the element.
        step: the number of the step, for "stochastic": an integer in [0, 2**63).
        seed: the seed, for "stochastic": an integer in [0, 2**64).

    Returns:
        The named tuple (codes, absmax, floor), a Quantized, on the device of `tensor`.

        - codes: uint8, with the shape of `tensor`.
        - absmax: float32, the largest magnitude of each block, of shape absmax_shape(tensor.shape, block_wise).
        - floor: float32, of the same shape: the eighth root of the block's smallest number divided by its largest,
          where its codes begin. None for "exp_avg".

    Raises:
        ValueError: an argument is wrong. The message has its value and what is allowed.
        UnsupportedError: the library cannot compute on the device of `tensor`.

    Example:
        >>> import torch, pyadamw
        >>> x = torch.tensor([0.0, 0.5, -1.0])
        >>> codes, absmax, floor = pyadamw.quantize(x, "exp_avg")
        >>> codes.tolist(), absmax.tolist(), floor
        ([128, 239, 1], [1.0], None)
    """
    _check_real("tensor", tensor)
    _check_moment(moment)
    _check_key(rounding, step, seed)
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
    """Returns the float32 tensor that quantize() has stored, with the shape of `codes`.

    With the scale and the floor of an element's block, the element is::

        exp_avg     sign(code - 128) * absmax * power(abs(code - 128) / 127, 2)
        exp_avg_sq  absmax * power(floor + code * (1 - floor) / 255, 3)

    power(t, s) is nearly t ** (2 ** s), and exactly that where t is a power of two. On the bits of float32 it is a
    subtraction and a shift: the result has the bits (bits(t) - z) << s with z = 0x3F800000 - (0x3F800000 >> s), and is
    0 if bits(t) < z.

    Args:
        codes: uint8, from quantize(). Every byte is a valid code.
        absmax: float32, from quantize(): the scales.
        floor: float32, from quantize(). None for "exp_avg".
        moment: as it was given to quantize(): "exp_avg" or "exp_avg_sq".
        block_wise: as it was given to quantize().

    Returns:
        float32, with the shape and on the device of `codes`.

    Raises:
        ValueError: an argument is wrong, or absmax or floor is not what these codes need. The message says what is
            allowed.
        UnsupportedError: the library cannot compute on the device of `codes`.

    Example:
        >>> import torch, pyadamw
        >>> x = torch.tensor([0.0, 0.5, -1.0])
        >>> pyadamw.dequantize(*pyadamw.quantize(x, "exp_avg"), "exp_avg")
        tensor([ 0.0000,  0.4980, -1.0000])
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
    """Splits float32 weights into bfloat16 parameters and remainders, as an optimizer with master weights does.

    With bits() for the pattern of a number as an integer::

        param      weights, rounded to the nearest bfloat16, half a unit away from zero
        remainder  bits(weights) - (bits(param) << 16)              int16, with 32 bits
                   (bits(weights) - (bits(param) << 16)) >> 8       int8, with 24 bits

    A remainder is what the parameter lacks of the weight. So 32 bits lose nothing. With 24 bits, weights are first
    rounded to their upper 24 bits. A NaN becomes the NaN with the bits 0x7FC0, and remainder 0. Source: the integer
    split of TransformerEngine's FusedAdam.

    Args:
        weights: real numbers of any floating dtype and shape, converted to float32.
        master_weight_bits: 32 or 24.
        rounding: to 24 bits: "nearest" (half a unit away from zero), or "stochastic" as in a step, right on average. No
            effect with 32 bits.
        step: the number of the step, for "stochastic": an integer in [0, 2**63).
        seed: the seed, for "stochastic": an integer in [0, 2**64).

    Returns:
        The named tuple (param, remainder), a Split, on the device of `weights`.

        - param: bfloat16, with the shape of `weights`.
        - remainder: int16 (with 32 bits) or int8 (with 24), of the same shape.

    Raises:
        ValueError: an argument is wrong. The message has its value and what is allowed.
        UnsupportedError: the library cannot compute on the device of `weights`.

    Example:
        >>> import torch
        >>> from pyadamw.functional import split_weights
        >>> split_weights(torch.tensor([1.0, 1.0 + 2**-20]))
        Split(param=tensor([1., 1.], dtype=torch.bfloat16), remainder=tensor([0, 8], dtype=torch.int16))
    """
    _check_real("weights", weights)
    if master_weight_bits not in (24, 32):
        raise ValueError(f"master_weight_bits = {shown(master_weight_bits)}: must be 24 or 32")
    _check_key(rounding, step, seed)
    return _master_weights.split(weights, int(master_weight_bits) - 16, rounding=rounding, step=step, seed=seed)


def join_weights(param: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """Returns the float32 weights that split_weights() has split.

    A weight has the bits (bits(param) << 16) + remainder (int16), or (bits(param) << 16) + remainder * 256 (int8).
    Where that is a NaN, the weight is `param`. Any bfloat16 `param` and any `remainder` are valid.

    Args:
        param: bfloat16, of any shape.
        remainder: int16 or int8, of the same shape and on the same device.

    Returns:
        float32, of the same shape and on the same device. It is x, bit for bit, for the parts of a float32 tensor x
        with 32 bits.

    Raises:
        ValueError: an argument is wrong. The message says what is allowed.
        UnsupportedError: the library cannot compute on the device of `param`.
    """
    _check_dense("param", param)
    _check_dense("remainder", remainder)
    return _master_weights.join(param, remainder)
