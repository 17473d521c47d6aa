"""Owns the step counts of a plan's rows: where they lie, and counting one more. Must not know what a step does."""

import numpy as np
import torch

from ._device import is_device


class Counts:
    """The step counts of all rows: views of one tensor here and, of rows whose device keeps them, of one there."""

    def __init__(self, counts, there):
        """`there`: {device: rows} of those that the device keeps."""
        self._host = torch.tensor(counts, dtype=torch.float32)
        self._array = self._host.numpy()
        self._ones = np.ones_like(self._array)
        self._devices = [_DeviceCounts(rows, [counts[i] for i in rows], device) for device, rows in there.items()]
        self.views = list(self._host.unbind())
        for device in self._devices:
            for i, view in zip(device.rows, device.views, strict=True):
                self.views[i] = view

    def fill(self, table, tensors):
        """Points the rows of the table at their counts where the device that steps them can read these."""
        self._numbers = table["step"]
        for device in self._devices:
            table["step_tensor"][device.rows] = device.addresses()
        here = [i for i, tensor in enumerate(tensors) if not is_device(tensor.device)]
        table["step_tensor"][here] = [self._host.data_ptr() + 4 * i for i in here]
        self._read_there = bool(table["step_tensor"].all())

    def add(self, present, found_inf, known):
        """One more step of the rows in `present` (None: all), unless `found_inf`, for devices, says that there is none.

        Returns what takes it back, except for the rows that it is given. `known`: as of _device.float32_at().
        """
        undo = [device.add(present, found_inf, known) for device in self._devices]
        if present is None:
            self._array += self._ones  # numpy takes three times as long to add a Python number
        else:
            self._array[present] += 1
        if not self._read_there:
            self._numbers[:] = self._array

        def take_back(kept):
            self._array[[i for i in (range(len(self._array)) if present is None else present) if i not in kept]] -= 1
            for take_back_there in undo:
                take_back_there(kept)

        return take_back


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
                there = found_inf.detach().to(device=self.counts.device, non_blocking=True).reshape(())
                known[key] = (there == 0).to(torch.float32)
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
