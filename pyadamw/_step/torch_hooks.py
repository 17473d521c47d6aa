"""Owns the wrapper around every step(): the user's hooks and the profiler's label. Must not know what a step does.

Otherwise torch.optim.Optimizer would wrap step(), with a profiler label that costs 25 us even without a profiler.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.optim import optimizer as torch_optimizer

_before = torch_optimizer._global_optimizer_pre_hooks
_after = torch_optimizer._global_optimizer_post_hooks
_is_compiling = torch.compiler.is_compiling
_label = getattr(torch._C._profiler, "_RecordFunctionFast", torch.autograd.profiler.record_function)

Step = TypeVar("Step", bound=Callable[..., Any])


def with_hooks(step: Step) -> Step:
    """Wraps `step` as torch.optim.Optimizer.profile_hook_step() does, for the class that defines it."""

    @functools.wraps(step)
    def hooked(self, *args, **kwargs):
        if _is_compiling():  # a graph cannot hold raw addresses
            return uncompiled(self, *args, **kwargs)
        if type(self).step is not hooked:  # called by the step() of a subclass, which torch has wrapped
            return step(self, *args, **kwargs)
        with _label(f"Optimizer.step#{type(self).__name__}.step"):
            for hook in (*_before.values(), *self._optimizer_step_pre_hooks.values()):
                result = hook(self, (self, *args), kwargs)
                if result is not None:
                    if not (isinstance(result, tuple) and len(result) == 2):
                        raise RuntimeError(f"a step pre-hook must return None or (new_args, new_kwargs), not {result}")
                    (self, *args), kwargs = result
            out = step(self, *args, **kwargs)
            self._optimizer_step_code()
            for hook in (*self._optimizer_step_post_hooks.values(), *_after.values()):
                hook(self, (self, *args), kwargs)
            return out

    # Unlike torch.compiler.disable(), this imports the compiler no earlier than it is called.
    uncompiled = torch._disable_dynamo(hooked)
    hooked.hooked = True  # torch leaves it alone
    return hooked
