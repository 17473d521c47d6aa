"""Owns what is seen of the optimizer classes as they run: signatures, docstrings, and errors of calls that do not fit.
Must not know what an argument means.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

# Arguments of torch.optim.AdamW that these classes do not need, and what to do instead.
_NOT_NEEDED = {
    "foreach": "leave it out, a step is always one call for all tensors",
    "fused": "leave it out, a step is always fused",
    "differentiable": "leave it out, a step cannot be differentiated",
}
# This line stands in the docstring of each class. complete() puts what it speaks of in its place.
EXPLAINED = "The docstring of `__init__` has the formula, and explains the arguments and the errors."
# The docstring that __init__ itself then has, so that help() does not say all of it twice.
POINTS_THERE = "Makes an optimizer; the docstring of its class explains the arguments."


def _refuse_call(self: object, error: TypeError) -> NoReturn:
    """Raises Python's error about a call that does not fit the signature, with the user's class and some advice."""
    advice = [f": {what}" for name, what in _NOT_NEEDED.items() if repr(name) in str(error)]
    raise TypeError(f"{type(self).__name__}.__init__() {error}{''.join(advice)}") from None


def naming_the_class(init: Callable[..., None]) -> Callable[..., None]:
    """`init`, with a TypeError for unknown arguments that names the class that was called."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def named(self: object, *arguments: Any, **keywords: Any) -> None:
        try:
            signature.bind(self, *arguments, **keywords)
        except TypeError as error:
            _refuse_call(self, error)
        init(self, *arguments, **keywords)

    return named


def always_paged(init: Callable[..., None]) -> Callable[..., None]:
    """`init` without its argument is_paged, which is True."""
    signature = inspect.signature(init)
    without = signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "is_paged"])

    @functools.wraps(init)
    def paged(self: object, *arguments: Any, **keywords: Any) -> None:
        try:
            bound = without.bind(self, *arguments, **keywords)
        except TypeError as error:
            _refuse_call(self, error)
        init(**bound.arguments, is_paged=True)

    paged.__signature__ = without  # type: ignore[attr-defined]
    paged.__annotations__ = {name: hint for name, hint in init.__annotations__.items() if name != "is_paged"}
    return paged


def complete(classes: Iterable[type], explanation: str | None) -> None:
    """Puts an explanation into the docstrings of classes, in place of the line that speaks of it.

    `explanation` is the docstring of the __init__ that they share. Its first paragraph is left out; so is is_paged, for
    classes that do not have this argument.
    """
    if explanation is None:  # python -OO
        return
    everything = inspect.cleandoc(explanation).partition("\n\n")[2]
    unpaged = re.sub(r"^    is_paged: .*\n(?:     .*\n)*", "", everything, flags=re.M)
    for cls in classes:
        explained = everything if "is_paged" in inspect.signature(cls).parameters else unpaged
        cls.__doc__ = inspect.cleandoc(cls.__doc__ or "").replace(EXPLAINED, explained)
        cls.__init__.__doc__ = POINTS_THERE  # type: ignore[misc]
