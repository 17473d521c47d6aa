"""Owns the step counts of a plan's rows: where they lie, and counting one more. Must not know what a step does."""

import numpy as np
import torch

from ._device import is_device


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

    def add(self, present, found_inf, known):
        """One more step of the rows in `present` (None: all), unless `found_inf`, for devices, says that there is none.

        Returns what takes it back, except for the rows that it is given. `known`: as of _device.float32_at().
        """
        undo = [device.add(present, found_inf, known) for device in self._devices]
        for block in self._blocks:
            block.add(present)
            if not self._read_in_place:
                self._numbers[block.rows] = block.values()

        def take_back(kept):
            for block in self._blocks:
                block.take_back([i for i in (block.rows if present is None else present) if i not in kept])
            for take_back_device in undo:
                take_back_device(kept)

        return take_back


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
        # numpy takes three times as long to add a Python number.
        self._ones = np.ones_like(self._array) if self._places == list(range(length)) else None

    def addresses(self):
        first = self._memory.data_ptr()
        return [first + 4 * place for place in self._places]

    def values(self):
        return self._array if self._ones is not None else self._array[self._places]

    def add(self, present):
        if present is not None:
            self._array[[self._place_of[i] for i in present if i in self._place_of]] += 1
        elif self._ones is not None:
            self._array += self._ones
        else:
            self._array[self._places] += 1

    def take_back(self, rows):
        self._array[[self._place_of[i] for i in rows if i in self._place_of]] -= 1


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

    def add(self, present, found_inf, known):
        """One more step of the rows in `present` (None: all), unless `found_inf` says that there is none.

        Returns what takes it back, except for the rows that it is given.
        """
        views = None if present is None else [self.views[self.position[i]] for i in present if i in self.position]
        if views == []:
            return lambda _kept: None
        one = 1.0
        if found_inf is not None:
            key = (id(found_inf), self.counts.device, "one")
            if key not in known:
                moved = found_inf.detach().to(device=self.counts.device, non_blocking=True).reshape(())
                known[key] = (moved == 0).to(torch.float32)
            one = known[key]

        if views is None:
            self.counts.add_(one)
        else:
            for view in views:
                view.add_(one)

        def take_back(kept):
            for i in self.rows if present is None else present:
                if i in self.position and i not in kept:
                    self.views[self.position[i]].sub_(one)

        return take_back
