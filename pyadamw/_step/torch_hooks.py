"""Owns the wrapper around every step(): the user's hooks and the profiler's label. Must not know what a step does.

Otherwise torch.optim.Optimizer would wrap step(), with a profiler label that costs 25 us even without a profiler. It
does wrap step() where torch_private.step_hooks is None. The code here stands for profile_hook_step() of torch:
tests/python/test_torch_hooks.py notices when that changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from .._native.torch_private import (
    StepHooks,
    is_tracing,
    mark_step,
    own_hooks_after,
    own_hooks_before,
    profiler_label,
    step_hooks,
)
from .._native.torch_private import uncompiled as make_uncompiled

_is_compiling = torch.compiler.is_compiling

Step = TypeVar("Step", bound=Callable[..., Any])


def with_hooks(step: Step) -> Step:
    """`step` as torch.optim.Optimizer.profile_hook_step() makes it, for the class that has it."""
    return not_compiled(step) if step_hooks is None else _hooked(step, step_hooks)


def not_compiled(step: Step) -> Step:
    """`step`, or a hook, for torch to wrap or to call: it runs as it is also where torch compiles its caller."""

    @functools.wraps(step)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        return (uncompiled if _is_compiling() or is_tracing() else step)(*args, **kwargs)

    # Unlike torch.compiler.disable(), this imports the compiler no earlier than it is called.
    uncompiled = make_uncompiled(step)
    return cast(Step, guarded)


def _hooked(step: Step, hooks: StepHooks) -> Step:
    before, after = hooks

    @functools.wraps(step)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        if type(self).step is not hooked:  # called by the step() of a subclass, which torch has wrapped
            return step(self, *args, **kwargs)
        with profiler_label(f"Optimizer.step#{type(self).__name__}.step"):
            for hook in (*before.values(), *own_hooks_before(self)):
                result = hook(self, (self, *args), kwargs)
                if result is not None:
                    if not (isinstance(result, tuple) and len(result) == 2):
                        raise RuntimeError(f"a step pre-hook must return None or (new_args, new_kwargs), not {result}")
                    (self, *args), kwargs = result
            out = step(self, *args, **kwargs)
            mark_step(self)
            for hook in (*own_hooks_after(self), *after.values()):
                hook(self, (self, *args), kwargs)
            return out

    hooked = not_compiled(run)  # raw addresses are nothing that a graph could hold
    hooked.hooked = True  # type: ignore[attr-defined]  # torch leaves it alone
    return cast(Step, hooked)
