"""Owns the valid values of each option of a parameter group, and the errors. Must not know what options do."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any

import torch

from .._checks import check_seed, finite_at_least_zero, flag, integer, is_finite, is_integer, is_real, refuse, shown
from .._native.cuda import is_on_device
from .._native.memory import oddity
from ..paging import PageManager

# The options that `args` may carry, as in bitsandbytes.
ARGS = ("optim_bits", "min_8bit_size", "percentile_clipping", "block_wise", "max_unorm", "skip_zeros")


def _learning_rate(name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        if value.device.type == "meta" and value.numel() == 1:
            return
        if oddity(value) or value.numel() != 1 or value.is_complex() or value.dtype == torch.bool:
            refuse(name, value, "a finite number >= 0 or a tensor that holds one")
        if is_on_device(value):
            return
        number = value.item()
    else:
        number = value
    if not (is_real(number) and is_finite(number) and number >= 0):
        refuse(name, value, "a finite number >= 0 or a tensor that holds one")


def plain_betas(value: Any) -> Any:
    """A tuple of two floats from any sequence of two numbers, such as a list or an array. Other values are unchanged.

    Every checkpoint can hold such a tuple, and no code can change it in place.
    """
    if isinstance(value, (str, bytes, Mapping, torch.Tensor)) or not hasattr(type(value), "__getitem__"):
        return value
    try:
        numbers_ = [_plain(beta) for beta in value] if len(value) == 2 else []
    except TypeError:  # an array without dimensions has no length
        return value
    valid = len(numbers_) == 2 and all(is_real(number) and is_finite(number) for number in numbers_)
    return tuple(map(float, numbers_)) if valid else value


def _plain(number: Any) -> Any:
    """A number unchanged, or the number in an array without dimensions."""
    is_array = not isinstance(number, torch.Tensor) and getattr(number, "shape", None) == ()
    return number.item() if is_array else number


def _betas(name: str, value: Any) -> None:
    plain = plain_betas(value)
    if not (type(plain) is tuple and len(plain) == 2 and all(is_real(beta) and 0 <= beta < 1 for beta in plain)):
        refuse(name, value, "two numbers in [0, 1)")


def _width(name: str, value: Any) -> None:
    if not (is_integer(value) and value in (8, 16, 32)):
        refuse(name, value, "8, 16 or 32")


def _master_weight_bits(name: str, value: Any) -> None:
    if value is not None and not (is_integer(value) and value in (24, 32)):
        refuse(name, value, "None, 24 or 32")


def _max_grad_norm(name: str, value: Any) -> None:
    if value is not None and not (is_real(value) and value >= 0 and (is_finite(value) or value == math.inf)):
        refuse(name, value, "None or a number >= 0 (infinity: measure the norm, but do not clip)")


def _page_manager(name: str, value: Any) -> None:
    if value is not None and not isinstance(value, PageManager):
        refuse(name, value, "None or a pyadamw.PageManager")


OPTIONS = {
    "lr": _learning_rate,
    "betas": _betas,
    "eps": finite_at_least_zero,
    "weight_decay": finite_at_least_zero,
    "amsgrad": flag,
    "maximize": flag,
    "stochastic_rounding": flag,
    "capturable": flag,
    "seed": check_seed,
    "percentile_clipping": integer(1, 100, "an integer in [1, 100] (100 is off)"),
    "max_unorm": finite_at_least_zero,
    "skip_zeros": flag,
    "optim_bits": _width,
    "min_8bit_size": integer(0, None, "an integer >= 0"),
    "block_wise": flag,
    "is_paged": flag,
    "page_manager": _page_manager,
    "master_weight_bits": _master_weight_bits,
    "max_grad_norm": _max_grad_norm,
    "error_if_nonfinite": flag,
}
CLIPPING = ("max_grad_norm", "error_if_nonfinite")  # of all groups together


def check_options(options: Any, where: str = "") -> None:
    """Refuses the first option of `options` (a mapping) that has a wrong value; ignores unknown names."""
    for name, check in OPTIONS.items():
        if name in options:
            check(where + name, options[name])


def check_clipping(groups: Any) -> None:
    """Refuses groups that have wrong or different values of max_grad_norm or error_if_nonfinite; a group may lack them.

    There is one norm of all gradients.
    """
    for name in CLIPPING:
        known = [(number, group[name]) for number, group in enumerate(groups) if name in group]
        for number, value in known:
            OPTIONS[name](f"group {number}: {name}", value)
            if value != known[0][1]:
                first, expected = known[0]
                need = f"{shown(expected)}, as in group {first}: there is one norm of the gradients of all groups"
                refuse(f"group {number}: {name}", value, need)


def check_width(name: str, allowed: Any) -> Any:
    """A function that refuses other values of `optim_bits` than the widths that a class allows."""

    def check(value: Any) -> None:
        if not (is_integer(value) and value in allowed):
            refuse("optim_bits", value, f"{' or '.join(map(str, allowed))} for {name}")

    return check


def carried(args: Any) -> Any:
    """The options in ARGS that `args` (None, a mapping or an object with attributes) has, as a dict."""
    if args is None:
        return {}
    if isinstance(args, Mapping):
        return {name: args[name] for name in ARGS if name in args}
    if isinstance(args, (bool, numbers.Number, str, bytes, list, tuple, set, torch.Tensor)):
        refuse("args", args, f"None, a mapping or an object that may carry {', '.join(ARGS)}")
    return {name: getattr(args, name) for name in ARGS if hasattr(args, name)}
