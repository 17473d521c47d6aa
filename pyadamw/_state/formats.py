"""Owns the parts of the optimizer state of one parameter: keys, shapes and dtypes; making, checking, converting it.

Must not know of parameter groups, checkpoints or steps. Elements are in the logical order of the parameter. The second
moment of 8-bit state is stored as its square root (adamw.h, adamw_state_format).

A moment of 32-bit state has the key `exp_avg`, as in torch. A moment of 8-bit state has the keys `exp_avg_codes` and
`exp_avg_absmax`. Codes never have torch's keys: so a tool that knows only those fails, and does not read codes as
numbers. (In state format 1, codes had torch's keys.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from .._checks import is_finite, is_real, shown
from .._native import cdef
from .._native.constants import BLOCK8, FLOAT32, TENSOR8
from .._native.layout import absmax_shape, kind
from .._native.memory import lies_plainly, oddity, plain
from .._native.pager import home
from .._native.quantize import dequantize, quantize
from ..paging import PageManager
from .damage import FLOATS, check_moment, check_not_negative, check_scales

MAPS = {"exp_avg": "signed", "exp_avg_sq": "unsigned", "max_exp_avg_sq": "unsigned"}
HISTORY = "gnorm_history"
MAX_STEPS = 2**53  # a float64 can hold every whole number up to here


def codes_of(moment: str) -> str:
    return f"{moment}_codes"


def absmax_of(moment: str) -> str:
    return f"{moment}_absmax"


# The keys of state; those with the shape of the parameter; those with a number for each block.
BY_ELEMENT = {*MAPS, *map(codes_of, MAPS)}
BY_BLOCK = set(map(absmax_of, MAPS))
KEYS = {"step", HISTORY, *BY_ELEMENT, *BY_BLOCK}


class Spec(NamedTuple):
    """The kind of state that a parameter needs."""

    shape: torch.Size
    device: torch.device
    format: int  # adamw_state_format
    amsgrad: bool
    clipping: bool  # percentile clipping: there is a history of gradient norms
    pages: PageManager | None  # None: it is not paged
    block_dim: int | None = None  # of the whole parameter, if this is a part of it; None: this is the whole

    def moments(self) -> tuple[str, ...]:
        return tuple(MAPS) if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def absmax_shape(self) -> tuple[int, ...]:
        return absmax_shape(self.shape, kind(self.format).block_wise, self.block_dim)

    def zeros(self, shape: Sequence[int], dtype: torch.dtype) -> Any:
        if self.pages is not None:
            return self.pages.pager(self.device).zeros(shape, dtype)
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def is_home(self, tensor: torch.Tensor) -> bool:
        """Whether the memory of `tensor` is where the state of this parameter belongs."""
        pager = home(tensor)[0]
        if self.pages is None or is_shared(tensor):  # shared memory stays where it is
            return pager is None and tensor.device == self.device
        return pager is self.pages.pager(self.device)

    def workplace(self) -> Any:
        """The device that converts state: paged state must not pass through the memory of a CUDA device."""
        return self.device if self.pages is None else torch.device("cpu")


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether other processes may use the same host memory. (torch calls every GPU tensor shared.)"""
    return tensor.device.type == "cpu" and tensor.is_shared()


def fresh(spec: Spec) -> dict[str, Any]:
    """The state before the first step, without `step`: zeros."""
    state = {}
    for moment in spec.moments():
        state.update(_zero_moment(moment, spec))
    if spec.clipping:
        state[HISTORY] = _empty_history(spec)
    return state


def _empty_history(spec: Spec) -> Any:
    """Zeros: the next step fills all entries with its squared norm."""
    return torch.zeros(cdef.GNORM_HISTORY, dtype=torch.float32, device=spec.device)


def _zero_moment(moment: str, spec: Spec) -> Any:
    if not kind(spec.format).coded:
        return {moment: spec.zeros(spec.shape, torch.float32)}
    return {
        codes_of(moment): spec.zeros(spec.shape, torch.uint8),
        absmax_of(moment): spec.zeros(spec.absmax_shape(), torch.float32),
    }


