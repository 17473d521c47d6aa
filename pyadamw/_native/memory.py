"""Owns the tensors whose values are not simply the memory at their address. Must not know what the tensors are for.

There are three kinds: lazily negated tensors (imaginary parts of conjugates), classes that wrap other tensors (float8
weights, collectives that are still running), and tensors whose elements are not in order. Code with raw addresses would
misread them. The operations of torch read and write all of them.
"""

from __future__ import annotations

from typing import Any

import torch

_is_neg = torch.Tensor.is_neg


def is_lazy(value: Any) -> bool:
    """Whether it is a parameter or buffer that has no shape yet."""
    # Not isinstance(): to torch before 2.5, every parameter that is a DTensor is one of any class of parameters.
    return issubclass(type(value), (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))


def address(tensor: torch.Tensor) -> int:
    """The address of the first element; 0 if the tensor has no memory, for example because it wraps another."""
    try:
        return tensor.data_ptr()
    except (RuntimeError, ValueError):
        return 0


def has_memory(tensor: torch.Tensor) -> bool:
    return tensor.numel() == 0 or address(tensor) != 0


def lies_plainly(tensor: torch.Tensor) -> bool:
    """Whether the values of a tensor are in memory at its address, one after the other."""
    return has_memory(tensor) and tensor.is_contiguous() and not _is_neg(tensor)


def oddity(value: Any) -> str:
    """The kind of a value, in words, if it is not an ordinary tensor with values in memory; "" if it is one."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {str(value.layout).removeprefix('torch.')}"
    if value.device.type == "meta":
        return "a meta tensor, which has no numbers"
    return "a quantized tensor" if value.is_quantized else ""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out. For host memory, torch raises a RuntimeError."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with the same values that lies plainly in memory: the tensor itself, or a copy."""
    if lies_plainly(tensor):
        return tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor.detach())


def look(tensor: torch.Tensor) -> Any:
    """The properties that must stay equal for an address to keep its meaning, for tensors that Described cannot read.

    None if `tensor` is not a tensor.
    """
    if not isinstance(tensor, torch.Tensor):
        return None
    if is_lazy(tensor):  # torch refuses all queries until it is initialized; then its class changes
        return id(tensor), type(tensor)
    return id(tensor), address(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride(), _is_neg(tensor)
