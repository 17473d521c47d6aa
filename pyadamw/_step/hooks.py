"""Owns the hooks that backward() calls when it has accumulated a parameter's gradient. Must not know what they do.

Hooks hold neither what they call nor, with it, other parameters: a model goes when nobody else holds it, without the
garbage collector.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .._native.torch_private import plain_methods
from .torch_hooks import not_compiled


class _Hook:
    """The hook of one parameter.

    torch.utils.swap_tensors() gives a parameter the hooks of another: its own would silently not be called any more. It
    refuses parameters that have weak references, such as this one.
    """

    def __init__(self, param: torch.Tensor, function: Callable[[torch.Tensor], None], gone: Any) -> None:
        """`gone` is called when there is no parameter any more."""
        self.param = weakref.ref(param, gone)
        self._handle: Any = None
        frozen = not param.requires_grad
        with contextlib.suppress(RuntimeError, ValueError), plain_methods():  # Hooks.lack() names it again
            try:
                if frozen:  # torch refuses hooks of frozen parameters; this one waits until the user unfreezes it
                    param.requires_grad_(True)
                self._handle = param.register_post_accumulate_grad_hook(function)
            finally:
                if frozen:
                    param.requires_grad_(False)

    def belongs_to(self, param: torch.Tensor) -> bool:
        return self._handle is not None and self.param() is param

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()


class Hooks:
    """The hooks of one optimizer. Each calls optimizer.METHOD(parameter), as long as there is the optimizer."""

    def __init__(self, optimizer: Any, method: str) -> None:
        self._of: dict[int, _Hook] = {}  # by the id of the parameter
        reference = weakref.ref(optimizer)

        def hook(param: torch.Tensor) -> None:
            found = reference()
            if found is not None:
                getattr(found, method)(param)

        self._function = not_compiled(hook)
        self._gone: list[Any] = []  # a later parameter may have the id of one of these
        weakref.finalize(optimizer, self.remove).atexit = False

    def _has(self, param: torch.Tensor) -> bool:
        hook = self._of.get(id(param))
        return hook is not None and hook.belongs_to(param)

    def are_complete(self) -> bool:
        """Whether all parameters that were given to add() have hooks still."""
        return not self._gone

    def lack(self, params: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """Those of the parameters that have no hook."""
        return [param for param in params if not self._has(param)]

    def are_elsewhere(self, param: torch.Tensor) -> bool:
        """Whether the parameter has a hook of another optimizer."""
        other = _OWNERS.get(id(param))
        return other is not None and other is not self and other._has(param)

    def add(self, params: Iterable[torch.Tensor]) -> None:
        self._gone.clear()
        for param in params:
            hook = self._of[id(param)] = _Hook(param, self._function, self._gone.append)
            _OWNERS[id(param)] = self
            if not hook.belongs_to(param):  # torch gives it none yet
                self._gone.append(hook)

    def keep_only(self, ids: Any) -> None:
        """Removes the hooks of all parameters except these. `ids`: a set-like of their ids."""
        for key in self._of.keys() - ids:
            self._of.pop(key).remove()
            if _OWNERS.get(key) is self:
                del _OWNERS[key]

    def remove(self) -> None:
        self.keep_only(())


_OWNERS: weakref.WeakValueDictionary[int, Hooks] = weakref.WeakValueDictionary()  # by the id of the parameter
