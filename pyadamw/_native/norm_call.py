"""Owns the calls for the norm of all gradients: the table adamw_gradient[], as numpy columns, adamw_norm() and
adamw_clip_factor(). Must not know which gradients, or what their norm is for. adamw.h explains the numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .library import ffi, library, new_options
from .step_call import pointer_to, table_dtype

GRADIENT = table_dtype("adamw_gradient")


def new_gradients(count: int) -> Any:
    """A zeroed table of `count` gradients."""
    return np.zeros(count, dtype=GRADIENT)


def gradients_pointer(gradients: Any) -> Any:
    """The C pointer to a contiguous table; it keeps the table alive."""
    return ffi.from_buffer("adamw_gradient[]", gradients)


class Norm:
    """adamw_norm() on one device."""

    def __init__(self, device: int) -> None:
        self._options = new_options("adamw_norm_options")
        self._options.device = device
        self._surroundings: Any = None
        self._library = library()
        self._call = self._library.lib.adamw_norm

    def set_surroundings(self, surroundings: Any) -> None:
        """Takes (number of threads, stream)."""
        if surroundings != self._surroundings:
            (threads, stream), self._surroundings = surroundings, None  # until all is set, because of interrupts
            self._options.num_threads, self._options.stream = threads, pointer_to("void *", stream)
            self._surroundings = surroundings

    def sum(self, gradients: Any, count: int, squares: Any, names: Any) -> None:
        """Writes the sum of the squares of `count` gradients to `squares`, a pointer to a double. `names(i)` names
        gradient i in an error message."""
        status = self._call(self._options, gradients, GRADIENT.itemsize, count, squares)
        if status:
            self._library.check(status, names)


class ClipFactor:
    """adamw_clip_factor() on one device, with the same buffers in each call."""

    def __init__(self, device: int, squares: int, count: int, norm: int, factor: int) -> None:
        """The addresses of `count` doubles to be added, and of two floats that are written."""
        self._options = new_options("adamw_clip_options")
        self._options.device = device
        self._arguments = (
            pointer_to("double *", squares),
            count,
            *(pointer_to("float *", at) for at in (norm, factor)),
        )
        self._known: Any = None
        self._library = library()
        self._call = self._library.lib.adamw_clip_factor

    def compute(self, max_norm: float, stream: int) -> None:
        if (max_norm, stream) != self._known:
            self._known = None  # until both are set, because of interrupts
            self._options.max_norm, self._options.stream = max_norm, pointer_to("void *", stream)
            self._known = (max_norm, stream)
        status = self._call(self._options, *self._arguments)
        if status:
            self._library.check(status)
