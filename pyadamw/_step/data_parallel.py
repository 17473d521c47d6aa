"""Owns finding the parameters whose gradients DistributedDataParallel averages. Must not know of optimizers."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import torch

from .._native.torch_private import delayed_params


def _classes() -> list[type]:
    """DistributedDataParallel and its subclasses; none if it has not been imported."""
    module: Any = sys.modules.get("torch.nn.parallel.distributed")
    found = [module.DistributedDataParallel] if hasattr(module, "DistributedDataParallel") else []
    for cls in found:  # grows meanwhile
        found += cls.__subclasses__()
    return found


def _references() -> list[int]:
    return list(map(sys.getrefcount, _classes()))


class Averaged:
    """The parameters whose gradients a DistributedDataParallel averages, at the time when this object was made.

    torch has no list of all instances, and a search takes milliseconds. But each instance refers to its class. So there
    is no new instance as long as the known instances live and their classes have the same number of references.
    """

    def __init__(self) -> None:
        classes = tuple(_classes())
        found = gc.get_referrers(*classes) if classes else []
        instances = [instance for instance in found if isinstance(instance, classes)]
        self._params = {id(param) for instance in instances for param in _averaged(instance)}
        self._instances = list(map(weakref.ref, instances))
        del classes, found, instances  # references, too
        self._references = _references()

    def __contains__(self, param: torch.Tensor) -> bool:
        return id(param) in self._params

    def outdated(self) -> bool:
        """Whether new instances may exist. This check is very fast."""
        return self._references != _references() or any(instance() is None for instance in self._instances)


def _averaged(instance: Any) -> list[torch.Tensor]:
    if not hasattr(instance, "module"):  # its constructor has failed
        return []
    ignored = getattr(instance, "parameters_to_ignore", ())  # DistributedDataParallel leaves these to the user
    params = [param for name, param in instance.module.named_parameters() if name not in ignored]
    return [*params, *delayed_params(instance)]
