"""Owns where the memory of optimizer state comes from. Must not know what is stored in it.

Paged state is host memory on the CPU for now; the page manager of libadamw takes over behind these two functions.
"""

import torch

# As in bitsandbytes: smaller parameters are not worth paging.
MINIMUM = 100_000


def is_paged(wanted, numel):
    """Whether a parameter of `numel` elements, in a group that asks for paging or not, is paged."""
    return wanted and numel >= MINIMUM


def zeros(shape, dtype, device, paged):
    """A contiguous tensor of zeros for state, in pages if `paged`."""
    return torch.zeros(shape, dtype=dtype, device=device)