def step_count(value: Any, where: str) -> float:
    """`step` of a state, a number or a one-element tensor, as a float. It is a whole number from 0 to 2^53."""
    number = value
    if isinstance(value, torch.Tensor) and not oddity(value) and value.numel() == 1 and not value.is_complex():
        number = value.item()
    if not (is_real(number) and is_finite(number) and 0 <= number <= MAX_STEPS and number == int(number)):
        need = "a whole number from 0 to 2^53, or a tensor that holds one"
        raise ValueError(f"{where}: step = {shown(value)}: must be {need}")
    return float(number)


# In the state dict of 8-bit state, this number is under torch's keys. If torch.distributed.checkpoint should read it as
# 32-bit state, it leaves the number as it is, and loading can report that. No tool can take it for a tensor.
MARK = 8


def marked(state: Any) -> Any:
    return {**state, **{moment: MARK for moment in MAPS if codes_of(moment) in state}}


def without_marks(state: Any, where: str) -> Any:
    """The state without the marks of marked(). Refuses a state that has only the mark of a moment."""
    if not isinstance(state, Mapping):
        return state
    marks = [moment for moment in MAPS if isinstance(state.get(moment), int)]
    for moment in marks:
        if codes_of(moment) not in state:
            raise ValueError(
                f"{where}: the state was saved in 8 bits, but has no {codes_of(moment)}. torch.distributed.checkpoint "
                "reads only keys that the optimizer has, and this optimizer may keep 32-bit state here. Load the "
                "checkpoint into an optimizer of the class and options (min_8bit_size, overrides) that saved it. Then "
                "pass the state_dict() of that optimizer to load_state_dict() of this one, which converts"
            )
    # torch.distributed.checkpoint gives {} for keys that it did not find in a flat checkpoint.
    missing = [key for key in KEYS if isinstance(state.get(key), dict) and not state[key]]
    return {key: value for key, value in state.items() if key not in (*marks, *missing)}


def renamed(state: Any, spec: Spec) -> Any:
    """A state of format 1, whose codes have torch's keys, with today's keys and shapes; any other state unchanged."""
    old = [moment for moment in MAPS if _is_codes(state.get(moment)) and absmax_of(moment) in state]
    if not old:
        return state
    new = {codes_of(moment): state[moment] for moment in old}
    result = {key: value for key, value in state.items() if key not in old} | new
    for key in map(absmax_of, old):
        scales = result[key]
        if isinstance(scales, torch.Tensor) and scales.numel() == math.prod(spec.absmax_shape()):
            result[key] = scales.reshape(spec.absmax_shape())
    return result


