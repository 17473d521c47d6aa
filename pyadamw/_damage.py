"""Owns which numbers of state no step can have left. Must not know what state is made of.

Infinities and NaNs in moments are none of these: a gradient leaves them in 32-bit state, as it does in torch's.
"""

import torch

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)  # what numbers may have been stored as


def check_moment(values, where, negative):
    """`negative`: it may be, as a first moment."""
    if not negative:
        check_not_negative(values, where)
    if values.dtype == torch.float64 and not (values.to(torch.float32).isfinite() == values.isfinite()).all():
        raise ValueError(f"{where} has a number that is infinite in float32: the state is damaged")


def check_scales(values, where, squared=False):
    """`squared`: of what is stored as square roots. Gradients whose squares are infinite leave no trace there."""
    values = values.to(torch.float32)
    if not (values.square() if squared else values).isfinite().all():
        raise ValueError(f"{where} is not finite: the state is damaged")
    check_not_negative(values, where)


def check_not_negative(values, where):
    if (values < 0).any():
        raise ValueError(f"{where} has a negative number: the state is damaged")


def check_no_nan(values, where):
    if values.isnan().any():
        raise ValueError(f"{where} has a NaN: the state comes from a run that has failed")
