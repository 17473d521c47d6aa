"""Owns one step of a plan, from its first change until parameters, state and counts agree. Must not know how a plan
is made, or how it is checked.

An interrupt (Ctrl-C) may end a step between any two operations of Python, and another interrupt may end the repair. So
the place of the exception proves nothing. Instead, the library writes how many rows a call has stepped, and counts are
changed and noted in one call of C (step_counts.py). Run.settle() reads these and repairs the rest. It may be
interrupted, and called again, at any point.
"""

from __future__ import annotations

from typing import Any

import torch

from .._native.cuda import float32_at, stream
from .._native.memory import address, plain
from .._native.step_call import rows_pointer
from .._native.torch_private import increment_version
from .._state.sharding import gathered, inner, own_part
from .._state.spec import describe
from ..errors import AdamWError


class Run:
    """A step of `plan` that has begun."""

    __slots__ = ("complete", "copies", "counts", "factors", "failed", "found_inf", "params", "plan", "present")

    def __init__(self, plan: Any, params: list[torch.Tensor], found_inf: Any) -> None:
        """`params`: the parameters of the plan's rows. `found_inf`: as in Plan.step()."""
        self.plan, self.params, self.found_inf = plan, params, found_inf
        self.present = plan.gradients.present  # the rows that are stepped; None: all
        self.counts = plan.counts.notes()
        self.factors: dict[Any, torch.Tensor] = {}  # as in cuda.float32_at()
        self.copies: dict[int, torch.Tensor] = {}  # {row: the copy that the library steps instead of the parameter}
        self.complete = False  # all calls have stepped all of their rows
        self.failed = False  # settle() has failed once, by something other than an interrupt

    # ---- stepping ------------------------------------------------------------------------------------------------

    def calls(self, groups: Any) -> None:
        plan, present, threads = self.plan, self.present, torch.get_num_threads()
        if plan.copied:
            self._copy()
        plan.counts.add(self.counts, present, self.found_inf, self.factors)
        for bucket in plan.buckets:
            bucket.call.set_surroundings((threads, *self._factors(bucket)))
            if bucket.whole:
                self._call_gathered(bucket, groups)
            elif present is None:
                self._call(bucket, bucket.rows, bucket.pointer, groups)
            else:
                self._call_some(bucket, self._rows_of(bucket), groups)
        self.complete = True

    def _factors(self, bucket: Any) -> Any:
        """The values behind pointers, on the device of the bucket. Only a bucket on the CPU waits for other devices."""
        device, known = bucket.device, self.factors
        lr = self.plan.groups[bucket.group].lr_tensor
        if lr is not None and "lr" in bucket.own:
            lr = self._own_lr(lr, bucket.own["lr"])
        at, clip = float32_at(lr, device, known), self.plan.clipping.factors.get(device, 0)
        if not bucket.on_device:
            return at, 0, clip, 0
        return at, float32_at(self.found_inf, device, known), clip, stream(device)

    def _own_lr(self, lr: Any, own: Any) -> Any:
        """The separate lr of a parameter if the group's lr is on a device: 0 if the group's is 0, without waiting."""
        key = ("own lr", id(lr), id(own))
        return self.factors.setdefault(key, (lr.detach() != 0).to(torch.float32) * own)

    def _copy(self) -> None:
        """Makes copies of the parameters whose values do not lie plainly in memory: the library steps the copies."""
        for i in self.plan.gradients.of_these(self.plan.copied):
            copy = self.copies[i] = plain(inner(self.params[i]).detach())
            self.plan.table["param"][i] = address(copy)

    def _call_gathered(self, bucket: Any, groups: Any) -> None:
        """Steps parameters that processes gather for the step, one at a time: no two of them are whole at once."""
        plan = self.plan
        for i in plan.gradients.of_these(bucket.rows):
            self.copies[i] = gathered(self.params[i])
            grad = plan.gradients.gather(i, self.params[i])
            plan.table["param"][i] = self.copies[i].data_ptr()
            bucket.call.write_progress_to(plan.progress_of(i))
            self._call_some(bucket, [i], groups)
            self._put_back(i)
            del grad

    def _call_some(self, bucket: Any, rows: Any, groups: Any) -> None:
        if rows:
            self._call(bucket, rows, rows_pointer(self.plan.table[rows]), groups)

    def _call(self, bucket: Any, indices: Any, pointer: Any, groups: Any) -> None:
        def name(i: int) -> Any:
            row = self.plan.rows[indices[i]]
            return describe(groups, row.group, row.position)

        bucket.call.step(pointer, len(indices), name)

    # ---- settling ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """However the step ended: makes each row stepped in parameter, state and count, or in none of them."""
        plan, present = self.plan, self.present
        if not self.complete:
            kept = set(self.rows_stepped())
            plan.counts.take_back(self.counts, present, self.found_inf, self.factors, kept)
        if self.copies:
            for i in list(self.copies):
                self._put_back(i)
        if present is None and not plan.without_version:
            increment_version(self.params if plan.versions is None else plan.versions.tensors)
        else:
            stepped = range(len(plan.rows)) if present is None else present
            increment_version([self.params[i] for i in stepped if i not in plan.without_version])

    def _put_back(self, i: int) -> None:
        """Writes the stepped copy back into its parameter."""
        param, copy = self.params[i], self.copies[i]
        # Not torch.no_grad(): an interrupt at its end would leave gradients disabled.
        inner(param).detach().copy_(own_part(copy, param) if self.plan.rows[i].local.whole else copy)
        self.copies.pop(i)

    def rows_stepped(self) -> Any:
        """The rows that the library has stepped completely, in the order of the calls."""
        rows: list[int] = []
        stepped = self.plan.stepped
        for bucket in self.plan.buckets:
            some = self._rows_of(bucket)
            rows += [i for i in some if stepped[i]] if bucket.whole else some[: stepped[bucket.start]]
        return rows

    def _rows_of(self, bucket: Any) -> Any:
        return bucket.rows if self.present is None else [i for i in self.present if bucket.start <= i < bucket.stop]

    def name_stepped(self, error: BaseException) -> None:
        """Adds the parameters that have been stepped to an error of the library."""
        if isinstance(error, AdamWError):
            error.stepped = tuple(self.params[i] for i in self.rows_stepped())
