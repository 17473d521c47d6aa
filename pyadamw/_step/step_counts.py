"""Owns the step counts of a plan's rows: their place in memory, counting one more step, and undoing that. Must not know
what a step does.

An interrupt (Ctrl-C) may come between any two operations of Python. So every change of counts is one call of C that
also notes the change: `done.extend(map(np.add, ...))`. The notes then say for certain what must be undone.
"""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
import torch

from .._native.cuda import is_device


class Counts:
    """The step counts of all rows. `views` are the tensors in state that show them."""

    def __init__(self, tensors: Any, on_device: Any) -> None:
        """`tensors`: one float32 each. `on_device`: {device: rows} of the counts that the device keeps.

        A count stays in its memory if other code may use this memory: processes that share a count then count together.
        A count in a tensor of one element moves into common memory, where all of them are counted in one operation.
        """
        self.views = list(tensors)
        self._devices = [
            _DeviceCounts(rows, [float(tensors[i]) for i in rows], device) for device, rows in on_device.items()
        ]
        for device in self._devices:
            for i, view in zip(device.rows, device.views, strict=True):
                self.views[i] = view
        # The host also counts for the rows of devices; it passes this number where the device's count cannot be passed.
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

    def fill(self, table: Any, on_cpu: Any) -> None:
        """Points the rows of the table at their counts, if the device that steps them can read the counts.

        `on_cpu`: for each row, whether the CPU steps it.
        """
        self._numbers = table["step"]
        for device in self._devices:
            table["step_tensor"][device.rows] = device.addresses()
        for block in self._blocks:
            for i, address in zip(block.rows, block.addresses(), strict=True):
                if on_cpu[i]:
                    table["step_tensor"][i] = address
        self._read_in_place = bool(table["step_tensor"].all())

    def notes(self) -> Any:
        """Empty notes for add() and take_back(): for each block of counts, how often they have changed it."""
        return [([], []) for _ in self._parts]

    def add(self, notes: Any, present: list[int] | None, found_inf: Any, known: Any) -> None:
        """Counts one more step of the rows in `present` (None: all), except on devices if `found_inf` cancels the step.

        `notes`: from notes(), for this step. `known`: as in cuda.float32_at().
        """
        for part, (added, _) in zip(self._parts, notes, strict=True):
            part.add(added, present, found_inf, known)
        if not self._read_in_place:
            for block in self._blocks:
                self._numbers[block.rows] = block.values()

    def take_back(self, notes: Any, present: list[int] | None, found_inf: Any, known: Any, kept: Any) -> None:
        """Undoes add() with the same arguments, even if that was interrupted, except for the rows in the set `kept`.

        After an interrupt it can be called again; it does nothing twice.
        """
        for part, (added, taken) in zip(self._parts, notes, strict=True):
            part.take_back(added, taken, present, found_inf, known, kept)


def _shared_blocks(counts: Any) -> Any:
    """Blocks for the counts {row: tensor} that share memory with others, or that other processes may see."""
    storages: dict[int, dict[int, torch.Tensor]] = {}
    for i, tensor in counts.items():
        storages.setdefault(tensor.untyped_storage().data_ptr(), {})[i] = tensor
    blocks = []
    for tensors in storages.values():
        first = next(iter(tensors.values()))
        # Each count once: what two rows share would be counted twice.
        by_place = {int(tensor.storage_offset()): (i, tensor) for i, tensor in tensors.items()}
        if first.is_shared() or first.untyped_storage().nbytes() > first.element_size():
            blocks.append(_Block(dict(by_place.values())))
    return blocks


class _Block:
    """Step counts in one storage on the host."""

    def __init__(self, tensors: Any) -> None:
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

    def addresses(self) -> Any:
        first = self._memory.data_ptr()
        return [first + 4 * place for place in self._places]

    def values(self) -> Any:
        return self._array if self._all is None else self._array[self._places]

    def _mask(self, rows: Any) -> Any:
        """A mask of the counts of `rows`: no other count is written, because another process may own it."""
        mask = np.zeros(len(self._array), dtype=bool)
        mask[[self._place_of[i] for i in rows if i in self._place_of]] = True
        return mask

    def add(self, added: Any, present: list[int] | None, _found_inf: Any, _known: Any) -> None:
        mask = self._all if present is None else self._mask(present)
        add = np.add if mask is None else partial(np.add, where=mask)
        added.extend(map(add, (self._array,), (self._ones,), (self._array,)))

    def take_back(
        self, added: Any, taken: Any, present: list[int] | None, _found_inf: Any, _known: Any, kept: Any
    ) -> None:
        if added and not taken:
            mask = self._mask(i for i in (self.rows if present is None else present) if i not in kept)
            subtract = partial(np.subtract, where=mask)
            taken.extend(map(subtract, (self._array,), (self._ones,), (self._array,)))


class _DeviceCounts:
    """The step counts of some rows, in the memory of a device. Kernels read them when they run."""

    def __init__(self, rows: Any, counts: Any, device: torch.device) -> None:
        self.rows = rows
        self.counts = torch.tensor(counts, dtype=torch.float32, device=device)
        self.views = list(self.counts.unbind())
        self.position = {row: k for k, row in enumerate(rows)}

    def addresses(self) -> Any:
        first = self.counts.data_ptr()
        return [first + 4 * k for k in range(len(self.rows))]

    def _views(self, present: list[int]) -> Any:
        """The rows in `present` that this device keeps, and their counts."""
        rows = [i for i in present if i in self.position]
        return rows, [self.views[self.position[i]] for i in rows]

    def add(self, added: Any, present: list[int] | None, found_inf: Any, known: Any) -> None:
        views = [self.counts] if present is None else self._views(present)[1]
        if views:
            added.extend(map(torch.Tensor.add_, views, repeat(self._one(found_inf, known))))

    def take_back(
        self, added: Any, taken: Any, present: list[int] | None, found_inf: Any, known: Any, kept: Any
    ) -> None:
        if not added:
            return
        rows, views = self._views(self.rows if present is None else present)
        counted = len(views) if present is None else len(added)
        views = [view for i, view in zip(rows[:counted], views, strict=False) if i not in kept]
        taken.extend(map(torch.Tensor.sub_, views[len(taken) :], repeat(self._one(found_inf, known))))

    def _one(self, found_inf: Any, known: Any) -> Any:
        """The number that a step adds: 1, or with `found_inf` a tensor of 0 or 1."""
        if found_inf is None:
            return 1.0
        key = (id(found_inf), self.counts.device, "one")
        if key not in known:
            moved = found_inf.detach().to(device=self.counts.device, non_blocking=True).reshape(())
            known[key] = (moved == 0).to(torch.float32)
        return known[key]
