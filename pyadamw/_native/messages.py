"""Owns saying an error message of libadamw in the words of Python's arguments. Must not know what caused the error.

The library names its functions, its fields and the tensors of its table. A user of Python knows none of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_STEPPED = "the parameters that have been stepped are in `stepped` of this error"

# (pattern, replacement), in this order
_WORDS = (
    (r"^adamw_\w+: ", ""),
    (r"\boptions\.", ""),
    (r"\bADAMW_PLACE_([A-Z]+)", lambda match: repr(match[1].lower())),
    (r"\b(?:ADAMW_STATE_)?TENSOR8\b", "block_wise=False"),
    (r"\b(the|this|a) pager\b", r"\1 PageManager"),
    (r"the tensors before tensor \d+ have been stepped, the others have not", _STEPPED),
    (r"the tensors before tensor \d+ have been stepped, that tensor up to element (\d+), the others have not",
     rf"this one up to element \1; {_STEPPED}"),
    (r"every tensor has been stepped", "every parameter of this call has been stepped"),
    (r"\bparam(?= \(| = | is )", "the parameter"),
    (r"\bgrad(?= \(| = | is )", "the gradient"),
)  # fmt: skip


def in_python(message: str, names: Callable[[int], str] | None = None) -> str:
    """The message for a user of Python. `names(i)` names tensor i; the first one that it names begins the message."""
    first = re.search(r"\btensor (\d+)", message)
    for pattern, replacement in _WORDS:
        message = re.sub(pattern, replacement, message)
    if first is None or names is None:
        return message
    number = first[1]
    message = re.sub(rf"\btensor {number}: ", "", message)
    message = re.sub(
        r"\btensor (\d+): ([\w ]+?)(?= \(| = | is )", lambda other: f"{other[2]} of {names(int(other[1]))}", message
    )
    return f"{names(int(number))}: {message}"
