"""Owns checking the state of one parameter, and converting it to the kind that the parameter needs. Must not know of
parameter groups, checkpoints or steps, nor which parts there are beside those in PARTS.
"""

from __future__ import annotations

from typing import Any

import torch

from .._checks import is_finite, is_real, shown
from .._native.constants import BLOCK8, FLOAT32, FORMAT_OF_DTYPE, TENSOR8
from .._native.layout import kind
from .._native.memory import lies_plainly, oddity, plain
from .._native.pager import home
from .._native.quantize import Quantized, dequantize, quantize
from .damage import FLOATS, check_not_negative
from .formats import CODING, HISTORY, PARTS, REMAINDER, Part, Spec, absmax_of, codes_of, parts_of, zeros
from .remainders import as_integers, in_other_bits, stored_bits

MAX_STEPS = 2**53  # a float64 can hold every whole number up to here


def step_count(value: Any, where: str) -> float:
    """`step` of a state, a number or a one-element tensor, as a float. It is a whole number from 0 to 2^53."""
    number = value
    if isinstance(value, torch.Tensor) and not oddity(value) and value.numel() == 1 and not value.is_complex():
        number = value.item()
    if not (is_real(number) and is_finite(number) and 0 <= number <= MAX_STEPS and number == int(number)):
        need = "a whole number from 0 to 2^53, or a tensor that holds one"
        raise ValueError(f"{where}: step = {shown(value)}: must be {need}")
    return float(number)


def conform(state: Any, spec: Spec, where: str, received: bool = False) -> dict[str, Any]:
    """`state` (a mapping) as `spec` demands: converted to its width, on its device; without `step`.

    Tensors that are already right are not copied. Parts that are missing because an option was switched on later
    (amsgrad, percentile clipping, master weights) start from zero. Torch's keys win over codes: if a tool puts an
    `exp_avg` beside `exp_avg_codes`, it knows torch's keys and means them. `received`: the state comes from elsewhere,
    so its numbers are checked too. Raises a ValueError that names `where`, the key and the fault; changes nothing.
    """
    result: dict[str, Any] = {}
    for moment in CODING:
        if moment in state or codes_of(moment) in state:
            source = spec._replace(format=stored_format(state, moment, spec, where))
            for part in parts_of(moment, source.format):
                _check_part(state, part, source, where, received)
            result.update(_as_format(state, moment, source, spec, where))
        elif moment in spec.moments():
            if moment != "max_exp_avg_sq":
                raise ValueError(
                    f"{where}: the state has neither {moment} nor {codes_of(moment)}. torch.distributed.checkpoint "
                    "reads only keys that the optimizer has: if you used it, the checkpoint may have another width "
                    "(8 bits, or numbers). Load it into an optimizer of the class and options that saved it"
                )
            result.update({part.key: zeros(part, spec) for part in parts_of(moment, spec.format)})
    if HISTORY in state:  # also if clipping is off now
        part = PARTS[HISTORY]
        value = _check_part(state, part, spec, where, received)
        result[HISTORY] = placed(value, part.dtype(spec), part.placing(spec))
    if REMAINDER in state and PARTS[REMAINDER].wanted(spec):
        result[REMAINDER] = _as_remainder(state, spec, where, received)
    for part in (part for part in PARTS.values() if not part.moment):
        if part.wanted(spec) and part.key not in result:
            result[part.key] = zeros(part, spec)
    return result


def _as_remainder(state: Any, spec: Spec, where: str, received: bool) -> Any:
    """The remainders of a state, with the bits of `spec`. The parameter stays as it is."""
    state = {REMAINDER: as_integers(_tensor(state, REMAINDER, where), spec.shape)}
    stored = stored_bits(state[REMAINDER], spec.shape)
    if not stored:
        dtype = str(state[REMAINDER].dtype).removeprefix("torch.")
        raise ValueError(f"{where}: {REMAINDER} has dtype {dtype}: must be int8 or int16")
    part, source = PARTS[REMAINDER], spec._replace(remainder_bits=stored)
    value = _check_part(state, part, source, where, received)
    if stored != spec.remainder_bits:
        value = in_other_bits(at_work(state, part, source), spec.remainder_bits)
    return placed(value, part.dtype(spec), spec)


