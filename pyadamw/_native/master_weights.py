"""Owns the calls of the library that split master weights and join them, and the integers that keep what a parameter
lacks. Must not know of state or of optimizers.

adamw.h (adamw_split_weights) defines the parts: a bfloat16 parameter, and a remainder of 8 or 16 bits for each element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .constants import ROUNDINGS
from .cuda import is_device, stream
from .library import ffi, library, new_options
from .memory import plain

REMAINDER_DTYPES = {8: torch.int8, 16: torch.int16}


class Split(NamedTuple):
    """Master weights in two parts of the same shape: the result of split_weights().

    Attributes:
        param: bfloat16.
        remainder: int16 for master weights of 32 bits, int8 for those of 24.
    """

    param: torch.Tensor
    remainder: torch.Tensor


def _options(tensor: torch.Tensor, remainder_bits: int, rounding: str = "nearest", step: int = 0, seed: int = 0) -> Any:
    options = new_options("adamw_split_options")
    options.remainder_bits, options.rounding = remainder_bits, ROUNDINGS[rounding]
    options.device = library().device_number(tensor.device, "the tensor")
    if is_device(tensor.device):
        options.stream = ffi.cast("void *", stream(tensor.device))
    options.num_threads = torch.get_num_threads()
    options.numel, options.step, options.seed = tensor.numel(), step, seed
    return options


def _pointer(c_type: str, tensor: torch.Tensor) -> Any:
    return ffi.cast(c_type, tensor.data_ptr())


def split(
    weights: torch.Tensor, remainder_bits: int, *, rounding: str = "nearest", step: int = 0, seed: int = 0
) -> Split:
    """The parts of dense float32 weights, in new memory on their device."""
    source = plain(weights.detach().to(torch.float32))
    param = torch.empty(source.shape, dtype=torch.bfloat16, device=source.device)
    remainder = torch.empty(source.shape, dtype=REMAINDER_DTYPES[remainder_bits], device=source.device)
    options, lib = _options(source, remainder_bits, rounding, step, seed), library()
    pointers = _pointer("float *", source), _pointer("uint16_t *", param), _pointer("void *", remainder)
    lib.check(lib.lib.adamw_split_weights(options, *pointers))
    return Split(param, remainder)


def join(param: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """The float32 weights of two dense parts of the same shape, in new memory on the device of `param`. ValueError
    where the two do not fit together."""
    bits = next((bits for bits, dtype in REMAINDER_DTYPES.items() if dtype == remainder.dtype), 0)
    if param.dtype != torch.bfloat16:
        raise ValueError(f"param has dtype {str(param.dtype).removeprefix('torch.')}: must be bfloat16")
    if not bits or remainder.shape != param.shape or remainder.device != param.device:
        raise ValueError(
            f"remainder is {remainder.dtype} of shape {tuple(remainder.shape)} on {remainder.device}: "
            f"must be int8 or int16 of shape {tuple(param.shape)} on {param.device}"
        )
    param, remainder = plain(param.detach()), plain(remainder.detach())
    weights = torch.empty(param.shape, dtype=torch.float32, device=param.device)
    options, lib = _options(param, bits), library()
    pointers = _pointer("uint16_t *", param), _pointer("void *", remainder), _pointer("float *", weights)
    lib.check(lib.lib.adamw_join_weights(options, *pointers))
    return weights
