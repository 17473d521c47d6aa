"""Owns what each option of a parameter group may be, and the sentence that says so. Must not know what options do."""

import math
import numbers
from collections.abc import Mapping

import torch

from ._device import stays_there

# The options that `args` may carry, as in bitsandbytes.
ARGS = ("optim_bits", "min_8bit_size", "percentile_clipping", "block_wise", "max_unorm", "skip_zeros")


def _refuse(name, value, need):
    raise ValueError(f"{name} = {value!r}: must be {need}")


def is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def scalar(value):
    """A learning rate, or any other number that may be a one-element tensor, as a float."""
    return value.item() if isinstance(value, torch.Tensor) else float(value)


def _finite_at_least_zero(name, value):
    if not (is_real(value) and math.isfinite(value) and value >= 0):
        _refuse(name, value, "a finite number >= 0")


def _learning_rate(name, value):
    if isinstance(value, torch.Tensor):
        if value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
            _refuse(name, value, "a finite number >= 0 or a tensor that holds one")
        if value.device.type == "meta" or stays_there(value):
            return
        number = value.item()
    else:
        number = value
    if not (is_real(number) and math.isfinite(number) and number >= 0):
        _refuse(name, value, "a finite number >= 0 or a tensor that holds one")


def _betas(name, value):
    need = "two numbers in [0, 1)"
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        _refuse(name, value, need)
    if not all(is_real(beta) and 0 <= beta < 1 for beta in value):
        _refuse(name, value, need)


def _flag(name, value):
    if not isinstance(value, bool):
        _refuse(name, value, "True or False")


def _integer(least, most, need):
    def check(name, value):
        if not (is_integer(value) and value >= least and (most is None or value <= most)):
            _refuse(name, value, need)

    return check


def _width(name, value):
    if not (is_integer(value) and value in (8, 32)):
        _refuse(name, value, "8 or 32")


OPTIONS = {
    "lr": _learning_rate,
    "betas": _betas,
    "eps": _finite_at_least_zero,
    "weight_decay": _finite_at_least_zero,
    "amsgrad": _flag,
    "maximize": _flag,
    "stochastic_rounding": _flag,
    "capturable": _flag,
    "seed": _integer(0, 2**64 - 1, "an integer in [0, 2^64)"),
    "percentile_clipping": _integer(1, 100, "an integer in [1, 100] (100 is off)"),
    "max_unorm": _finite_at_least_zero,
    "skip_zeros": _flag,
    "optim_bits": _width,
    "min_8bit_size": _integer(0, None, "an integer >= 0"),
    "block_wise": _flag,
    "is_paged": _flag,
}


def check_options(options, where=""):
    """Refuses the first option of `options` (a mapping) that is not what it may be; ignores names it does not know."""
    for name, check in OPTIONS.items():
        if name in options:
            check(where + name, options[name])


def check_width(name, allowed):
    """The widths that a class accepts as `optim_bits`: a function that refuses any other."""

    def check(value):
        if not (is_integer(value) and value in allowed):
            _refuse("optim_bits", value, f"{' or '.join(map(str, allowed))} for {name}")

    return check


def carried(args):
    """What `args` (None, a mapping or an object with attributes) says about the options in ARGS, as a dict."""
    if args is None:
        return {}
    if isinstance(args, Mapping):
        return {name: args[name] for name in ARGS if name in args}
    if isinstance(args, (bool, numbers.Number, str, bytes, list, tuple, set, torch.Tensor)):
        _refuse("args", args, f"None, a mapping or an object that may carry {', '.join(ARGS)}")
    return {name: getattr(args, name) for name in ARGS if hasattr(args, name)}
