"""Owns finding numbers in state that no step can produce: damage. Must not know the parts of state.

Infinities and NaNs in moments are no damage: gradients can cause them in 32-bit state, as in torch.
"""

from __future__ import annotations

from typing import Any

import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # dtypes of stored numbers

ROOT_OF_ZERO = 1.125 * 2.0**-16  # the smallest floor: adamw.h, adamw_state_format


def check_moment(values: Any, where: str, negative: bool) -> None:
    """`negative`: whether negative values are valid, as in a first moment."""
    if not negative:
        check_not_negative(values, where)
    if values.dtype == torch.float64 and not (values.to(torch.float32).isfinite() == values.isfinite()).all():
        raise ValueError(f"{where} has a number that is infinite in float32: the state is damaged")


def check_scales(values: Any, where: str) -> None:
    values = values.to(torch.float32)
    if not values.isfinite().all():
        raise ValueError(f"{where} is not finite: the state is damaged")
    check_not_negative(values, where)


def check_floors(values: Any, where: str) -> None:
    """A floor is 0 in fresh state; else it is at least the root that the library takes of 0."""
    if not ((values == 0) | ((values >= ROOT_OF_ZERO) & (values <= 1))).all():
        raise ValueError(f"{where} has a number that is neither 0 nor in [{ROOT_OF_ZERO}, 1]: the state is damaged")


def check_not_negative(values: Any, where: str) -> None:
    if (values < 0).any():
        raise ValueError(f"{where} has a negative number: the state is damaged")


def check_no_nan(values: Any, where: str) -> None:
    if values.isnan().any():
        raise ValueError(f"{where} has a NaN: the state comes from a run that has failed")