def _tensor(state: Any, key: str, where: str) -> Any:
    if key not in state:
        raise ValueError(f"{where}: the state has no {key}")
    value = state[key]
    if oddity(value):
        raise ValueError(f"{where}: {key} is {oddity(value)}: must be a dense tensor")
    return value


def stored_format(state: Any, moment: str, spec: Spec, where: str) -> Any:
    """The stored format of a moment, by its dtype or by the shape of its scales."""
    if moment in state:
        value = state[moment]
        return FORMAT_OF_DTYPE.get(value.dtype, FLOAT32) if isinstance(value, torch.Tensor) else FLOAT32
    scales = tuple(_tensor(state, absmax_of(moment), where).shape)
    if kind(spec.format).coded and scales == spec.absmax_shape():
        return spec.format  # in a tensor of one block, block-wise and tensor-wise are the same
    blocks = spec._replace(format=BLOCK8).absmax_shape()
    return TENSOR8 if scales == (1,) and blocks != (1,) else BLOCK8


def check_form(state: Any, part: Part, source: Spec, where: str) -> Any:
    """The tensor of a state, which has the shape of this part, and any floating dtype if the part's is one."""
    key, shape = part.key, part.shape(source)
    if part.role == "floor" and key not in state:
        raise ValueError(
            f"{where}: the state has {codes_of(part.moment)}, but no {key}: it is damaged, or an earlier version of "
            "pyadamw saved it, and the number of its format is lost. To convert state of an earlier version, pass its "
            "state_dict() to load_state_dict() as that version made it"
        )
    value = _tensor(state, key, where)
    if tuple(value.shape) != shape:
        raise ValueError(f"{where}: {key} has shape {tuple(value.shape)}: must be {shape}")
    dtype = part.dtype(source)
    if value.dtype not in (FLOATS if dtype.is_floating_point else (dtype,)):
        need = "float" if dtype.is_floating_point else str(dtype).removeprefix("torch.")
        raise ValueError(f"{where}: {key} has dtype {str(value.dtype).removeprefix('torch.')}: must be {need}")
    return value


def _check_part(state: Any, part: Part, source: Spec, where: str, received: bool) -> Any:
    value = check_form(state, part, source, where)
    if received:
        part.check(value, f"{where}: {part.key}")
    return value


def placed(tensor: torch.Tensor, dtype: torch.dtype, spec: Spec) -> Any:
    """The tensor in the memory that `spec` demands: the tensor itself if it is there already."""
    valid = tensor.dtype == dtype and lies_plainly(tensor) and not tensor.requires_grad
    if valid and spec.is_home(tensor):
        return tensor
    if spec.pages is None:
        moved = plain(tensor.detach().to(device=spec.device, dtype=dtype))
        return moved if home(moved)[0] is None else moved.clone()
    return spec.zeros(tensor.shape, dtype).copy_(tensor.detach())


def at_work(state: Any, part: Part, source: Spec) -> Any:
    """A part of a state of kind `source` where its numbers can be converted."""
    return plain(state[part.key].detach().to(device=source.workplace(), dtype=part.dtype(source)))


def _as_format(state: Any, moment: str, source: Spec, spec: Spec, where: str) -> Any:
    """One checked moment, in the format of `spec`."""
    given, parts, coded = parts_of(moment, source.format), parts_of(moment, spec.format), kind(spec.format).coded
    if source.format == spec.format:
        return {part.key: placed(state[part.key], part.dtype(spec), spec) for part in parts}
    if kind(source.format).coded:
        stored = Quantized(**{"floor": None, **{part.role: at_work(state, part, source) for part in given}})
        values = dequantize(*stored, CODING[moment], state_format=source.format)
    else:
        values = at_work(state, given[0], source)
        if (
            coded and not values.isfinite().all()
        ):  # its code would be zero, and a second moment of zero leads to m / eps
            raise ValueError(
                f"{where}: {moment} has an infinity or NaN, which 8-bit state cannot hold: "
                "keep 32-bit state for this parameter (optim_bits=32), or set these elements of all moments to 0"
            )
        if coded and moment != "exp_avg":
            check_not_negative(values, f"{where}: {moment}")
    if not coded:
        return {moment: placed(values, parts[0].dtype(spec), spec)}
    made = quantize(values, CODING[moment], state_format=spec.format)
    as_shaped = {part: getattr(made, part.role).reshape(part.shape(spec)) for part in parts}
    return {part.key: placed(value, part.dtype(spec), spec) for part, value in as_shaped.items()}
