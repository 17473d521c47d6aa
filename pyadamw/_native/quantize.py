"""Owns the calls of the library that quantize and dequantize. Must not know who asks, or what for.

It refuses arguments that would make the library read outside of a tensor. The caller has checked the others.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .constants import BLOCK8, MOMENTS, ROUNDINGS
from .cuda import is_device, stream
from .layout import absmax_shape, kind, row_length
from .library import ffi, library, new_options
from .memory import plain

WITH_FLOOR = "exp_avg_sq"  # the moment whose blocks have a floor


class Quantized(NamedTuple):
    """A tensor in 8 bits: the result of quantize().

    Attributes:
        codes: uint8, in the shape of the tensor.
        absmax: float32, the largest magnitude of each block, of shape absmax_shape(codes.shape).
        floor: float32, of the same shape: where the codes of each block begin. None for "exp_avg", which has none.
    """

    codes: torch.Tensor
    absmax: torch.Tensor
    floor: torch.Tensor | None


def _options(
    tensor: torch.Tensor, moment: str, state_format: int, rounding: str = "nearest", step: int = 0, seed: int = 0
) -> Any:
    options = new_options("adamw_quantize_options")
    options.moment, options.rounding = MOMENTS[moment], ROUNDINGS[rounding]
    options.state_format = state_format
    options.device = library().device_number(tensor.device, "the tensor")
    if is_device(tensor.device):
        options.stream = ffi.cast("void *", stream(tensor.device))
    options.num_threads = torch.get_num_threads()
    options.numel, options.row_length = tensor.numel(), row_length(tensor.shape)
    options.step, options.seed = step, seed
    return options


def _pointer(c_type: str, tensor: torch.Tensor | None) -> Any:
    return ffi.NULL if tensor is None else ffi.cast(c_type, tensor.data_ptr())


def quantize(
    tensor: torch.Tensor,
    moment: str,
    *,
    state_format: int = BLOCK8,
    rounding: str = "nearest",
    step: int = 0,
    seed: int = 0,
) -> Quantized:
    """A dense tensor of real numbers in 8 bits."""
    source = plain(tensor.detach().to(torch.float32))
    options = _options(source, moment, state_format, rounding, step, seed)
    shape = absmax_shape(source.shape, kind(state_format).block_wise)
    codes = torch.empty(source.shape, dtype=torch.uint8, device=source.device)
    absmax = torch.empty(shape, dtype=torch.float32, device=source.device)
    floor = torch.empty_like(absmax) if moment == WITH_FLOOR else None
    lib = library()
    lib.check(
        lib.lib.adamw_quantize(
            options,
            _pointer("float *", source),
            _pointer("uint8_t *", codes),
            _pointer("float *", absmax),
            _pointer("float *", floor),
        )
    )
    return Quantized(codes, absmax, floor)


def dequantize(
    codes: torch.Tensor, absmax: torch.Tensor, floor: torch.Tensor | None, moment: str, *, state_format: int = BLOCK8
) -> torch.Tensor:
    """The float32 numbers of dense codes, scales and floors. ValueError where these are not what the codes need."""
    shape = absmax_shape(codes.shape, kind(state_format).block_wise)
    if codes.dtype != torch.uint8:
        raise ValueError(f"codes has dtype {codes.dtype}: must be uint8")
    _check_of_blocks("absmax", absmax, shape, codes)
    if (floor is not None) != (moment == WITH_FLOOR):
        need = f"float32 of shape {shape}" if floor is None else "None"
        raise ValueError(f"floor is {'None' if floor is None else 'a tensor'}: for {moment} it must be {need}")
    if floor is not None:
        _check_of_blocks("floor", floor, shape, codes)
        floor = plain(floor.detach())
    codes, absmax = plain(codes.detach()), plain(absmax.detach())
    target = torch.empty(codes.shape, dtype=torch.float32, device=codes.device)
    lib = library()
    lib.check(
        lib.lib.adamw_dequantize(
            _options(codes, moment, state_format),
            _pointer("uint8_t *", codes),
            _pointer("float *", absmax),
            _pointer("float *", floor),
            _pointer("float *", target),
        )
    )
    return target


def _check_of_blocks(name: str, value: torch.Tensor, shape: tuple[int, ...], codes: torch.Tensor) -> None:
    if value.dtype != torch.float32 or value.numel() != math.prod(shape) or value.device != codes.device:
        raise ValueError(
            f"{name} is {value.dtype} of shape {tuple(value.shape)} on {value.device}: "
            f"must be float32 of shape {shape} on {codes.device}"
        )
