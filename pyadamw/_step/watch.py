"""Owns noticing that tensors or their memory have changed: by `tensor.data = ...`, set_(), share_memory_(),
swap_tensors(), or because another tensor took the place. Must not know what the tensors are for.

A step reads and writes at addresses from an earlier step. So before it does, it reads the addresses and forms of the
current tensors, and compares them with the remembered ones. Only numbers are remembered: nothing here keeps memory or a
tensor alive. A new tensor may have the address and the form of an old one. The step may then use it, because it is the
current tensor.
"""

from __future__ import annotations

from itertools import chain, compress
from typing import Any

import numpy as np
import torch

from .._native.inspect_tensors import Described
from .._native.memory import look
from .._native.probe import negation
from .._state.sharding import inner


class Watch:
    """The memory of a list of tensors."""

    def __init__(self, tensors: Any) -> None:
        self._addresses = bytearray(8 * len(tensors))
        self._described = Described(np.frombuffer(self._addresses, dtype=np.uint64))
        # Either everything is compared in one operation, or tensor by tensor.
        self._known = tuple(map(bytes, self._seen())) if self._described.read(tensors) else None
        # Whether unchanged() would notice that a Python object refers to another C++ tensor, as after swap_tensors().
        self.sees_swaps = self._known is not None and negation() is not None
        self._looks = None if self._known else list(map(look, tensors))

    def _seen(self) -> Any:
        return self._addresses, self._described.forms, self._described.objects

    def unchanged(self, tensors: Any) -> bool:
        """Whether these are the same tensors, with the same memory and the same layout."""
        if self._known is not None:
            return self._described.read(tensors) and self._seen() == self._known
        return list(map(look, tensors)) == self._looks


class StateWatch:
    """The tensors of state in {parameter: its state}, and their memory."""

    def __init__(self, states: Any, keys: Any, sharded: bool) -> None:
        """`keys`: the keys whose values matter."""
        self._sharded = sharded
        self._params = list(map(id, states))
        self._names = self._names_of(states)
        values = chain.from_iterable(map(dict.values, states.values()))
        pairs = zip(self._names, values, strict=True)
        self._matter = [name in keys and isinstance(value, torch.Tensor) for name, value in pairs]
        self._watch = Watch(self._tensors(states))

    @staticmethod
    def _names_of(states: Any) -> Any:
        return list(chain.from_iterable(states.values()))

    def _tensors(self, states: Any) -> Any:
        values = compress(chain.from_iterable(map(dict.values, states.values())), self._matter)
        return list(map(inner, values)) if self._sharded else list(values)

    def unchanged(self, states: Any) -> bool:
        if list(map(id, states)) != self._params or self._names_of(states) != self._names:
            return False
        return self._watch.unchanged(self._tensors(states))


class StandIns:
    """Tensors without memory that share the version counters of other tensors, for increment_version().

    They have torch's base class, and their views make them owned by C++ too: increment_version() takes a third of the
    time. Not for tensors that may be swapped unseen.
    """

    def __init__(self, tensors: Any) -> None:
        self.tensors = list(map(self._made, tensors))
        self._views = [tensor.view_as(tensor) for tensor in self.tensors]  # each owns its base, without Python

    @staticmethod
    def _made(tensor: torch.Tensor) -> Any:
        result = tensor.detach()
        result.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return result
