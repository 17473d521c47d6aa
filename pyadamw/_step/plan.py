"""Owns the data that stays the same from step to step: the row table, its pointers, and the calls that step it. It
also finds out cheaply that something has changed. Must not know how rows are chosen, what state is made of or how the
calls are made.

A step costs the C call and, beside it, refresh() and step(). So these two handle whole lists in single C-level
operations, with about five such passes over the parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .._checks import scalar
from .._native.constants import DTYPES
from .._native.cuda import is_device, is_on_device
from .._native.library import library
from .._native.memory import address
from .._native.step_call import Call, get_values, new_rows
from .._options.options import check_options, plain_betas
from .._state import formats
from .._state.sharding import inner, is_sharded
from .._state.spec import describe
from .bucket import Bucket, Group, in_order, where
from .clipping import Clipping, Norms
from .gradients import Gradients
from .run import Run
from .step_counts import Counts
from .watch import StandIns, StateWatch, Watch


class Plan:
    """The knowledge about a step. It keeps addresses, but no tensors: the groups and the state own the tensors."""

    def __init__(
        self,
        groups: Any,
        states: Any,
        rows: Any,
        waiting: Any,
        skipped: Any,
        norms: Norms,
        counts_on_device: bool = False,
    ) -> None:
        """`waiting`: the indices of parameters that have no row."""
        self.groups = [Group(group) for group in groups]
        self.params: Any = None
        everyone = in_order(groups)
        self.rows, self.waiting = rows, waiting
        self.order = [row.index for row in rows]
        self.in_order = self.order == list(range(len(everyone)))
        params = self._params_of_rows(everyone)
        self.sharded = any(map(is_sharded, everyone))
        self.placements = self._placements(everyone)
        self.watch = Watch(list(map(inner, everyone)))
        self.copied = [i for i, row in enumerate(rows) if not (row.plain or row.local.whole)]
        self.grad_dtypes = {id(param): row.grad_dtype for param, row in zip(params, rows, strict=True)}
        self.without_version = {i for i, param in enumerate(params) if param.is_inference()}
        quick = self.watch.sees_swaps and not self.sharded and not self.without_version
        self.versions = StandIns(params) if quick else None
        self.counts_on_device = counts_on_device  # of all groups, not only of capturable ones
        self._take_counts(groups, [states[param] for param in params])
        tensors = list(map(inner, params))
        self._check_overlap(groups, tensors, [states[param] for param in params])
        self._fill_table(params, tensors, [states[param] for param in params])
        self.state_watch = StateWatch(states, formats.KEYS, self.sharded)
        self.unsettled: Any = None  # the Run of a step that has begun, as long as not everything agrees
        self._make_calls(skipped)
        self.clipping = Clipping(norms)

    # ---- building ------------------------------------------------------------------------------------------------

    def _params_of_rows(self, everyone: Any) -> Any:
        return everyone if self.in_order else [everyone[i] for i in self.order]

    def _placements(self, everyone: Any) -> Any:
        """The placements of DTensors, which an address does not show."""
        if not self.sharded:
            return None
        return [(id(p), p.placements, p.device_mesh) if is_sharded(p) else id(p) for p in everyone]

    def _take_counts(self, groups: Any, states: Any) -> None:
        """Arranges step counts so that all of them that may be moved are counted in one operation."""
        on_device: dict[torch.device, list[int]] = {}
        for i, row in enumerate(self.rows):
            if is_device(row.local.device) and (self.counts_on_device or groups[row.group]["capturable"]):
                on_device.setdefault(row.local.device, []).append(i)
        self.counts = Counts([state["step"] for state in states], on_device)
        for state, view in zip(states, self.counts.views, strict=True):
            state["step"] = view

    def _check_overlap(self, groups: Any, params: list[torch.Tensor], states: Any) -> None:
        """The library checks the rows of one call; this checks the rows of all calls, before the first call."""
        written = [(tensor, i, "") for i, tensor in enumerate(params) if self.rows[i].plain]
        for i, state in enumerate(states):
            keys = [key for key in state if key in formats.PARTS]
            written += [(inner(state[key]), i, f"state {key!r} of ") for key in keys]
        written = [entry for entry in written if entry[0].numel()]
        begin = np.array([tensor.data_ptr() for tensor, *_ in written], dtype=np.uint64)
        end = begin + np.array([tensor.numel() * tensor.element_size() for tensor, *_ in written], dtype=np.uint64)
        order = np.argsort(begin, kind="stable")
        for k in np.flatnonzero(begin[order][1:] < end[order][:-1])[:1]:
            found = [written[order[j]] for j in (k, k + 1)]
            one, other = (f"{key}{describe(groups, self.rows[i].group, self.rows[i].position)}" for _, i, key in found)
            raise ValueError(f"{one} and {other} share memory: each needs separate memory")

    def _fill_table(self, params: list[torch.Tensor], tensors: Any, states: Any) -> None:
        table = self.table = new_rows(len(self.rows))
        table["param"] = [address(t) if row.plain else 0 for t, row in zip(tensors, self.rows, strict=True)]
        table["numel"] = [row.local.shape.numel() for row in self.rows]
        for name in ("row_length", "global_offset", "run_length", "run_stride"):
            if name in table.dtype.names:
                table[name] = [getattr(row.local, name) for row in self.rows]
        for column, keys in formats.columns().items():
            at = [next((inner(state[key]) for key in keys if key in state), None) for state in states]
            table[column] = [0 if tensor is None else tensor.data_ptr() for tensor in at]
        self.counts.fill(table, [not is_device(row.local.device) for row in self.rows])
        self.gradients = Gradients(self.rows, params, table["grad"], self.sharded)

    def _make_calls(self, skipped: Any) -> None:
        self.buckets = []
        # At the first row of each call: how many rows it has stepped. Rows that are gathered have one call each.
        self.stepped = np.zeros(len(self.rows), dtype=np.int64)
        keys = [row.bucket() for row in self.rows]
        ends = [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]] + [len(keys)] * bool(keys)
        for start, stop in zip([0, *ends], ends, strict=False):
            row = self.rows[start]
            device = row.local.device
            number = library().device_number(device, "a parameter")
            counter = skipped.address(device)
            pages = next((row.spec.pages for row in self.rows[start:stop] if row.spec.pages), None)
            pager = None if pages is None else pages.pager(device)
            dtypes = DTYPES[row.local.dtype], DTYPES[row.grad_dtype]
            call = Call(
                *dtypes, row.spec.format, row.spec.remainder_bits, number, counter, pager, self.progress_of(start)
            )
            self.buckets.append(Bucket(row, start, stop, self.table, call))
        self.all_on_device = all(bucket.on_device for bucket in self.buckets)

    def progress_of(self, row: Any) -> Any:
        """The address of the number of rows stepped by the call that begins with `row`; the library writes it."""
        return self.stepped.ctypes.data + 8 * row

    # ---- every step ----------------------------------------------------------------------------------------------

    def refresh(self, groups: Any, states: Any, exposed: bool) -> bool:
        """Points the table at this step's gradients. Returns False, without side effects, if the plan is out of date.

        `exposed`: code outside has seen `states`, and may have replaced or moved its tensors.
        """
        if len(groups) != len(self.groups) or not all(map(Group.same, self.groups, groups)):
            return False
        # With one group, use its list: a copy would touch every parameter.
        params = groups[0]["params"] if len(groups) == 1 else None
        if type(params) is not list:
            params = in_order(groups)
        if len(params) != len(self.rows) + len(self.waiting):
            return False
        if self.waiting and any(params[i].grad is not None for i in self.waiting):
            return False
        if self.sharded and self._placements(params) != self.placements:
            return False
        if not self.watch.unchanged(list(map(inner, params)) if self.sharded else params):
            return False
        if exposed and not self.state_watch.unchanged(states):
            return False
        params = self._params_of_rows(params)
        if not self.gradients.take(params):
            return False
        self.params = params  # until release(): to go through them once more would touch all of them
        return True

    def release(self) -> None:
        """Releases the tensors that refresh() has taken for one step."""
        self.gradients.release()
        self.params = None

    def step(self, groups: Any, found_inf: Any = None) -> None:
        """Steps every parameter that has a gradient. `found_inf`: None, or a tensor of one element; then all parameters
        are on devices, and their step counts too.

        ValueError if an option of `groups` is wrong, RuntimeError if the norm of all gradients is not finite and
        error_if_nonfinite is True; nothing has been written then.
        """
        try:
            self._set_options(groups)
            self.clipping.prepare(self, groups, found_inf)
            self._run(groups, found_inf)
        finally:
            self.release()

    def _set_options(self, groups: Any) -> None:
        for number, group in enumerate(groups):
            if type(group["betas"]) is not tuple:  # a scheduler or the user has set it
                check_options({"betas": group["betas"]}, where(group, number))
                group["betas"] = plain_betas(group["betas"])
            known, values, lr = self.groups[number], get_values(group), group["lr"]
            had_tensor, known.lr_tensor = known.lr_tensor is not None, None
            if type(lr) is not float:  # nearly always it is a float; a check for a tensor would take longer
                if is_on_device(lr):
                    known.lr_tensor, lr = lr, 0.0  # the kernels read its value
                else:
                    check_options({"lr": lr})
                    lr = scalar(lr)
            has_tensor = known.lr_tensor is not None
            if values != known.values or lr != known.lr or had_tensor != has_tensor:
                check_options(group, where(group, number))
                group["betas"] = plain_betas(group["betas"])
                known.values = None  # until everything is set
                for bucket in self.buckets:
                    if bucket.group == number:
                        bucket.call.set_values(get_values({**group, **bucket.own}) if bucket.own else values)
                        # A group whose lr is 0 also stops parameters with a separate lr; see _factors().
                        bucket.call.options.lr = scalar(bucket.own.get("lr", lr)) if lr or has_tensor else 0.0
                known.values, known.lr = values, lr

    # ---- a step that has begun -----------------------------------------------------------------------------------

    def _run(self, groups: Any, found_inf: Any) -> None:
        self.stepped.fill(0)  # first: the numbers of an earlier step must not count
        run = self.unsettled = Run(self, self.params, found_inf)
        try:
            run.calls(groups)
        except BaseException as error:
            self.settle()
            run.name_stepped(error)
            raise
        self.settle()

    def settle(self) -> None:
        """Makes parameters, state and counts agree, row by row, however the step ended.

        An interrupt during this function does not end it, and is raised afterwards.
        """
        interrupt = None
        while self.unsettled is not None:
            try:
                self.unsettled.settle()
                self.unsettled = None
            except KeyboardInterrupt as error:
                interrupt = error
            except Exception:
                if self.unsettled.failed:  # for the second time: another try will not help
                    self.unsettled = None
                else:
                    self.unsettled.failed = True
                raise
        if interrupt is not None:
            raise interrupt
