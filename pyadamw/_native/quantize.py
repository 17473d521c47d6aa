"""Owns the calls of the library that quantize and dequantize, and its maps. Must not know who asks, or what for.

It refuses arguments that would make the library read outside of a tensor. The caller has checked the others.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .constants import BLOCK8, MAPS, ROUNDINGS
from .cuda import is_device, stream
from .layout import absmax_shape, kind, row_length
from .library import ffi, library, new_options
from .memory import plain


def _options(
    tensor: torch.Tensor, map: str, state_format: int, rounding: str = "nearest", step: int = 0, seed: int = 0
) -> Any:
    options = new_options("adamw_quantize_options")
    options.map, options.rounding = MAPS[map], ROUNDINGS[rounding]
    options.state_format = state_format
    options.device = library().device_number(tensor.device, "the tensor")
    if is_device(tensor.device):
        options.stream = ffi.cast("void *", stream(tensor.device))
    options.num_threads = torch.get_num_threads()
    options.numel, options.row_length = tensor.numel(), row_length(tensor.shape)
    options.step, options.seed = step, seed
    return options


def _pointer(c_type: str, tensor: torch.Tensor) -> Any:
    return ffi.cast(c_type, tensor.data_ptr())


def quantize(
    tensor: torch.Tensor,
    map: str,
    *,
    state_format: int = BLOCK8,
    rounding: str = "nearest",
    step: int = 0,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, absmax) of a dense tensor of real numbers."""
    source = plain(tensor.detach().to(torch.float32))
    options = _options(source, map, state_format, rounding, step, seed)
    codes = torch.empty(source.shape, dtype=torch.uint8, device=source.device)
    absmax = torch.empty(
        absmax_shape(source.shape, kind(state_format).block_wise), dtype=torch.float32, device=source.device
    )
    lib = library()
    lib.check(
        lib.lib.adamw_quantize(
            options, _pointer("float *", source), _pointer("uint8_t *", codes), _pointer("float *", absmax)
        )
    )
    return codes, absmax


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, map: str, *, state_format: int = BLOCK8) -> torch.Tensor:
    """The float32 numbers of dense codes and scales. ValueError where these are not what the codes need."""
    shape = absmax_shape(codes.shape, kind(state_format).block_wise)
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
            _options(codes, map, state_format),
            _pointer("uint8_t *", codes),
            _pointer("float *", absmax),
            _pointer("float *", target),
        )
    )
    return target


def codebook(map: str) -> torch.Tensor:
    """The 256 float32 values of a map."""
    values = torch.empty(256, dtype=torch.float32, device="cpu")
    lib = library()
    lib.check(lib.lib.adamw_codebook(MAPS[map], _pointer("float *", values)))
    return values
