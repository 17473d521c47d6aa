"""Owns recognising state from the AdamW of bitsandbytes and torchao, by its content, for one parameter. Must not know
of groups or steps. (State of torch.optim.AdamW needs no work: it has the keys and values of 32-bit state.)

bitsandbytes: state1 and state2 are exp_avg and exp_avg_sq. With 8-bit codes, an element is qmap[code] times a scale.
The scale is absmax of its block of the flattened tensor (256 elements, 2048 before version 0.44), or the one number
max1 or max2 of the tensor. Since version 0.44 the keys are in an inner dict.

torchao: exp_avg and exp_avg_sq are tensors of a class that has codes, a scale for each block, and qmap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .._checks import is_integer
from .._native.memory import oddity
from . import flashoptim
from .damage import FLOATS
from .dynamic_maps import decoded

_WRAPPER = "__bnb_optimizer_quant_state__"
_MOMENTS = {"exp_avg": "1", "exp_avg_sq": "2"}
_BITSANDBYTES = {
    "step",
    "gnorm_vec",  # of percentile clipping: squared norms, as here
    "unorm_vec",  # scratch of max_unorm
    *(f"{name}{i}" for name in ("state", "qmap", "absmax", "max", "new_max") for i in _MOMENTS.values()),
}
_BLOCKS = (256, 2048)


def translated(entry: Any, numel: int, where: str) -> Any:
    """`entry`, a mapping, with our keys and float32 values if it is foreign; otherwise unchanged.

    Tensors that are already right are not copied. A ValueError names `where`, the key and the fault.
    """
    if _WRAPPER in entry:
        inner = entry[_WRAPPER]
        if not isinstance(inner, Mapping):
            raise ValueError(f"{where}: {_WRAPPER} is {type(inner).__name__}: must be a dict")
        entry = {**{key: value for key, value in entry.items() if key != _WRAPPER}, **inner}
    if "state1" in entry or "state2" in entry:
        return _from_bitsandbytes(entry, numel, where)
    if any(_is_torchao(value) for value in entry.values()):
        return {key: _from_torchao(value, numel, f"{where}: {key}") for key, value in entry.items()}
    return entry


def bits_of(entry: Any) -> int:
    """The width of the moments of an entry, foreign or not: 8 (codes), 16 (bfloat16) or 32 (other numbers)."""
    moment = _first_moment(entry)[1]
    if _is_torchao(moment) or flashoptim.has_codes(entry):
        return 8
    return {torch.uint8: 8, torch.bfloat16: 16}.get(moment.dtype, 32) if isinstance(moment, torch.Tensor) else 32


def shape_of(entry: Any, where: str) -> Any:
    """The shape of the parameter that an entry belongs to."""
    key, moment = _first_moment(entry)
    if key is None:
        raise ValueError(f"{where}: the state has none of {', '.join(_FIRST)}")
    if not _is_torchao(moment):
        _dense(moment, f"{where}: {key}")
        if moment.untyped_storage().nbytes() < moment.numel() * moment.element_size():
            raise ValueError(f"{where}: {key} has shape {tuple(moment.shape)}, but memory for fewer elements")
    return moment.shape


_FIRST = ("state1", "exp_avg_codes", "exp_avg")


def _first_moment(entry: Any) -> Any:
    inner = entry.get(_WRAPPER, entry)
    found = ((key, inner[key]) for key in _FIRST if key in inner) if isinstance(inner, Mapping) else ()
    return next(iter(found), (None, None))


# ---- bitsandbytes ----------------------------------------------------------------------------------------------------


def _from_bitsandbytes(entry: Any, numel: int, where: str) -> Any:
    unknown = sorted(map(str, set(entry) - _BITSANDBYTES))
    if unknown:
        raise ValueError(f"{where}: the state has {', '.join(unknown)}, which no known version of bitsandbytes writes")
    result = {"step": entry["step"]} if "step" in entry else {}
    for moment, i in _MOMENTS.items():
        codes = _tensor(entry, f"state{i}", where)
        if codes.numel() != numel:
            raise ValueError(f"{where}: state{i} has {codes.numel()} elements: must have {numel}")
        if codes.dtype != torch.uint8:
            result[moment] = codes
            continue
        qmap = _tensor(entry, f"qmap{i}", where)
        one = f"absmax{i}" not in entry and f"max{i}" in entry
        key, blocks = (f"max{i}", (max(numel, 1),)) if one else (f"absmax{i}", _BLOCKS)
        scales = _tensor(entry, key, where)
        result[moment] = _decoded(codes, qmap, scales, blocks, f"{where}: {key}", f"{where}: qmap{i}")
    if "gnorm_vec" in entry:
        result["gnorm_history"] = _tensor(entry, "gnorm_vec", where)
    return result


def _tensor(entry: Any, key: str, where: str) -> Any:
    if key not in entry:
        raise ValueError(f"{where}: {key} is missing: must be a dense tensor")
    return _dense(entry[key], f"{where}: {key}")


def _dense(value: Any, where: str) -> Any:
    if oddity(value):
        raise ValueError(f"{where} is {oddity(value)}: must be a dense tensor")
    return value


def _decoded(
    codes: torch.Tensor, qmap: torch.Tensor, scales: torch.Tensor, blocks: Any, where: str, where_map: Any
) -> Any:
    """The float32 values of 8-bit codes, in the same shape. `blocks`: possible numbers of elements per scale."""
    numel = codes.numel()
    if qmap.numel() != 256 or qmap.dtype not in FLOATS:
        raise ValueError(f"{where_map} has {qmap.numel()} elements of {qmap.dtype}: must be 256 floats")
    counts = {-(-numel // block): block for block in reversed(blocks)}
    if scales.dtype not in FLOATS or scales.numel() not in counts:
        need = " or ".join(map(str, sorted(counts, reverse=True)))
        raise ValueError(f"{where} has {scales.numel()} elements of {scales.dtype}: must be {need} floats")
    if not (scales.isfinite().all() and qmap.isfinite().all()):
        raise ValueError(f"{where} or {where_map} is not finite: the state is damaged")
    return decoded(codes, scales, qmap, counts[scales.numel()])


# ---- torchao ---------------------------------------------------------------------------------------------------------


def _is_torchao(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and all(hasattr(value, name) for name in ("codes", "scale", "qmap"))


def _from_torchao(value: Any, numel: int, where: str) -> Any:
    if not _is_torchao(value):
        return value
    codes, scale, qmap = (_dense(getattr(value, name), f"{where}.{name}") for name in ("codes", "scale", "qmap"))
    if codes.dtype != torch.uint8 or codes.numel() != numel:
        raise ValueError(f"{where} has {codes.numel()} codes of {codes.dtype}: must be {numel} of uint8")
    block = getattr(value, "block_size", 256)
    if not (is_integer(block) and block > 0):
        raise ValueError(f"{where}.block_size = {block!r}: must be an integer > 0")
    return _decoded(codes, qmap, scale, (block,), f"{where}.scale", f"{where}.qmap").view(value.shape)
