"""Owns state that says no more than that there has been no step: making it, and recognising it. Must not know who wants
it.
"""

from __future__ import annotations

from typing import Any

import torch

from .._native.memory import is_lazy
from . import formats
from .load import Target
from .sharding import inner
from .spec import state_spec, stepped_view, wrapped_state


def blank_states(target: Target) -> dict[torch.Tensor, dict[str, Any]]:
    """{parameter: the state that its first step would make}, for parameters of `target` that have none.

    Leaves out parameters that require no gradient, have no memory yet, or cannot be stepped.
    """
    made = {}
    for group in target.groups:
        for param in group["params"]:
            if not param.requires_grad or is_lazy(param) or param.device.type == "meta" or target.states.get(param):
                continue
            options = target.overrides.applied(group, param)
            try:
                local = stepped_view(param, options, "")
            except ValueError:  # a step will say it
                continue
            fresh = formats.fresh(state_spec(local, options, target.pages))
            step = torch.tensor(0.0, dtype=torch.float32, device="cpu")
            made[param] = wrapped_state({"step": step, **fresh}, param, local)
    return made


def is_blank(state: Any) -> bool:
    """Whether a step does the same with this state as without any."""
    if "step" not in state or float(state["step"]) != 0 or set(state) - set(formats.KEYS):
        return False
    return not any(inner(value).detach().any() for value in state.values())
