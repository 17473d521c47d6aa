"""Owns the row table of a step, adamw_tensor[], as numpy columns, and the options of one call. Must not know of torch
optimizers. adamw.h explains the numbers.
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import numpy as np

from .constants import FLAGS
from .library import ffi, library, new_options


def table_dtype(struct: str) -> Any:
    """The numpy dtype of a table of a C struct, an address or an integer a column."""
    fields = ffi.typeof(struct).fields
    return np.dtype(
        {
            "names": [name for name, _ in fields],
            "formats": ["u8" if field.type.kind == "pointer" else f"i{ffi.sizeof(field.type)}" for _, field in fields],
            "offsets": [field.offset for _, field in fields],
            "itemsize": ffi.sizeof(struct),
        }
    )


ROW = table_dtype("adamw_tensor")
ROW_SIZE = ROW.itemsize

# The options of a group that a call needs, apart from lr.
VALUES = ("betas", "eps", "weight_decay", "max_unorm", "percentile_clipping", "seed", *FLAGS)
get_values = itemgetter(*VALUES)


def new_rows(count: int) -> Any:
    """A zeroed table of `count` rows."""
    return np.zeros(count, dtype=ROW)


def rows_pointer(rows: Any) -> Any:
    """The C pointer to a contiguous table; it keeps the table alive."""
    return ffi.from_buffer("adamw_tensor[]", rows)


def pointer_to(kind: Any, address: int) -> Any:
    return ffi.cast(kind, address)


class Call:
    """The options of one adamw_step() call, for rows with the same dtypes, kind of state and options."""

    def __init__(
        self,
        param_dtype: Any,
        grad_dtype: Any,
        state_format: Any,
        remainder_bits: int,
        device: int,
        skipped: Any,
        pager: Any,
        stepped: Any,
    ) -> None:
        """`skipped`: the address of the counter of skipped elements. `pager`: the pager.Pager of state, or None.
        `stepped`: as of write_progress_to()."""
        options = new_options("adamw_step_options")
        options.param_dtype, options.grad_dtype = param_dtype, grad_dtype
        options.state_format, options.remainder_bits, options.device = state_format, remainder_bits, device
        options.skipped = pointer_to("int64_t *", skipped)
        self.options = options
        self.write_progress_to(stepped)
        if pager is not None:
            options.pager, self._pager = pager.pointer, pager
        self._surroundings = None
        self._library = library()
        self._step = self._library.lib.adamw_step

    def set_values(self, values: Any) -> None:
        """Takes the options of a group, in the order of VALUES."""
        named = dict(zip(VALUES, values, strict=True))
        options = self.options
        options.beta1, options.beta2 = map(float, named["betas"])
        for name in ("eps", "weight_decay", "max_unorm"):
            setattr(options, name, float(named[name]))
        for name in ("percentile_clipping", "seed"):
            setattr(options, name, int(named[name]))
        options.flags = sum(flag for name, flag in FLAGS.items() if named[name])

    def set_surroundings(self, surroundings: Any) -> None:
        """Takes (number of threads, addresses of lr, found_inf and grad_factor or 0, stream)."""
        if surroundings != self._surroundings:  # to set C options takes longer than this comparison
            options, self._surroundings = self.options, None  # until everything is set, because of interrupts
            options.num_threads, *factors, stream = surroundings
            addresses = (pointer_to("float *", factor) for factor in factors)
            options.lr_tensor, options.found_inf, options.grad_factor = addresses
            options.stream = pointer_to("void *", stream)
            self._surroundings = surroundings

    def write_progress_to(self, address: int) -> None:
        """Sets the address of an int64, where the library writes how many rows a call has stepped.

        A call that is refused does not write it.
        """
        self.options.rows_stepped = pointer_to("int64_t *", address)

    def step(self, rows: Any, count: int, names: Any) -> None:
        """One call. `names(i)` names the tensor of row i in an error message."""
        status = self._step(self.options, rows, ROW_SIZE, count)
        if status:
            self._library.check(status, names)
