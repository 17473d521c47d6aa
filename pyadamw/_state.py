"""Owns what optimizer state of one parameter is made of: its keys, shapes and dtypes; making, checking, converting it.

Must not know of parameter groups, checkpoints or steps. Everything is in the parameter's logical order. The second
moment of 8-bit state is stored as its square root (adamw.h, adamw_state_format).
"""

import math
from typing import NamedTuple

import torch

from . import _cdef
from ._checks import is_real
from ._pager import home
from ._paging import PageManager
from .functional import BLOCK8, TENSOR8, absmax_shape, dequantize, quantize

FLOAT32 = 0  # adamw_state_format, beside BLOCK8 and TENSOR8
MAPS = {"exp_avg": "signed", "exp_avg_sq": "unsigned", "max_exp_avg_sq": "unsigned"}
HISTORY = "gnorm_history"
KEYS = {"step", HISTORY, *MAPS, *(f"{moment}_absmax" for moment in MAPS)}


class Spec(NamedTuple):
    """What the state of a parameter is to be."""

    shape: torch.Size
    device: torch.device
    format: int  # adamw_state_format
    amsgrad: bool
    clipping: bool  # percentile clipping: there is a history of gradient norms
    pages: PageManager | None  # None: it is not paged

    def moments(self):
        return tuple(MAPS) if self.amsgrad else ("exp_avg", "exp_avg_sq")

    def absmax_shape(self):
        return absmax_shape(self.shape, self.format == BLOCK8)

    def zeros(self, shape, dtype):
        if self.pages is not None:
            return self.pages.pager(self.device).zeros(shape, dtype)
        return torch.zeros(shape, dtype=dtype, device=self.device)

    def is_home(self, tensor):
        """Whether its memory is where state of this parameter belongs."""
        pager = home(tensor)[0]
        return pager is self.pages.pager(self.device) if self.pages else pager is None and tensor.device == self.device

    def workplace(self):
        """Where state is converted: paged state must not pass through the device's memory."""
        return self.device if self.pages is None else torch.device("cpu")


def fresh(spec):
    """The state before the first step, without `step`: zeros."""
    state = {}
    for moment in spec.moments():
        state.update(_zero_moment(moment, spec))
    if spec.clipping:
        state[HISTORY] = _empty_history(spec)
    return state


def _empty_history(spec):
    """Zeros: the next step fills all of it with its own squared norm."""
    return torch.zeros(_cdef.GNORM_HISTORY, device=spec.device)


def _zero_moment(moment, spec):
    if spec.format == FLOAT32:
        return {moment: spec.zeros(spec.shape, torch.float32)}
    return {
        moment: spec.zeros(spec.shape, torch.uint8),
        f"{moment}_absmax": spec.zeros(spec.absmax_shape(), torch.float32),
    }


def step_count(value, where):
    """`step` of a state, a number or a one-element tensor, as a float. It is a whole number >= 0."""
    number = value
    if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
        number = value.item()
    if not (is_real(number) and math.isfinite(number) and number >= 0 and number == int(number)):
        raise ValueError(f"{where}: step = {value!r}: must be a whole number >= 0, or a tensor that holds one")
    return float(number)


def stored_format(state, spec, where):
    """The format of a state by its content: the dtype of exp_avg, and the shape of its scales."""
    if _tensor(state, "exp_avg", where).dtype != torch.uint8:
        return FLOAT32
    scales = tuple(_tensor(state, "exp_avg_absmax", where).shape)
    if spec.format != FLOAT32 and scales == spec.absmax_shape():
        return spec.format  # in a tensor of one block, block-wise and tensor-wise are the same
    return TENSOR8 if scales == (1,) and absmax_shape(spec.shape) != (1,) else BLOCK8


