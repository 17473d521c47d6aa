"""Owns running what the package does under another default of torch: conftest.py calls it where the environment says
so. Must not know any law.

The tests' own tensors are made as ever: what is called is the package's work alone.
"""

import functools
import os

VARIABLE = "PYADAMW_TEST_DEFAULTS"
CHOICES = ("bfloat16", "float16", "float64", "meta")


def under(choice, call):
    @functools.wraps(call)
    def changed(*arguments, **keywords):
        import torch  # see conftest.py

        before = torch.get_default_dtype()
        if choice == "meta":
            with torch.device("meta"):
                return call(*arguments, **keywords)
        torch.set_default_dtype(getattr(torch, choice))
        try:
            return call(*arguments, **keywords)
        finally:
            torch.set_default_dtype(before)

    return changed


def apply():
    choice = os.environ.get(VARIABLE)
    if not choice:
        return
    assert choice in CHOICES, choice
    import pyadamw
    from pyadamw import functional
    from pyadamw._base import Base
    from pyadamw._step.plan import Plan

    # Not step() itself: the user's closure runs in it.
    names = ("__init__", "_current_plan", "_unscale", "state_dict", "load_state_dict", "__setstate__", "memory_report")
    for name in (*names, "to_torch_state_dict", "to_bitsandbytes_state_dict"):
        setattr(Base, name, under(choice, getattr(Base, name)))
    Plan.step = under(choice, Plan.step)
    for name in ("quantize", "dequantize"):
        call = under(choice, getattr(functional, name))
        setattr(functional, name, call)
        setattr(pyadamw, name, call)
