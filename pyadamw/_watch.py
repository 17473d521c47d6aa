"""Owns noticing that the memory of a tensor is not what it was: `tensor.data = ...`, set_(), resize_(). Must not know
what the tensors are for.

A step writes through raw addresses that were looked up in an earlier step. They are still right if the address is the
same and the memory behind it has not been given back and handed out again. A second reference to the memory (a detached
alias, which also shares the version counter) rules that out, so that comparing addresses is enough. It keeps replaced
memory alive until the next step.
"""

import numpy as np
import torch

from ._describe import Described

data_ptr = torch.Tensor.data_ptr
is_contiguous = torch.Tensor.is_contiguous


class Watch:
    """The memory of a list of tensors."""

    def __init__(self, tensors):
        self.pointers = list(map(data_ptr, tensors))
        self.contiguous = list(map(is_contiguous, tensors))
        self.aliases = [tensor.detach() for tensor in tensors]
        self._addresses = bytearray(8 * len(tensors))
        self.described = Described(np.frombuffer(self._addresses, dtype=np.uint64))
        # What can be compared in one go; None if it has to be asked tensor by tensor.
        self.known = tuple(map(bytes, self._seen())) if self.described.read(tensors) else None

    def _seen(self):
        return self._addresses, self.described.forms, self.described.objects

    def unchanged(self, tensors):
        """Whether these tensors, the same as at first, still have the same memory and lie in it the same way.

        Where `known` is not None, this says of any tensors whether they are the same, too.
        """
        if self.known is not None:
            return self.described.read(tensors) and self._seen() == self.known
        return list(map(data_ptr, tensors)) == self.pointers and list(map(is_contiguous, tensors)) == self.contiguous


def _accepts_lists():
    """torch.autograd.graph.increment_version() takes one tensor before torch 2.5, and any number since."""
    try:
        torch.autograd.graph.increment_version([torch.zeros(1)])
    except (AttributeError, RuntimeError, TypeError):
        return False
    return True


if _accepts_lists():
    increment_version = torch.autograd.graph.increment_version
else:

    def increment_version(tensors):
        for tensor in tensors:
            torch.autograd.graph.increment_version(tensor)
