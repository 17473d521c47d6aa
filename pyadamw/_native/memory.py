"""Owns what torch means by the numbers of a tensor, where that is not what lies at its address. Must not know what the
tensors are for.

A raw address says nothing of tensors that are negated lazily (imaginary parts of conjugates), of classes that wrap
other tensors (float8 weights, collectives that are still in flight), or of elements that do not lie in order. torch's
own operations read and write all of these.
"""

import torch

_is_neg = torch.Tensor.is_neg


def is_lazy(value):
    """Whether it is a parameter or buffer that has no shape yet."""
    return isinstance(value, (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))


def address(tensor):
    """Where the first element lies; 0 where there is no memory, as in a tensor that wraps another."""
    try:
        return tensor.data_ptr()
    except (RuntimeError, ValueError):
        return 0


def has_memory(tensor):
    return tensor.numel() == 0 or address(tensor) != 0


def lies_plainly(tensor):
    """Whether the numbers of a tensor are what lies at its address, one after the other."""
    return has_memory(tensor) and tensor.is_contiguous() and not _is_neg(tensor)


def oddity(value):
    """What a value is, in words, if it is no ordinary tensor whose numbers lie in memory; "" if it is one."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_nested:
        return "a nested tensor"
    if value.layout != torch.strided:
        return f"a tensor of layout {str(value.layout).removeprefix('torch.')}"
    if value.device.type == "meta":
        return "a meta tensor, which has no numbers"
    return "a quantized tensor" if value.is_quantized else ""


def is_out_of_memory(error):
    """Whether an exception says that memory could not be had. torch's for the host's memory is a RuntimeError."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def plain(tensor):
    """The numbers of a tensor where they lie plainly: itself if that is so, else a copy."""
    if lies_plainly(tensor):
        return tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(tensor.detach())


def look(tensor):
    """What has to be the same for an address to mean the same: for tensors that Described cannot read. None of what is
    no tensor."""
    if not isinstance(tensor, torch.Tensor):
        return None
    if is_lazy(tensor):  # torch refuses all questions until it is initialized, and then its class is another
        return id(tensor), type(tensor)
    return id(tensor), address(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride(), _is_neg(tensor)
