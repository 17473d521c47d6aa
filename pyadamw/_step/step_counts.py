"""Owns the step counts of a plan's rows: where they lie, counting one more, and taking that back. Must not know what a
step does.

An interrupt (Ctrl-C) may come between any two operations of Python. So whatever changes counts is one call of C that
also notes that it has done so: `done.extend(map(np.add, ...))`. What is to be taken back is then known for certain.
"""

from functools import partial
from itertools import repeat

import numpy as np
import torch

from .._native.cuda import is_device


class Counts:
    """The step counts of all rows. `views` are the tensors that state has of them."""

    def __init__(self, tensors, on_device):
        """`tensors`: one float32 each. `on_device`: {device: rows} of those that the device keeps.

        A count stays in the memory that it is in if that may be known elsewhere: processes that share it count
        together. One that lies alone moves into memory where all of these can be counted in one go.
        """
        self.views = list(tensors)
        self._devices = [
            _DeviceCounts(rows, [float(tensors[i]) for i in rows], device) for device, rows in on_device.items()
        ]
        for device in self._devices:
            for i, view in zip(device.rows, device.views, strict=True):
                self.views[i] = view
        # The host counts what devices keep, too; that is passed where the device's number cannot be.
        kept = {i for rows in on_device.values() for i in rows}
        here = [i for i, tensor in enumerate(tensors) if i not in kept and not is_device(tensor.device)]
        self._blocks = _shared_blocks({i: tensors[i] for i in here})
        placed = {i for block in self._blocks for i in block.rows}
        alone = [i for i in range(len(tensors)) if i not in placed]
        if len(alone) == 1 and alone[0] in here:
            self._blocks.append(_Block({alone[0]: tensors[alone[0]]}))
        elif alone:
            values = torch.tensor([float(tensors[i]) for i in alone], dtype=torch.float32, device="cpu")
            views = dict(zip(alone, values.unbind(), strict=True))
            self._blocks.append(_Block(views))
            for i in set(alone) - kept:
                self.views[i] = views[i]
        self._parts = [*self._devices, *self._blocks]

    def fill(self, table, on_cpu):
        """Points the rows of the table at their counts where the device that steps them can read these. `on_cpu`:
        whether the CPU steps a row, for each."""
        self._numbers = table["step"]
        for device in self._devices:
            table["step_tensor"][device.rows] = device.addresses()
        for block in self._blocks:
            for i, address in zip(block.rows, block.addresses(), strict=True):
                if on_cpu[i]:
                    table["step_tensor"][i] = address
        self._read_in_place = bool(table["step_tensor"].all())

    def notes(self):
        """What add() and take_back() note: for each memory of counts, how often they have changed it."""
        return [([], []) for _ in self._parts]

    def add(self, notes, present, found_inf, known):
        """One more step of the rows in `present` (None: all), unless `found_inf`, for devices, says that there is none.

        `notes`: of notes(), for this step. `known`: as of cuda.float32_at().
        """
        for part, (added, _) in zip(self._parts, notes, strict=True):
            part.add(added, present, found_inf, known)
        if not self._read_in_place:
            for block in self._blocks:
                self._numbers[block.rows] = block.values()

    def take_back(self, notes, present, found_inf, known, kept):
        """Takes back what add() with the same arguments has done, as far as it came, except for the rows in `kept`, a
        set. To call it again does nothing more, wherever an interrupt has ended it."""
        for part, (added, taken) in zip(self._parts, notes, strict=True):
            part.take_back(added, taken, present, found_inf, known, kept)


def _shared_blocks(counts):
    """Blocks of those counts {row: tensor} that lie together with others, or where other processes may see them."""
    storages = {}
    for i, tensor in counts.items():
        storages.setdefault(tensor.untyped_storage().data_ptr(), {})[i] = tensor
    blocks = []
    for tensors in storages.values():
        first = next(iter(tensors.values()))
        # Each count once: what two rows share would be counted twice.
        tensors = {place: (i, tensor) for i, tensor in tensors.items() for place in [tensor.storage_offset()]}
        if first.is_shared() or first.untyped_storage().nbytes() > first.element_size():
            blocks.append(_Block(dict(tensors.values())))
    return blocks


class _Block:
    """Step counts in one memory of the host."""

    def __init__(self, tensors):
        """`tensors`: {row: its count}, all of one storage."""
        first = next(iter(tensors.values())).detach()
        length = first.untyped_storage().nbytes() // first.element_size()
        self._memory = first.as_strided((length,), (1,), 0)
        self._array = self._memory.numpy()
        self.rows = list(tensors)
        self._places = [tensor.storage_offset() for tensor in tensors.values()]
        self._place_of = dict(zip(self.rows, self._places, strict=True))
        self._ones = np.ones_like(self._array)  # numpy takes three times as long to add a Python number
        self._all = None if self._places == list(range(length)) else self._mask(self.rows)

    def addresses(self):
        first = self._memory.data_ptr()
        return [first + 4 * place for place in self._places]

    def values(self):
        return self._array if self._all is None else self._array[self._places]

    def _mask(self, rows):
        """Which counts of the memory are those of `rows`: no other is written, for it may be another process's."""
        mask = np.zeros(len(self._array), dtype=bool)
        mask[[self._place_of[i] for i in rows if i in self._place_of]] = True
        return mask

    def add(self, added, present, _found_inf, _known):
        mask = self._all if present is None else self._mask(present)
        add = np.add if mask is None else partial(np.add, where=mask)
        added.extend(map(add, (self._array,), (self._ones,), (self._array,)))

    def take_back(self, added, taken, present, _found_inf, _known, kept):
        if added and not taken:
            mask = self._mask(i for i in (self.rows if present is None else present) if i not in kept)
            subtract = partial(np.subtract, where=mask)
            taken.extend(map(subtract, (self._array,), (self._ones,), (self._array,)))


class _DeviceCounts:
    """The step counts of some rows, in the memory of a device. Kernels read them when they run."""

    def __init__(self, rows, counts, device):
        self.rows = rows
        self.counts = torch.tensor(counts, dtype=torch.float32, device=device)
        self.views = list(self.counts.unbind())
        self.position = {row: k for k, row in enumerate(rows)}

    def addresses(self):
        first = self.counts.data_ptr()
        return [first + 4 * k for k in range(len(self.rows))]

    def _views(self, present):
        """The rows in `present` that are here, and their counts."""
        rows = [i for i in present if i in self.position]
        return rows, [self.views[self.position[i]] for i in rows]

    def add(self, added, present, found_inf, known):
        views = [self.counts] if present is None else self._views(present)[1]
        if views:
            added.extend(map(torch.Tensor.add_, views, repeat(self._one(found_inf, known))))

    def take_back(self, added, taken, present, found_inf, known, kept):
        if not added:
            return
        rows, views = self._views(self.rows if present is None else present)
        counted = len(views) if present is None else len(added)
        views = [view for i, view in zip(rows[:counted], views, strict=False) if i not in kept]
        taken.extend(map(torch.Tensor.sub_, views[len(taken) :], repeat(self._one(found_inf, known))))

    def _one(self, found_inf, known):
        """What a step adds: 1, or where `found_inf` may say that there is none, a tensor of 0 or 1."""
        if found_inf is None:
            return 1.0
        key = (id(found_inf), self.counts.device, "one")
        if key not in known:
            moved = found_inf.detach().to(device=self.counts.device, non_blocking=True).reshape(())
            known[key] = (moved == 0).to(torch.float32)
        return known[key]
