"""Owns clipping by the norm of all gradients: the norm of a step's gradients over all devices and processes, and the
factor that the calls of the step multiply gradients by. Must not know how a step is done.

    norm   = sqrt(sum of g**2 over all gradients)
    factor = min(1, max_grad_norm / (norm + 1e-6))          as torch.nn.utils.clip_grad_norm_

Each device has one table of gradients for each kind of parameter (reduction.py), and one sum of squares in double
precision for each. The sums come together on the device of the first parameter, which computes the norm and the factor.
Nothing waits for a device, and gradients are only read.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from .._native.constants import DTYPES
from .._native.cuda import is_capturing, is_device, stream
from .._native.library import library
from .._native.memory import address
from .._native.norm_call import ClipFactor, Norm, gradients_pointer, new_gradients
from .._native.step_call import pointer_to
from .._native.torch_private import belongs_to_fsdp1
from .._options.options import CLIPPING, check_clipping
from .._state.sharding import inner
from .._state.spec import describe
from .bucket import in_order
from .reduction import Reduction

_get_clipping = itemgetter(*CLIPPING)


class Norms:
    """The norm of the last step, in memory that stays where it is: CUDA graphs know its address.

    `partition`: None, or a torch_private.Partition if other processes have other parameters of the same optimizer.
    """

    def __init__(self) -> None:
        self.last: torch.Tensor | None = None
        self.partition: Any = None
        self._memory: dict[torch.device, torch.Tensor] = {}

    def memory(self, device: torch.device) -> torch.Tensor:
        """Two floats of a device: the norm and the factor."""
        if device not in self._memory:
            self._memory[device] = _zeros(2, torch.float32, device)
        return self._memory[device]


def _zeros(count: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    with torch.inference_mode(False):  # its tensors could not be written later
        return torch.zeros(count, dtype=dtype, device=device)


class Clipping:
    """What a plan does about max_grad_norm. It does not keep the plan, which keeps it: a cycle would live longer."""

    def __init__(self, norms: Norms) -> None:
        self._norms = norms
        self._known: Any = None  # the options of the first group when they were last checked
        self._measure: _Measure | None = None
        self.factors: dict[torch.device, int] = {}  # the address of this step's factor on each device

    def prepare(self, plan: Any, groups: Any, found_inf: Any) -> None:
        """Measures the norm and computes the factors of a step, before anything of it is written.

        `found_inf`: as in Plan.step().

        Raises:
            ValueError: the groups have different options, or it is not possible to know the norm.
            RuntimeError: the norm is not finite, and error_if_nonfinite is True.
        """
        found = _get_clipping(groups[0]) if groups else (None, False)
        if found != self._known or (len(groups) > 1 and any(_get_clipping(group) != found for group in groups)):
            check_clipping(groups)
            self._known = found
        max_norm, strict = found
        if max_norm is None:
            if self.factors:
                self.factors = {}
            self._norms.last = None
            return
        if self._measure is None:
            self._measure = _Measure(plan, groups, in_order(groups), self._norms)
        self._norms.last = self._measure.norm(float(max_norm), plan, groups)
        self.factors = self._measure.factors
        if strict:
            self._check_finite(self._norms.last, found_inf)

    @staticmethod
    def _check_finite(norm: torch.Tensor, found_inf: Any) -> None:
        if is_capturing():
            raise RuntimeError("error_if_nonfinite=True waits for the device, which a CUDA graph cannot capture")
        value = norm.item()
        if math.isfinite(value) or (found_inf is not None and float(found_inf) != 0):  # GradScaler skips the step
            return
        raise RuntimeError(
            f"the norm of all gradients is {value}, so that they cannot be clipped; nothing has been stepped. With "
            "error_if_nonfinite=False, a step goes on as after torch.nn.utils.clip_grad_norm_"
        )


class _Measure:
    """The tables, sums and buffers for the norm of the gradients of a plan's rows."""

    def __init__(self, plan: Any, groups: Any, everyone: list[torch.Tensor], norms: Norms) -> None:
        for number, group in enumerate(groups):
            for position, param in enumerate(group["params"]):
                if belongs_to_fsdp1(param):
                    raise ValueError(
                        f"{describe(groups, number, position)} belongs to FullyShardedDataParallel (FSDP1), of which "
                        "each process has only its own part: pass max_grad_norm=None and call clip_grad_norm_() of the "
                        "model before the step, or shard the model with fully_shard (FSDP2)"
                    )
        if norms.partition is not None and norms.partition.group is None:
            raise ValueError(
                "max_grad_norm: a ZeroRedundancyOptimizer made this optimizer for a part of its parameters, and this "
                "version of torch does not say which processes have the others: pass max_grad_norm=None, and call "
                "torch.nn.utils.clip_grad_norm_() before the step"
            )
        self._reduction = Reduction(everyone, None if norms.partition is None else norms.partition.group)
        rows: dict[torch.device, list[int]] = {}
        for i, row in enumerate(plan.rows):
            rows.setdefault(row.local.device, []).append(i)
        kinds, count = self._reduction.kinds, self._reduction.count
        self._devices = [
            _Device(device, plan, rows.get(device, []), kinds, count, everyone)
            for device in dict.fromkeys([self._first_device(plan, everyone), *rows])
        ]
        first, *self._others = self._devices
        self._first, self._memory = first, norms.memory(first.device)
        at = self._memory.data_ptr()
        self._clip = ClipFactor(first.number, first.squares.data_ptr(), count, at, at + 4)
        self.factors = {first.device: at + 4}
        self._copies = [norms.memory(other.device) for other in self._others]
        self.factors |= {
            other.device: copy.data_ptr() + 4 for other, copy in zip(self._others, self._copies, strict=True)
        }

    @staticmethod
    def _first_device(plan: Any, everyone: list[torch.Tensor]) -> torch.device:
        """The device of the first parameter that the plan steps; if it steps none, of any that could be stepped."""
        stepped = sorted(row.index for row in plan.rows)
        devices = [inner(everyone[i]).device for i in stepped[:1]] or [inner(param).device for param in everyone]
        known = [device for device in devices if device.type == "cpu" or is_device(device)]
        return known[0] if known else torch.device("cpu")

    def norm(self, max_norm: float, plan: Any, groups: Any) -> torch.Tensor:
        """The norm of this step's gradients, on the first device; the factors are in their places then."""
        for device in self._devices:
            device.sum(plan, groups)
        first = self._first
        for other in self._others:
            first.squares.add_(other.squares.to(first.device, non_blocking=is_device(first.device)))
        self._reduction.all_reduce(first.squares)
        self._clip.compute(max_norm, first.stream())
        for copy in self._copies:
            copy.copy_(self._memory, non_blocking=is_device(copy.device))
        return self._memory[0]


