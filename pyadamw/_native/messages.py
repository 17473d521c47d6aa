"""Owns saying an error message of libadamw in the words of Python's arguments. Must not know what caused the error.

The library names its functions, its fields and the rows of its table. A user of Python knows none of these.
"""

from __future__ import annotations

import re
from typing import Any

_STEPPED = "the parameters that have been stepped are in `stepped` of this error"

# (pattern, replacement), in this order
_WORDS = (
    (r"^adamw_\w+: ", ""),
    (r"\boptions\.", ""),
    (r"\bADAMW_PLACE_([A-Z]+)", lambda match: repr(match[1].lower())),
    (r"\b(?:ADAMW_STATE_)?TENSOR8\b", "block_wise=False"),
    (r"\b(the|this|a) pager\b", r"\1 PageManager"),
    (r"the rows before row \d+ have been stepped, the others not", _STEPPED),
    (r"the rows before row \d+ have been stepped, it itself up to element (\d+), the others not",
     rf"this one up to element \1; {_STEPPED}"),
    (r"every row has been stepped", "every parameter of this call has been stepped"),
    (r"\bparam(?= \(| = | is )", "the parameter"),
    (r"\bgrad(?= \(| = | is )", "the gradient"),
)  # fmt: skip


def in_python(message: str, names: Any = None) -> Any:
    """The message for a user of Python. `names(i)` names the tensor of row i; the first row begins the message."""
    first = re.search(r"\brow (\d+)", message)
    for pattern, replacement in _WORDS:
        message = re.sub(pattern, replacement, message)
    if first is None or names is None:
        return message
    number = first[1]
    message = re.sub(rf"\brow {number}: ", "", message)
    message = re.sub(
        r"\brow (\d+): ([\w ]+?)(?= \(| = | is )", lambda other: f"{other[2]} of {names(int(other[1]))}", message
    )
    return f"{names(int(number))}: {message}"
