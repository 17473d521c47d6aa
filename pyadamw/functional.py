"""Owns the public functions quantize, dequantize and codebook on torch tensors. Must not know of optimizers.

    codes, absmax = quantize(x)                   # x is about absmax[block] * codebook("signed")[codes]
    y = dequantize(codes, absmax)

Blocks are the same as in 8-bit optimizer state. A block has 256 elements; if rows of dimension 0 have at least 64
elements, each row begins a new block. The maps are the dynamic maps of Dettmers et al., "8-bit Optimizers via
Block-wise Quantization", ICLR 2022, as bitsandbytes uses them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from . import _cdef
from ._device import is_device, stream
from ._library import ffi, library, new_options
from ._memory import oddity, plain

BLOCK8, TENSOR8 = 1, 2  # adamw_state_format
MAPS = {"signed": 0, "unsigned": 1}  # adamw_map
ROUNDINGS = {"nearest": 0, "stochastic": 1}  # adamw_rounding
Map = Literal["signed", "unsigned"]
Rounding = Literal["nearest", "stochastic"]
SHORTEST_ROW = 64  # shorter rows do not begin a new block


def row_length(shape: Sequence[int]) -> int:
    """adamw_tensor.row_length: the elements of a row of dimension 0; of a tensor with one dimension, all elements."""
    return math.prod(shape[1:]) if len(shape) > 1 else math.prod(shape)


def follows_rows(shape: Sequence[int]) -> bool:
    """Whether each row of dimension 0 begins a new block."""
    return len(shape) > 1 and row_length(shape) >= SHORTEST_ROW


def block_dim(shape: Sequence[int]) -> int:
    """The dimension that blocks cut. The scales also have the dimensions before it.

    It is 0 if blocks are flat. Else it is the last dimension that, together with all later ones, consists of whole
    blocks; 1 if no dimension does.
    """
    if not follows_rows(shape):
        return 0
    whole = (dim for dim in range(len(shape) - 1, 0, -1) if math.prod(shape[dim:]) % _cdef.BLOCK_SIZE == 0)
    return next(whole, 1)


def absmax_shape(shape: Sequence[int], block_wise: bool = True, dim: int | None = None) -> tuple[int, ...]:
    """The shape of the scales for 8-bit codes of shape `shape`: the dimensions before `dim`, then the number of blocks.

    For two dimensions it is (rows, blocks per row), or (blocks,) if blocks are flat. If this tensor is a part of a
    larger one, `dim` is block_dim() of the larger one; None means block_dim() of this tensor.
    """
    if not block_wise:
        return (min(math.prod(shape), 1),)
    dim = block_dim(shape) if dim is None else dim
    return (*shape[:dim], -(-math.prod(shape[dim:]) // _cdef.BLOCK_SIZE))


def _choice(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name} = {value!r}: must be {' or '.join(map(repr, allowed))}")
    return allowed[value]


def _options(tensor, map, block_wise, rounding, step=0, seed=0, global_offset=0):
    options = new_options("adamw_quantize_options")
    options.map = _choice("map", map, MAPS)
    options.state_format = BLOCK8 if block_wise else TENSOR8
    options.rounding = _choice("rounding", rounding, ROUNDINGS)
    options.device = library().device_number(tensor.device, "the tensor")
    if is_device(tensor.device):
        options.stream = ffi.cast("void *", stream(tensor.device))
    options.num_threads = torch.get_num_threads()
    options.numel, options.row_length = tensor.numel(), row_length(tensor.shape)
    options.step, options.seed, options.global_offset = step, seed, global_offset
    return options


def _check_dense(name, value):
    is_meta = isinstance(value, torch.Tensor) and value.device.type == "meta"  # device_number() refuses it
    if oddity(value) and not is_meta:
        raise ValueError(f"{name} is {oddity(value)}: must be a dense tensor")


def _pointer(kind, tensor):
    return ffi.cast(kind, tensor.data_ptr())


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
    source = plain(tensor.detach().to(torch.float32))
    options = _options(source, map, block_wise, rounding, step, seed)
    codes = torch.empty(source.shape, dtype=torch.uint8, device=source.device)
    absmax = torch.empty(absmax_shape(source.shape, block_wise), dtype=torch.float32, device=source.device)
    lib = library()
    lib.check(
        lib.lib.adamw_quantize(
            options, _pointer("float *", source), _pointer("uint8_t *", codes), _pointer("float *", absmax)
        )
    )
    return codes, absmax


def dequantize(
    codes: torch.Tensor, absmax: torch.Tensor, map: Map = "signed", *, block_wise: bool = True
) -> torch.Tensor:
    """The float32 tensor absmax[block] * codebook(map)[codes], with the shape of `codes`. See quantize()."""
    _check_dense("codes", codes)
    _check_dense("absmax", absmax)
    shape = absmax_shape(codes.shape, block_wise)
    if codes.dtype != torch.uint8:
        raise ValueError(f"codes has dtype {codes.dtype}: must be uint8")
    if absmax.dtype != torch.float32 or absmax.numel() != math.prod(shape) or absmax.device != codes.device:
        raise ValueError(
            f"absmax is {absmax.dtype} of shape {tuple(absmax.shape)} on {absmax.device}: "
            f"must be float32 of shape {shape} on {codes.device}"
        )
    codes, absmax = plain(codes.detach()), plain(absmax.detach())
    target = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    lib = library()
    lib.check(
        lib.lib.adamw_dequantize(
            _options(codes, map, block_wise, "nearest"),
            _pointer("uint8_t *", codes),
            _pointer("float *", absmax),
            _pointer("float *", target),
        )
    )
    return target


def codebook(map: Map = "signed") -> torch.Tensor:
    """The 256 float32 values of a map, in the order of their codes: "signed" from -1 to 1, "unsigned" from 0 to 1."""
    values = torch.empty(256, dtype=torch.float32, device="cpu")
    lib = library()
    lib.check(lib.lib.adamw_codebook(_choice("map", map, MAPS), _pointer("float *", values)))
    return values
