"""Owns that threads use an optimizer one after the other where Python itself does not see to it (free-threaded builds
of CPython). Must not know what the methods do.

Where there is a global lock, methods are left as they are and cost nothing more. Different optimizers do not wait for
each other: the library takes calls from any number of threads.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

from .._native.torch_private import has_gil

Method = TypeVar("Method", bound=Callable[..., Any])

FREE_THREADED = not has_gil()  # torch has been imported: nothing takes the global lock away later


def exclusive(method: Method) -> Method:
    """A method that no two threads run at the same time for one optimizer, or for copies that share its cache."""
    return _exclusive(method) if FREE_THREADED else method


def _exclusive(method: Method) -> Method:
    @functools.wraps(method)
    def locked(self: Any, *arguments: Any, **keywords: Any) -> Any:
        cache = self.__dict__.get("_cache")
        if cache is None:  # it is being made
            return method(self, *arguments, **keywords)
        with cache.lock:
            return method(self, *arguments, **keywords)

    return cast(Method, locked)


def new_lock() -> Any:
    """What an optimizer's cache needs for it. A closure may come back to the optimizer: it can be taken again."""
    return threading.RLock() if FREE_THREADED else None
