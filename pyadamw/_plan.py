"""Owns what stays the same from one step to the next: the row table, its pointers, and the calls that step it; and
finding out cheaply that something did change. Must not know how rows are chosen or what state is made of.

The cost of refresh() and step() is the cost of a step beyond the C call, so they handle whole lists in single C-level
operations: about five such passes over the parameters.
"""

from itertools import chain

import numpy as np
import torch
from torch.utils.dlpack import to_dlpack

from ._bucket import Bucket, Group, in_order, same_objects
from ._checks import scalar
from ._counts import Counts
from ._device import float32_at, is_device, stays_there, stream
from ._errors import AdamWError
from ._gradients import Gradients
from ._library import DTYPES, library
from ._local import gathered, inner, is_sharded, own_part
from ._rows import describe
from ._table import Call, get_values, new_rows, rows_pointer
from ._validate import check_options, plain_betas
from ._watch import Watch, increment_version


class Plan:
    def __init__(self, groups, states, rows, waiting, skipped, counts_there=False):
        self.described = groups
        self.groups = [Group(group) for group in groups]
        self.in_groups = in_order(groups)
        self.rows, self.waiting = rows, waiting
        self.params = [row.param for row in rows]
        self.tensors = [row.local.tensor for row in rows]
        self.sharded = any(map(is_sharded, self.params))
        self.wholes = [i for i, row in enumerate(rows) if row.local.whole]
        self.memory = Watch(self.tensors)
        self.watched = self._watched()
        contiguous = self.memory.contiguous
        self.strided = [i for i, row in enumerate(rows) if not (contiguous[i] or row.local.whole)]
        # An alias shares the version counter, and is of torch's own class: three times as fast to pass as a Parameter.
        self.versions = self.params if self.sharded else self.memory.aliases
        # Tensors that C++ owns too are four times as fast to pass: nothing is handed over to Python and back. Not for
        # parameters themselves: their hooks may refer to the optimizer, and such a cycle could never be collected.
        self.owners = list(map(to_dlpack, self.memory.aliases)) if not self.sharded else None
        self.without_version = {i for i, tensor in enumerate(self.versions) if tensor.is_inference()}
        self.counts_there = counts_there  # step counts of all devices' rows lie there, not only of capturable groups
        self._take_state(states)
        self._check_overlap()
        self._fill_table()
        self._make_calls(skipped)

    # ---- building ------------------------------------------------------------------------------------------------

    def _watched(self):
        """What looks at the parameters in the order of their groups, and so says whether they are the same, too. None
        where that cannot be: then they have to be compared first."""
        if same_objects(self.in_groups, self.tensors):
            watched = self.memory
        elif set(map(id, self.in_groups)) == set(map(id, self.tensors)):  # buckets have another order
            watched = Watch(self.in_groups)
        else:
            return None
        return watched if watched.known is not None else None

    def _take_state(self, states):
        """Makes the step counts views of one tensor, and remembers every tensor of the state."""
        mine = [states[param] for param in self.params]
        self.counts = Counts([float(state["step"]) for state in mine], self._counted_there())
        for state, view in zip(mine, self.counts.views, strict=True):
            state["step"] = view
        self.states = mine
        self.state_dicts = list(states.values())
        self.state_tensors = [value for state in mine for value in state.values()]
        self.state_memory = Watch([inner(value) for value in self.state_tensors if isinstance(value, torch.Tensor)])

    def _counted_there(self):
        """{device: rows} of those whose step counts the device keeps."""
        result = {}
        for i, (row, tensor) in enumerate(zip(self.rows, self.tensors, strict=True)):
            if is_device(tensor.device) and (self.counts_there or self.described[row.group]["capturable"]):
                result.setdefault(tensor.device, []).append(i)
        return result

    def _check_overlap(self):
        """The library checks the rows of one call; this checks those of all calls, before the first."""
        written = [(tensor, i) for i, tensor in enumerate(self.tensors) if self.memory.contiguous[i]]
        for i, state in enumerate(self.states):
            tensors = [value for key, value in state.items() if key != "step" and isinstance(value, torch.Tensor)]
            written += [(inner(value), i) for value in tensors]
        written = [(tensor, i) for tensor, i in written if tensor.numel()]
        begin = np.array([tensor.data_ptr() for tensor, _ in written], dtype=np.uint64)
        end = begin + np.array([tensor.numel() * tensor.element_size() for tensor, _ in written], dtype=np.uint64)
        order = np.argsort(begin, kind="stable")
        for k in np.flatnonzero(begin[order][1:] < end[order][:-1])[:1]:
            rows = [self.rows[written[order[j]][1]] for j in (k, k + 1)]
            one, other = (describe(self.described, row.group, row.position) for row in rows)
            raise ValueError(f"{one} and {other} share memory: each must have its own")

    def _fill_table(self):
        table = self.table = new_rows(len(self.rows))
        table["param"] = self.memory.pointers
        table["numel"] = [row.local.shape.numel() for row in self.rows]
        table["row_length"] = [row.local.row_length for row in self.rows]
        table["global_offset"] = [row.local.global_offset for row in self.rows]
        for key in {key for state in self.states for key in state} & set(table.dtype.names) - {"step"}:
            table[key] = [inner(state[key]).data_ptr() if key in state else 0 for state in self.states]
        self.counts.fill(table, self.tensors)
        self.gradients = Gradients(self.rows, table["grad"], self.memory, self.sharded)

    def _make_calls(self, skipped):
        self.buckets = []
        keys = [row.bucket() for row in self.rows]
        ends = [i for i in range(1, len(keys)) if keys[i] != keys[i - 1]] + [len(keys)] * bool(keys)
        for start, stop in zip([0, *ends], ends, strict=False):
            row = self.rows[start]
            device = row.local.tensor.device
            number = library().device_number(device, "a parameter")
            counter = skipped.address(device)
            pages = next((row.spec.pages for row in self.rows[start:stop] if row.spec.pages), None)
            pager = None if pages is None else pages.pager(device)
            call = Call(DTYPES[row.local.tensor.dtype], DTYPES[row.grad_dtype], row.spec.format, number, counter, pager)
            self.buckets.append(Bucket(row.group, row.own, start, stop, self.table, call, device))
        self.everything_there = all(bucket.there for bucket in self.buckets)

    # ---- every step ----------------------------------------------------------------------------------------------

    def refresh(self, groups, states, exposed):
        """Points the table at this step's gradients. False if the plan is out of date; nothing has been written then.

        `exposed`: somebody outside has seen `states`, and may have replaced what is in it.
        """
        if len(groups) != len(self.groups) or not all(map(Group.same, self.groups, groups)):
            return False
        if self.waiting and any(param.grad is not None for param in self.waiting):
            return False
        if not self._same_params(groups):
            return False
        return self.gradients.take() and not (exposed and self._state_changed(states))

    def _same_params(self, groups):
        """Whether these groups have the same parameters, and these their memory."""
        # The list itself where there is one: a copy touches every parameter.
        params = groups[0]["params"] if len(groups) == 1 else None
        if type(params) is not list:
            params = in_order(groups)
        if self.watched is not None:
            return self.watched.unchanged(params)
        if not same_objects(params, self.in_groups):
            return False
        return self.memory.unchanged(list(map(inner, self.params)) if self.sharded else self.tensors)

    def _state_changed(self, states):
        if not same_objects(list(states.values()), self.state_dicts):
            return True
        tensors = list(chain.from_iterable(map(dict.values, self.states)))
        if not same_objects(tensors, self.state_tensors):
            return True
        return not self.state_memory.unchanged([inner(value) for value in tensors if isinstance(value, torch.Tensor)])

    def step(self, groups, grad_scale=None, found_inf=None):
        """Steps every parameter that has a gradient. `grad_scale`, `found_inf`: None, or tensors of one element; with
        `found_inf` all parameters are on devices, and their step counts too.

        ValueError if an option of `groups` is wrong; nothing has been written then.
        """
        try:
            self._set_options(groups)
            self._run(grad_scale, found_inf)
        finally:
            self.gradients.release()

    def _set_options(self, groups):
        for number, group in enumerate(groups):
            if type(group["betas"]) is not tuple:  # what a scheduler or a user has put there
                check_options({"betas": group["betas"]}, f"group {number}: ")
                group["betas"] = plain_betas(group["betas"])
            known, values, lr = self.groups[number], get_values(group), group["lr"]
            was_there, known.lr_tensor = known.lr_tensor is not None, None
            if type(lr) is not float:  # so it is nearly always; to ask whether it is a tensor takes longer
                if stays_there(lr):
                    known.lr_tensor, lr = lr, 0.0  # its value is the kernels' to read
                else:
                    check_options({"lr": lr})
                    lr = scalar(lr)
            is_there = known.lr_tensor is not None
            if values != known.values or lr != known.lr or was_there != is_there:
                check_options(group, f"group {number}: ")
                group["betas"] = plain_betas(group["betas"])
                for bucket in self.buckets:
                    if bucket.group == number:
                        bucket.call.set_values(get_values({**group, **bucket.own}) if bucket.own else values)
                        # A group whose lr is 0 stops what has an lr of its own, too; see _factors().
                        bucket.call.options.lr = scalar(bucket.own.get("lr", lr)) if lr or is_there else 0.0
                known.values, known.lr = values, lr

    def _run(self, grad_scale, found_inf):
        threads, factors = torch.get_num_threads(), {}
        copies = self._copies_of_strided() if self.strided or self.wholes else None
        take_back = self.counts.add(self.gradients.present, found_inf, factors)
        stepped = []  # ranges or lists of rows
        try:
            for bucket in self.buckets:
                bucket.call.set_surroundings((threads, *self._factors(bucket, grad_scale, found_inf, factors)))
                if self.gradients.present is None:
                    self._call(bucket, bucket.rows, bucket.pointer, stepped)
                else:
                    self._call_some(bucket, stepped)
        except BaseException as error:  # an interrupt, too, must leave the counts right
            rows = list(chain.from_iterable(stepped))
            take_back(set(rows))
            if isinstance(error, AdamWError):
                error.stepped = tuple(self.params[i] for i in rows)
            raise
        finally:
            self._finish(copies)

    def _factors(self, bucket, grad_scale, found_inf, known):
        """What lies behind pointers, on the bucket's device; only the CPU has to wait for what comes from another."""
        device = bucket.device
        lr = self.groups[bucket.group].lr_tensor
        if lr is not None and "lr" in bucket.own:
            lr = self._own_lr(lr, bucket.own["lr"], known)
        factors = float32_at(grad_scale, device, known), float32_at(lr, device, known)
        if not bucket.there:
            return *factors, 0, 0
        return *factors, float32_at(found_inf, device, known), stream(device)

    @staticmethod
    def _own_lr(lr, own, known):
        """An lr of a parameter's own where the group's lies on a device: 0 where that is 0, without waiting for it."""
        return known.setdefault(("own lr", id(lr), id(own)), (lr.detach() != 0).to(torch.float32) * own)

    def _finish(self, copies):
        if copies:
            with torch.no_grad():
                for i, copy in copies.items():
                    self.tensors[i].copy_(own_part(copy, self.params[i]) if self.rows[i].local.whole else copy)
        present = self.gradients.present
        if present is None and not self.without_version:
            increment_version(self.versions)
        else:
            stepped = range(len(self.rows)) if present is None else present
            increment_version([self.versions[i] for i in stepped if i not in self.without_version])

    def _copies_of_strided(self):
        """The table steps contiguous copies of parameters that are not contiguous themselves, or not whole."""
        copies = {}
        for i in self.gradients.of_these(self.strided):
            copies[i] = self.tensors[i].detach().contiguous()
        for i in self.gradients.of_these(self.wholes):
            copies[i] = gathered(self.params[i])
            self.gradients.gather(i)
        for i, copy in copies.items():
            self.table["param"][i] = copy.data_ptr()
        return copies

    def _call_some(self, bucket, stepped):
        some = [i for i in self.gradients.present if bucket.start <= i < bucket.stop]
        if some:
            self._call(bucket, some, rows_pointer(self.table[some]), stepped)

    def _call(self, bucket, indices, pointer, stepped):
        def name(i):
            row = self.rows[indices[i]]
            return describe(self.described, row.group, row.position)

        try:
            bucket.call.step(pointer, len(indices), name)
        except AdamWError:
            stepped.append(indices[: bucket.call.rows_stepped])
            raise
        stepped.append(indices)