def conform(state, spec, where):
    """`state` (a mapping) as `spec` wants it: converted to its width, on its device; without `step`.

    Tensors that are right already are not copied. What is missing because an option was switched on later (amsgrad,
    percentile clipping) starts anew. Raises ValueError naming `where`, the key and what is wrong; changes nothing.
    """
    source = spec._replace(format=stored_format(state, spec, where))
    result = {}
    for moment in MAPS:
        if moment in state:
            _check_moment(state, moment, source, where)
            result.update(_as_format(state, moment, source, spec))
        elif moment in spec.moments():
            if moment != "max_exp_avg_sq":
                raise ValueError(f"{where}: the state has no {moment}")
            result.update(_zero_moment(moment, spec))
    if HISTORY in state:
        history = _check(state, HISTORY, (_cdef.GNORM_HISTORY,), where)
        result[HISTORY] = _placed(history, torch.float32, spec._replace(pages=None))
    elif spec.clipping:
        result[HISTORY] = _empty_history(spec)
    return result


def _tensor(state, key, where):
    if key not in state:
        raise ValueError(f"{where}: the state has no {key}")
    value = state[key]
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise ValueError(f"{where}: {key} is {type(value).__name__}: must be a dense tensor")
    return value


def _check(state, key, shape, where, dtypes="float"):
    """state[key], a tensor of that shape and of a floating dtype (or of uint8)."""
    value = _tensor(state, key, where)
    if tuple(value.shape) != tuple(shape):
        raise ValueError(f"{where}: {key} has shape {tuple(value.shape)}: must be {tuple(shape)}")
    right = value.dtype == torch.uint8 if dtypes == "uint8" else value.dtype.is_floating_point
    if not right:
        raise ValueError(f"{where}: {key} has dtype {str(value.dtype).removeprefix('torch.')}: must be {dtypes}")
    return value


def _check_moment(state, moment, source, where):
    if source.format == FLOAT32:
        _check(state, moment, source.shape, where)
    else:
        _check(state, moment, source.shape, where, "uint8")
        _check(state, f"{moment}_absmax", source.absmax_shape(), where)


def _placed(tensor, dtype, spec):
    """The tensor where `spec` wants it: itself if that is so."""
    right = tensor.dtype == dtype and tensor.is_contiguous() and not tensor.requires_grad
    if right and spec.is_home(tensor):
        return tensor
    if spec.pages is None:
        moved = tensor.detach().to(device=spec.device, dtype=dtype).contiguous()
        return moved if home(moved)[0] is None else moved.clone()
    return spec.zeros(tensor.shape, dtype).copy_(tensor.detach())


def _at_work(tensor, dtype, spec):
    return tensor.detach().to(device=spec.workplace(), dtype=dtype).contiguous()


def _as_format(state, moment, source, spec):
    """One checked moment, in the format of `spec`."""
    scale = f"{moment}_absmax"
    if source.format == spec.format:
        dtypes = {moment: torch.float32} if spec.format == FLOAT32 else {moment: torch.uint8, scale: torch.float32}
        return {key: _placed(state[key], dtype, spec) for key, dtype in dtypes.items()}
    if source.format == FLOAT32:
        values = _at_work(state[moment], torch.float32, spec)
        if moment != "exp_avg":
            values = values.sqrt()
    else:
        codes, absmax = _at_work(state[moment], torch.uint8, spec), _at_work(state[scale], torch.float32, spec)
        values = dequantize(codes, absmax, MAPS[moment], block_wise=source.format == BLOCK8)
        if spec.format == FLOAT32:
            return {moment: _placed(values if moment == "exp_avg" else values.square_(), torch.float32, spec)}
    codes, absmax = quantize(values, MAPS[moment], block_wise=spec.format == BLOCK8)
    return {moment: _placed(codes, torch.uint8, spec), scale: _placed(absmax, torch.float32, spec)}


def check_finite(state, where):
    """Refuses NaN and infinity, and what cannot be negative. For state that comes from outside, already conforming."""
    for key, value in state.items():
        if value.dtype == torch.uint8 or value.numel() == 0:
            continue
        least, most = (bound.item() for bound in value.aminmax())  # NaN if there is one
        if not (math.isfinite(least) and math.isfinite(most)):
            raise ValueError(f"{where}: {key} is not finite")
        if least < 0 and key != "exp_avg":
            raise ValueError(f"{where}: {key} has a negative number, {least}")
