"""Owns reading state of FlashOptim's FlashAdamW, for one parameter. Must not know of groups or steps.

`exp_avg::quantized` (int8) and `exp_avg_sq::quantized` (uint8) are codes q, with a float16 scale s for 32 elements each
in `...::scales`: exp_avg = s * y / (2 - |y|) with y = q / 127, and exp_avg_sq = (s * q / 255)^2. For a bfloat16
parameter, the bits of the scales lie in a bfloat16 tensor. `error_bits` holds what a bfloat16 parameter p lacks of its
master weight w, as a part of half a unit in the last place of p:

    w = p + error / 127 * ulp(p) / 2        24 bits: error is an integer in [-127, 127], in a bfloat16 tensor
    w = p + error / 32767 * ulp(p) / 2      32 bits: error is an int16, whose bits lie in a bfloat16 tensor

Half a unit of p is not the same number above and below a power of two, and w may lie on either side. So w must be known
to say which bits it has: parameter and error together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .._native.memory import oddity
from .._native.torch_private import dtensors
from .sharding import inner, is_sharded

ERROR_BITS = "error_bits"
GROUP = 32  # elements that share a scale
SIGNED = {"exp_avg": True, "exp_avg_sq": False}
MASTER_BYTES = "master_bytewidth"  # the option of a group that says how wide master weights are


def codes_of(moment: str) -> str:
    return f"{moment}::quantized"


def scales_of(moment: str) -> str:
    return f"{moment}::scales"


def has_codes(entry: Any) -> bool:
    return any(codes_of(moment) in entry for moment in SIGNED)


def translated(entry: Any, weights: Callable[[], torch.Tensor | None], group: Any, where: str) -> Any:
    """`entry`, with our keys and numbers if it is of FlashOptim; otherwise unchanged.

    Args:
        entry: a mapping; its DTensors, if any, are sharded as FlashOptim's own.
        weights: gives the parameter, as a whole or as a DTensor, or None if there is none. It is asked only if the
            entry has error_bits.
        group: the options of the parameter's group.

    Raises:
        ValueError: it names `where`, the key and the fault.
    """
    if ERROR_BITS not in entry and not has_codes(entry):
        return entry
    used = {ERROR_BITS, *map(codes_of, SIGNED), *map(scales_of, SIGNED)}
    result = {key: value for key, value in entry.items() if key not in used}
    for moment, signed in SIGNED.items():
        if codes_of(moment) in entry:
            result[moment] = _moment(entry, moment, signed, where)
    if entry.get(ERROR_BITS) is not None:
        result["param_remainder"] = _remainder(entry[ERROR_BITS], weights(), group.get(MASTER_BYTES), where)
    return result


def _tensor(entry: Any, key: str, where: str) -> torch.Tensor:
    value = entry.get(key)
    if not isinstance(value, torch.Tensor) or oddity(inner(value)):
        raise ValueError(f"{where}: {key} is missing or no tensor: must be a dense tensor")
    return value


def _like(values: torch.Tensor, source: Any) -> Any:
    """`values`, sharded as `source` is."""
    if not is_sharded(source):
        return values
    placed = source.device_mesh, source.placements
    return dtensors().DTensor.from_local(values, *placed, run_check=False, shape=source.shape, stride=source.stride())


def _moment(entry: Any, moment: str, signed: bool, where: str) -> Any:
    stored, scales = _tensor(entry, codes_of(moment), where), _tensor(entry, scales_of(moment), where)
    if is_sharded(stored) != is_sharded(scales):
        raise ValueError(f"{where}: {codes_of(moment)} and {scales_of(moment)}: one is sharded, and the other is not")
    codes, scale = inner(stored).detach(), inner(scales).detach()
    if scale.dtype == torch.bfloat16:
        scale = scale.view(torch.float16)
    groups = -(-codes.numel() // GROUP)
    if scale.numel() != groups or scale.dtype != torch.float16:
        has = f"{scale.numel()} elements of {str(scale.dtype).removeprefix('torch.')}"
        raise ValueError(f"{where}: {scales_of(moment)} has {has}: must be {groups} of float16, one for {GROUP} codes")
    largest = 127.0 if signed else 255.0
    flat = codes.flatten().to(torch.float32)
    if not (flat == flat.round()).all() or (flat.abs() > largest + signed).any() or (not signed and (flat < 0).any()):
        raise ValueError(f"{where}: {codes_of(moment)} holds numbers that are no codes: the state is damaged")
    spread = scale.to(device=flat.device, dtype=torch.float32).repeat_interleave(GROUP)[: flat.numel()]
    if not spread.isfinite().all():
        raise ValueError(f"{where}: {scales_of(moment)} is not finite: the state is damaged")
    y = flat / largest
    values = y / (2.0 - y.abs()) * spread if signed else (y * spread).square()
    return _like(values.view(codes.shape), stored)


def _remainder(given: Any, param: Any, master_bytes: Any, where: str) -> Any:
    """The upper 8 or all 16 bits that a bfloat16 parameter lacks of its master weight (adamw_split_weights())."""
    if not isinstance(given, torch.Tensor) or oddity(inner(given)):
        raise ValueError(f"{where}: {ERROR_BITS} is no dense tensor")
    stored: Any = given
    if param is None:
        raise ValueError(
            f"{where}: the state has {ERROR_BITS}, which say nothing without the parameter: load the state into an "
            "optimizer of the model (load_state_dict), or name the model's weights (--weights)"
        )
    if param.dtype != torch.bfloat16:
        raise ValueError(
            f"{where}: the state has {ERROR_BITS}, and the parameter is {str(param.dtype).removeprefix('torch.')}: "
            f"only those of bfloat16 parameters can be read. Delete {ERROR_BITS} to continue without them"
        )
    if is_sharded(param) and not is_sharded(stored):
        param = param.full_tensor()
    elif is_sharded(stored) and not (is_sharded(param) and stored.placements == param.placements):
        stored = stored.full_tensor()
        param = param.full_tensor() if is_sharded(param) else param
    error, p = inner(stored).detach(), inner(param).detach().to(inner(stored).device)
    if error.shape != p.shape:
        raise ValueError(f"{where}: {ERROR_BITS} has shape {tuple(error.shape)}: must be {tuple(p.shape)}")
    wide = master_bytes == 4 if master_bytes is not None else error.dtype == torch.int16
    if error.dtype == torch.bfloat16 and wide:
        error = error.contiguous().view(torch.int16)
    if error.dtype not in (torch.int8, torch.int16, torch.bfloat16):
        raise ValueError(f"{where}: {ERROR_BITS} has dtype {str(error.dtype).removeprefix('torch.')}")
    largest = 32767.0 if wide else 127.0
    share = error.to(torch.float64) / largest
    if not (share.abs() <= 1.01).all():  # -128 and -32768 exist, though nothing is rounded to them
        raise ValueError(f"{where}: {ERROR_BITS} holds numbers beyond {largest:.0f}: the state is damaged")
    exponent = torch.frexp(p.to(torch.float64))[1].clamp(min=-125)  # of subnormal numbers, that of the smallest normal
    weight = (p.to(torch.float64) + share * torch.ldexp(torch.ones_like(share), exponent - 9)).to(torch.float32)
    lacking = weight.view(torch.int32).to(torch.int64) - (p.contiguous().view(torch.int16).to(torch.int64) << 16)
    # Across zero, or where p is no number, the two have nothing in common: p then counts alone.
    lacking = torch.where((weight.signbit() == p.signbit()) & p.isfinite(), lacking, 0)
    if wide:
        return _like(lacking.clamp(-(2**15), 2**15 - 1).to(torch.int16), stored)
    return _like((lacking.to(torch.float64) / 256).round().clamp(-128, 127).to(torch.int8), stored)