class _Device:
    """The gradients of one device. `squares` has a sum for each kind of parameter."""

    def __init__(self, device: torch.device, plan: Any, rows: list[int], kinds: Any, count: int, everyone: Any) -> None:
        self.device, self.on_device = device, is_device(device)
        self.number = library().device_number(device, "a parameter")
        self.squares = _zeros(count, torch.float64, device)
        self._norm = Norm(self.number)
        of_kind: dict[int, list[int]] = {kind: [] for kind in range(count)}
        for i in rows:
            of_kind[kinds[plan.rows[i].index]].append(i)
        self._tables = [
            _Table(plan, own, everyone, self.squares.data_ptr() + 8 * kind) for kind, own in of_kind.items()
        ]

    def stream(self) -> int:
        return stream(self.device) if self.on_device else 0

    def sum(self, plan: Any, groups: Any) -> None:
        self._norm.set_surroundings((torch.get_num_threads(), self.stream()))
        for table in self._tables:
            table.sum(self._norm, plan, groups)


class _Table:
    """The gradients of some rows of a plan, whose squares have one sum."""

    def __init__(self, plan: Any, rows: list[int], everyone: Any, squares: int) -> None:
        """`squares`: the address of the sum."""
        locals_ = [plan.rows[i].local for i in rows]
        self._rows, self._whole = rows, [k for k, local in enumerate(locals_) if local.whole]
        # A slice is faster than a list of numbers.
        contiguous = rows == list(range(rows[0], rows[-1] + 1)) if rows else True
        at = (slice(rows[0], rows[-1] + 1) if rows else slice(0)) if contiguous else np.array(rows)
        self._source, self._at = plan.table["grad"], at
        table = self._table = new_gradients(len(rows))
        # Of gathered gradients too, only the part that this process has: the sum of the others is theirs.
        table["numel"] = [inner(everyone[plan.rows[i].index]).numel() for i in rows]
        table["dtype"] = [DTYPES[plan.rows[i].grad_dtype] for i in rows]
        self._grads, self._pointer = table["grad"], gradients_pointer(table)
        self._squares = pointer_to("double *", squares)

    def sum(self, norm: Norm, plan: Any, groups: Any) -> None:
        gradients, rows = plan.gradients, self._rows
        self._grads[:] = self._source[self._at]
        pointer, count, chosen = self._pointer, len(rows), range(len(rows))
        if gradients.present is not None:
            present = set(gradients.present)
            chosen = [k for k, i in enumerate(rows) if i in present]  # type: ignore[assignment]
        for k in self._whole:
            if k in chosen:
                self._grads[k] = address(gradients.shard(rows[k], plan.params[rows[k]]))
        if count != len(chosen):
            pointer, count = gradients_pointer(self._table[chosen]), len(chosen)

        def name(i: int) -> str:
            row = plan.rows[rows[chosen[i]]]
            return describe(groups, row.group, row.position)

        norm.sum(pointer, count, self._squares, name)
