"""Owns one step of a plan, from its first change until parameters, state and counts agree. Must not know how a plan
is made, or how it is found out that it still holds.

An interrupt (Ctrl-C) may end a step between any two operations of Python, and another one the repair of that. So
what has happened is not concluded from where the exception came out, but read: the library itself writes how many rows
a call has stepped, and counts are changed and noted in one call of C (step_counts.py). Run.settle() brings the rest in
line, and may be ended and called again at any point.
"""

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

    def __init__(self, plan, params, found_inf):
        """`params`: of the plan's rows. `found_inf`: as of Plan.step()."""
        self.plan, self.params, self.found_inf = plan, params, found_inf
        self.present = plan.gradients.present  # the rows that are stepped; None: all
        self.counts = plan.counts.notes()
        self.factors = {}  # as of cuda.float32_at()
        self.copies = {}  # {row: what the library steps in the place of its parameter}
        self.complete = False  # all calls have stepped all of their rows
        self.failed = False  # to settle it has failed once, by something other than an interrupt

    # ---- stepping ------------------------------------------------------------------------------------------------

    def calls(self, groups):
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

    def _factors(self, bucket):
        """What lies behind pointers, on the bucket's device; only the CPU has to wait for what comes from another."""
        device, known = bucket.device, self.factors
        lr = self.plan.groups[bucket.group].lr_tensor
        if lr is not None and "lr" in bucket.own:
            lr = self._own_lr(lr, bucket.own["lr"])
        at = float32_at(lr, device, known)
        return (at, float32_at(self.found_inf, device, known), stream(device)) if bucket.there else (at, 0, 0)

    def _own_lr(self, lr, own):
        """An lr of a parameter's own where the group's lies on a device: 0 where that is 0, without waiting for it."""
        key = ("own lr", id(lr), id(own))
        return self.factors.setdefault(key, (lr.detach() != 0).to(torch.float32) * own)

    def _copy(self):
        """The library steps copies of parameters whose numbers do not lie plainly in memory."""
        for i in self.plan.gradients.of_these(self.plan.copied):
            copy = self.copies[i] = plain(inner(self.params[i]).detach())
            self.plan.table["param"][i] = address(copy)

    def _call_gathered(self, bucket, groups):
        """Parameters that processes gather for the step, one at a time: no two of them are whole at once."""
        plan = self.plan
        for i in plan.gradients.of_these(bucket.rows):
            self.copies[i] = gathered(self.params[i])
            grad = plan.gradients.gather(i, self.params[i])
            plan.table["param"][i] = self.copies[i].data_ptr()
            bucket.call.write_progress_to(plan.progress_of(i))
            self._call_some(bucket, [i], groups)
            self._put_back(i)
            del grad

    def _call_some(self, bucket, rows, groups):
        if rows:
            self._call(bucket, rows, rows_pointer(self.plan.table[rows]), groups)

    def _call(self, bucket, indices, pointer, groups):
        def name(i):
            row = self.plan.rows[indices[i]]
            return describe(groups, row.group, row.position)

        bucket.call.step(pointer, len(indices), name)

    # ---- settling ------------------------------------------------------------------------------------------------

    def settle(self):
        """Whatever has ended the step: a row is stepped in parameter, state and count, or in none of them."""
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

    def _put_back(self, i):
        """Gives a parameter the numbers of the copy that has been stepped in its place."""
        param, copy = self.params[i], self.copies[i]
        # Not torch.no_grad(): an interrupt as it ends would leave gradients off.
        inner(param).detach().copy_(own_part(copy, param) if self.plan.rows[i].local.whole else copy)
        self.copies.pop(i)

    def rows_stepped(self):
        """The rows that the library says it has stepped completely, in the order of the calls."""
        rows, stepped = [], self.plan.stepped
        for bucket in self.plan.buckets:
            some = self._rows_of(bucket)
            rows += [i for i in some if stepped[i]] if bucket.whole else some[: stepped[bucket.start]]
        return rows

    def _rows_of(self, bucket):
        return bucket.rows if self.present is None else [i for i in self.present if bucket.start <= i < bucket.stop]

    def name_stepped(self, error):
        """Gives an error of the library's the parameters that have been stepped."""
        if isinstance(error, AdamWError):
            error.stepped = tuple(self.params[i] for i in self.rows_stepped())
