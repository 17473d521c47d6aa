"""Owns options of single parameters, which win over those of their group. Must not know what options do."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.optim.optimizer import ParamsT
from torch.utils.weak import WeakTensorKeyDictionary

from ._checks import refuse
from ._validate import check_options

ALLOWED = (
    "optim_bits",
    "min_8bit_size",
    "block_wise",
    "is_paged",
    "percentile_clipping",
    "lr",
    "betas",
    "eps",
    "weight_decay",
    "max_unorm",
    "skip_zeros",
)


def _checked(config: Mapping[str, Any]) -> dict[str, Any]:
    for name in config:
        if name not in ALLOWED:
            refuse("config", config, f"a dict of these options: {', '.join(ALLOWED)}")
    check_options(config)
    return dict(config)


class GlobalOptimManager:
    """Options of single parameters, by bitsandbytes' names. A parameter group of its own does the same, and is the
    recommended way: `[{"params": [model.embedding.weight], "optim_bits": 32}, {"params": others}]`.

        manager = pyadamw.GlobalOptimManager.get_instance()
        manager.register_module_override(model.embedding, "weight", {"optim_bits": 32})

    An optimizer looks here when it first steps a parameter, and keeps what it finds: what is said later, or of other
    parameters, does not reach it.
    """

    _instance: GlobalOptimManager | None = None

    def __init__(self) -> None:
        self._configs = WeakTensorKeyDictionary()
        self._modules = []

    @classmethod
    def get_instance(cls) -> GlobalOptimManager:
        """The one manager of the process."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def register_parameters(self, params: ParamsT) -> None:
        """Not needed: parameters are known by identity, wherever they are moved. Checks that they are tensors, or
        groups of them, as the constructor of an optimizer takes them."""
        for entry in params:
            for param in entry["params"] if isinstance(entry, dict) else [entry]:
                self._check(param[1] if isinstance(param, tuple) else param)

    @staticmethod
    def _check(param: object) -> None:
        if not isinstance(param, torch.Tensor):
            raise ValueError(f"a parameter is {type(param).__name__}: must be a tensor")

    def override_config(
        self,
        parameters: torch.Tensor | Iterable[torch.Tensor],
        key: str | None = None,
        value: Any = None,
        key_value_dict: Mapping[str, Any] | None = None,
    ) -> None:
        """Sets options of one parameter or of several: one by `key` and `value`, or those of a dict.

        Raises:
            ValueError: an option is unknown, or not what it may be.
        """
        if (key is None) == (key_value_dict is None):
            raise ValueError("override_config() takes either key and value or key_value_dict")
        config = _checked({key: value} if key_value_dict is None else key_value_dict)
        for param in [parameters] if isinstance(parameters, torch.Tensor) else list(parameters):
            self._check(param)
            self._configs[param] = {**self._configs.get(param, {}), **config}

    def register_module_override(self, module: torch.nn.Module, param_name: str, config: Mapping[str, Any]) -> None:
        """Sets options of the parameter that `module` has under this name when an optimizer first steps it."""
        if not isinstance(getattr(module, param_name, None), torch.Tensor):
            raise ValueError(f"{type(module).__name__} has no parameter {param_name!r}")
        self._modules.append((weakref.ref(module), param_name, _checked(config)))

    def config_of(self, param: torch.Tensor) -> dict[str, Any]:
        """The options of a parameter, as a dict."""
        result = dict(self._configs.get(param, {}))
        for module, name, config in self._modules:
            if module() is not None and getattr(module(), name, None) is param:
                result.update(config)
        return result


class Overrides:
    """What one optimizer has taken over for its parameters."""

    def __init__(self) -> None:
        self._taken = WeakTensorKeyDictionary()

    def of(self, param: torch.Tensor) -> dict[str, Any]:
        if param in self._taken:
            return self._taken[param]
        manager = GlobalOptimManager._instance
        return {} if manager is None else manager.config_of(param)

    def keep_only(self, params):
        pass

    def take(self, param: torch.Tensor, has_state=False) -> dict[str, Any]:
        """From now on the options stay."""
        return self.set(param, self.of(param))

    def set(self, param: torch.Tensor, own: dict[str, Any]) -> dict[str, Any]:
        self._taken[param] = own
        return own

    def applied(self, group: dict[str, Any], param: torch.Tensor) -> dict[str, Any]:
        """The options of a parameter: those of its group, unless it has its own."""
        own = self.of(param)
        return {**group, **own} if own else group