def _is_codes(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.uint8


def _stored_format(state: Any, moment: str, spec: Spec, where: str) -> Any:
    """The stored format of a moment, by the shape of its scales."""
    if moment in state:
        return FLOAT32
    scales = tuple(_tensor(state, absmax_of(moment), where).shape)
    if kind(spec.format).coded and scales == spec.absmax_shape():
        return spec.format  # in a tensor of one block, block-wise and tensor-wise are the same
    blocks = spec._replace(format=BLOCK8).absmax_shape()
    return TENSOR8 if scales == (1,) and blocks != (1,) else BLOCK8


def conform(state: Any, spec: Spec, where: str, received: bool = False) -> dict[str, Any]:
    """`state` (a mapping) as `spec` demands: converted to its width, on its device; without `step`.

    Tensors that are already right are not copied. Parts that are missing because an option was switched on later
    (amsgrad, percentile clipping) start from zero. Torch's keys win over codes: if a tool puts an `exp_avg` beside
    `exp_avg_codes`, it knows torch's keys and means them. `received`: the state comes from elsewhere, so its numbers
    are checked too. Raises a ValueError that names `where`, the key and the fault; changes nothing.
    """
    state, result = renamed(without_marks(state, where), spec), {}
    for moment in MAPS:
        if moment in state or codes_of(moment) in state:
            source = spec._replace(format=_stored_format(state, moment, spec, where))
            _check_moment(state, moment, source, where)
            if received:
                _check_numbers(state, moment, source, where)
            result.update(_as_format(state, moment, source, spec, where))
        elif moment in spec.moments():
            if moment != "max_exp_avg_sq":
                raise ValueError(
                    f"{where}: the state has neither {moment} nor {codes_of(moment)}. torch.distributed.checkpoint "
                    "reads only keys that the optimizer has: if you used it, the checkpoint may have the other width "
                    "(32 or 8 bits). Load it into an optimizer of the class and options that saved it"
                )
            result.update(_zero_moment(moment, spec))
    if HISTORY in state:
        history = _check(state, HISTORY, (cdef.GNORM_HISTORY,), where)
        if received:
            check_scales(history, f"{where}: {HISTORY}")
        result[HISTORY] = _placed(history, torch.float32, spec._replace(pages=None))
    elif spec.clipping:
        result[HISTORY] = _empty_history(spec)
    return result


def _tensor(state: Any, key: str, where: str) -> Any:
    if key not in state:
        raise ValueError(f"{where}: the state has no {key}")
    value = state[key]
    if oddity(value):
        raise ValueError(f"{where}: {key} is {oddity(value)}: must be a dense tensor")
    return value


def _check(state: Any, key: str, shape: Sequence[int], where: str, dtypes: str = "float") -> Any:
    """state[key], a tensor of that shape and of a floating dtype (or of uint8)."""
    value = _tensor(state, key, where)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{where}: {key} has shape {tuple(value.shape)}: must be {tuple(shape)}")
    valid = value.dtype == torch.uint8 if dtypes == "uint8" else value.dtype in FLOATS
    if not valid:
        raise ValueError(f"{where}: {key} has dtype {str(value.dtype).removeprefix('torch.')}: must be {dtypes}")
    return value


def _check_moment(state: Any, moment: str, source: Spec, where: str) -> None:
    if not kind(source.format).coded:
        _check(state, moment, source.shape, where)
    else:
        _check(state, codes_of(moment), source.shape, where, "uint8")
        _check(state, absmax_of(moment), source.absmax_shape(), where)


def _check_numbers(state: Any, moment: str, source: Spec, where: str) -> None:
    if not kind(source.format).coded:
        check_moment(state[moment], f"{where}: {moment}", negative=moment == "exp_avg")
    else:  # second moments are stored as their square roots
        scale = absmax_of(moment)
        check_scales(state[scale], f"{where}: {scale}", squared=moment != "exp_avg")


def _placed(tensor: torch.Tensor, dtype: torch.dtype, spec: Spec) -> Any:
    """The tensor in the memory that `spec` demands: the tensor itself if it is there already."""
    valid = tensor.dtype == dtype and lies_plainly(tensor) and not tensor.requires_grad
    if valid and spec.is_home(tensor):
        return tensor
    if spec.pages is None:
        moved = plain(tensor.detach().to(device=spec.device, dtype=dtype))
        return moved if home(moved)[0] is None else moved.clone()
    return spec.zeros(tensor.shape, dtype).copy_(tensor.detach())


def _at_work(tensor: torch.Tensor, dtype: torch.dtype, spec: Spec) -> Any:
    return plain(tensor.detach().to(device=spec.workplace(), dtype=dtype))


def _as_format(state: Any, moment: str, source: Spec, spec: Spec, where: str) -> Any:
    """One checked moment, in the format of `spec`."""
    codes_key, scale = codes_of(moment), absmax_of(moment)
    if source.format == spec.format:
        coded = {codes_key: torch.uint8, scale: torch.float32}
        dtypes = coded if kind(spec.format).coded else {moment: torch.float32}
        return {key: _placed(state[key], dtype, spec) for key, dtype in dtypes.items()}
    if not kind(source.format).coded:
        values = _at_work(state[moment], torch.float32, spec)
        if not values.isfinite().all():  # its code would be zero, and a second moment of zero leads to m / eps
            raise ValueError(
                f"{where}: {moment} has an infinity or NaN, which 8-bit state cannot hold: "
                "keep 32-bit state for this parameter (optim_bits=32), or set these elements of all moments to 0"
            )
        if moment != "exp_avg":
            check_not_negative(values, f"{where}: {moment}")
            values = values.sqrt()
    else:
        codes, absmax = _at_work(state[codes_key], torch.uint8, spec), _at_work(state[scale], torch.float32, spec)
        values = dequantize(codes, absmax, MAPS[moment], state_format=source.format)
        if not kind(spec.format).coded:
            return {moment: _placed(values if moment == "exp_avg" else values.square_(), torch.float32, spec)}
    codes, absmax = quantize(values, MAPS[moment], state_format=spec.format)
    absmax = absmax.reshape(spec.absmax_shape())
    return {codes_key: _placed(codes, torch.uint8, spec), scale: _placed(absmax, torch.float32, spec)}
