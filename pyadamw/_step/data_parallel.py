"""Owns finding out which parameters DistributedDataParallel averages the gradients of. Must not know of optimizers."""

from __future__ import annotations

import gc
import sys
import weakref

import torch

from .._native.torch_private import delayed_params


def _classes() -> list[type]:
    """DistributedDataParallel and the classes made of it, as far as anybody has imported it."""
    module = sys.modules.get("torch.nn.parallel.distributed")
    found = [module.DistributedDataParallel] if hasattr(module, "DistributedDataParallel") else []
    for cls in found:  # grows meanwhile
        found += cls.__subclasses__()
    return found


def _references() -> list[int]:
    return list(map(sys.getrefcount, _classes()))


class Averaged:
    """The parameters whose gradients some DistributedDataParallel averages, as it was when this was made.

    There is no list of all instances, and to look for them takes milliseconds. But each refers to its class: as long as
    those that were found live and their classes have as many references, there is no other.
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
        """Whether there may be others now. Costs next to nothing."""
        return self._references != _references() or any(instance() is None for instance in self._instances)


def _averaged(instance: torch.nn.Module) -> list[torch.Tensor]:
    if not hasattr(instance, "module"):  # its constructor has failed
        return []
    ignored = getattr(instance, "parameters_to_ignore", ())  # DistributedDataParallel leaves these to the user
    params = [param for name, param in instance.module.named_parameters() if name not in ignored]
    return [*params, *delayed_params(instance)]
