"""Owns what a step on a CUDA device takes beyond a step on the CPU: its stream, and numbers that stay in the device's
memory, so that nobody has to wait for them. Must not know rows or groups.
"""

import torch

from .memory import plain
from .torch_private import current_raw_stream

TYPES = {"cuda"}  # of torch devices that libadamw reaches through a driver


def is_device(device):
    return device.type in TYPES


def stream(device):
    """The address of the stream that work on `device` is queued on now."""
    if current_raw_stream is not None and device.index is not None:
        return current_raw_stream(device.index)
    return torch.cuda.current_stream(device).cuda_stream


def is_capturing():
    """Whether a CUDA graph is being captured: work is recorded, and runs at each replay."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def stays_there(value):
    """Whether `value` is a tensor that reading would have to wait for."""
    return isinstance(value, torch.Tensor) and is_device(value.device)


def float32_at(value, device, known):
    """The address of one float32 on `device` with the value of `value`, a tensor of one element; 0 if it is None.

    `known`, a dict of this step, holds what was made, so that it outlives the calls.
    """
    if value is None:
        return 0
    key = (id(value), device)
    if key not in known:
        # Without waiting, unless the number comes down from a device.
        known[key] = plain(value.detach().to(device, torch.float32, non_blocking=is_device(device)).reshape(1))
    return known[key].data_ptr()


class Counter:
    """Counts elements on several devices; `total` waits for them."""

    def __init__(self, start=0):
        self.parts = {torch.device("cpu"): torch.tensor([start], dtype=torch.int64, device="cpu")}

    def address(self, device):
        if device not in self.parts:
            self.parts[device] = torch.zeros(1, dtype=torch.int64, device=device)
        return self.parts[device].data_ptr()

    @property
    def total(self):
        return sum(int(part) for part in self.parts.values())
