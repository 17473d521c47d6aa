"""Owns the extra needs of a step on a CUDA device: its stream, and numbers that stay in device memory, so that the CPU
need not wait for them. Must not know rows or groups.
"""

from __future__ import annotations

from typing import Any

import torch

from .memory import plain
from .torch_private import current_raw_stream

TYPES = {"cuda"}  # of torch devices that libadamw reaches through a driver


def is_device(device: torch.device) -> bool:
    return device.type in TYPES


def stream(device: torch.device) -> int:
    """The address of the current stream of `device`."""
    if current_raw_stream is not None and device.index is not None:
        return current_raw_stream(device.index)
    return torch.cuda.current_stream(device).cuda_stream


def is_capturing() -> bool:
    """Whether a CUDA graph is being captured: then work is recorded, and runs at each replay."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def is_on_device(value: Any) -> bool:
    """Whether `value` is a tensor on a device, which the CPU could read only after waiting."""
    return isinstance(value, torch.Tensor) and is_device(value.device)


def float32_at(value: Any, device: torch.device, known: Any) -> Any:
    """The address of one float32 on `device` with the value of `value`, a tensor of one element; 0 if it is None.

    `known`, a dict of this step, holds the new tensors, so that they outlive the calls.
    """
    if value is None:
        return 0
    key = (id(value), device)
    if key not in known:
        # The CPU waits only if the number moves from a device to the CPU.
        known[key] = plain(value.detach().to(device, torch.float32, non_blocking=is_device(device)).reshape(1))
    return known[key].data_ptr()


class Counter:
    """A counter of elements with a part on each device; `total` waits for the devices."""

    def __init__(self, start: int = 0) -> None:
        self.parts = {torch.device("cpu"): torch.tensor([start], dtype=torch.int64, device="cpu")}

    def address(self, device: torch.device) -> int:
        if device not in self.parts:
            self.parts[device] = torch.zeros(1, dtype=torch.int64, device=device)
        return self.parts[device].data_ptr()

    @property
    def total(self) -> Any:
        return sum(int(part) for part in self.parts.values())
