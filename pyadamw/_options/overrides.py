"""Owns options of single parameters, which win over the options of the group. Must not know what options do.

Except during a garbage collection, nothing here keeps weak references to parameters. The reason: module.cpu() and
.float() move the parameters of FSDP2 by torch.utils.swap_tensors(), which refuses tensors that have weak references.
(Weak references to modules are allowed.)
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from .._checks import refuse
from .._native.torch_private import ParamsT, TensorWeakRef
from .options import check_options, plain_betas

ALLOWED = (
    "optim_bits",
    "min_8bit_size",
    "block_wise",
    "master_weight_bits",
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
    return {name: plain_betas(value) if name == "betas" else value for name, value in config.items()}


class _Configs:
    """{parameter: its options}, for parameters that something else holds too.

    The references are strong, because weak ones are not allowed. Only during a garbage collection they are weak, so
    that the collection can free a parameter that nothing else holds, even if it is part of a cycle.
    """

    def __init__(self) -> None:
        self._held: dict[torch.Tensor, dict[str, Any]] = {}
        self._parked: list[tuple[TensorWeakRef, dict[str, Any]]] = []

    def get(self, param: torch.Tensor) -> dict[str, Any]:
        if self._parked:  # another thread asks during a collection, or code that the collection runs
            for reference, config in list(self._parked):
                if reference() is param:
                    return config
        return self._held.get(param, {})

    def update(self, param: torch.Tensor, config: dict[str, Any]) -> None:
        self._held[param] = {**self.get(param), **config}
        if self._collecting not in gc.callbacks:
            gc.callbacks.append(self._collecting)

    def items(self) -> list[tuple[torch.Tensor, dict[str, Any]]]:
        if not self._parked:
            self._park()
            self._take_back()
        return list(self._held.items())

    def clear(self) -> None:
        self._held, self._parked = {}, []
        self._stop()

    def _stop(self) -> None:
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)

    def _park(self) -> None:
        self._parked += [(TensorWeakRef(param), config) for param, config in self._held.items()]
        self._held = {}

    def _take_back(self) -> None:
        for reference, config in self._parked:
            param = reference()
            if param is not None:
                self._held[param] = {**config, **self._held.get(param, {})}
        self._parked = []

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        # Collections of the youngest generation are too frequent. While the interpreter ends, anything may be missing.
        try:
            if phase == "stop":
                self._take_back()
                if not self._held:
                    self._stop()
            elif info["generation"] > 0:
                self._park()
        except Exception:  # nobody could catch it
            pass


class GlobalOptimManager:
    """Holds options of single parameters, which win over the options of the group; the names are bitsandbytes'.

    A separate parameter group does the same, and is the recommended way::

        pyadamw.AdamW8bit([{"params": [model.embedding.weight], "optim_bits": 32}, {"params": others}])

    The options can be optim_bits, min_8bit_size, block_wise, master_weight_bits, is_paged, percentile_clipping, lr,
    betas, eps, weight_decay, max_unorm and skip_zeros.

    An optimizer asks the manager when it first steps a parameter or loads state for it, and keeps the answer. Options
    that you set later do not change it. initialize() forgets all options.

    A group whose lr is 0 stops all of its parameters, even if they have another lr here. So schedulers can warm up from
    0, and torch.distributed.checkpoint can make state before it loads it.

    Attributes:
        optimizer: None. It, index2config and uses_config_override exist because bitsandbytes has them.
        index2config: {(group, position): options} of the parameters with options in register_parameters().

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100))
        >>> manager = pyadamw.GlobalOptimManager.get_instance()
        >>> manager.register_module_override(model[0], "weight", {"optim_bits": 32})
        >>> optimizer = pyadamw.AdamW8bit(model.parameters())
        >>> model(torch.arange(100)).logsumexp(1).mean().backward()
        >>> optimizer.step()
        >>> [entry.bits for entry in optimizer.memory_report().entries[:2]]
        [32, 8]
        >>> manager.initialize()
    """

    _instance: GlobalOptimManager | None = None

    def __init__(self) -> None:
        self._configs = _Configs()
        self._modules: list[tuple[weakref.ref[torch.nn.Module], str, dict[str, Any]]] = []
        self.initialize()

    @classmethod
    def get_instance(cls) -> GlobalOptimManager:
        """Returns the one manager of the process, which the first call makes."""
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    def initialize(self) -> None:
        """Forgets all options. Optimizers keep the options that they have taken over."""
        self._configs.clear()
        self._modules = []
        self.optimizer = None
        self.index2config: dict[tuple[int, int], dict[str, Any]] = {}

    @property
    def pid2config(self) -> dict[int, dict[str, Any]]:
        """A copy of the options from override_config(), as a dict with the id() of each parameter as the key."""
        return {id(param): dict(config) for param, config in self._configs.items()}

    @property
    def uses_config_override(self) -> bool:
        """Whether any parameter has options from override_config()."""
        return bool(self._configs.items())

    @property
    def module_weight_config_triple(self) -> list[tuple[torch.nn.Module, str, dict[str, Any]]]:
        """A copy of the options from register_module_override(), as (module, name of the parameter, options)."""
        found = [(module(), name, config) for module, name, config in self._modules]
        return [(module, name, dict(config)) for module, name, config in found if module is not None]

    def register_parameters(self, params: ParamsT) -> None:
        """Checks that `params` is what an optimizer takes, and fills index2config.

        bitsandbytes needs this call before parameters are moved. Here nothing needs it: parameters are recognised by
        identity, wherever they are moved.

        Args:
            params: tensors, (name, tensor) pairs, or dicts with "params".

        Raises:
            ValueError: something in `params` is not a tensor.
        """
        entries = list(params)
        grouped = any(isinstance(entry, dict) for entry in entries)
        groups = [e["params"] if isinstance(e, dict) else [e] for e in entries] if grouped else [entries]
        for number, group in enumerate(groups):
            for position, entry in enumerate([group] if isinstance(group, torch.Tensor) else group):
                param = entry[1] if isinstance(entry, tuple) else entry
                self._check(param)
                config = self._configs.get(param)
                if config:
                    self.index2config[number, position] = dict(config)

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
        """Sets options of one parameter or several: either one option (`key` and `value`), or the options of a dict.

        Args:
            parameters: a tensor, or several.
            key: the name of an option, or None.
            value: the value of the option `key`.
            key_value_dict: {name of an option: its value}, or None.

        Raises:
            ValueError: an option is unknown, its value is wrong, both key and key_value_dict are given, or neither is.
        """
        if (key is None) == (key_value_dict is None):
            raise ValueError("override_config() takes either key and value or key_value_dict")
        config = _checked({key: value} if key is not None else key_value_dict or {})
        params = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        for param in params:
            self._check(param)
        for param in params:
            self._configs.update(param, config)

    def register_module_override(self, module: torch.nn.Module, param_name: str, config: Mapping[str, Any]) -> None:
        """Sets options for the parameter `param_name` of `module`: the one it has when an optimizer first steps it.

        Args:
            module: the module, of which only a weak reference is kept.
            param_name: the name of an attribute of the module, such as "weight".
            config: {name of an option: its value}.

        Raises:
            ValueError: the module has no such parameter, an option is unknown, or its value is wrong.
        """
        if not isinstance(getattr(module, param_name, None), torch.Tensor):
            raise ValueError(f"{type(module).__name__} has no parameter {param_name!r}")
        added = (weakref.ref(module), param_name, _checked(config))
        # Drops entries of dead modules, and an equal older entry: a process may make models and trainers many times.
        self._modules = [entry for entry in self._modules if entry[0]() is not None and entry != added] + [added]

    def config_of(self, param: torch.Tensor) -> dict[str, Any]:
        """Returns the options of a parameter, as a new dict {name of an option: its value}.

        Args:
            param: the parameter. Without options it has an empty dict.
        """
        result = dict(self._configs.get(param))
        for module, name, config in self._modules:
            owner = module()
            if owner is not None and getattr(owner, name, None) is param:
                result.update(config)
        return result


class Overrides:
    """The options that one optimizer has taken over for its parameters.

    A parameter that has state was looked up when it got the state: if it had no options then, it has none now.
    """

    def __init__(self) -> None:
        self._taken: dict[torch.Tensor, dict[str, Any]] = {}

    def of(self, param: torch.Tensor, has_state: bool = False) -> dict[str, Any]:
        """Returns the options of a parameter: those that have been taken over, or else those of the manager."""
        if param in self._taken:
            return self._taken[param]
        manager = GlobalOptimManager._instance
        return {} if manager is None or has_state else manager.config_of(param)

    def take(self, param: torch.Tensor, has_state: bool = False) -> dict[str, Any]:
        """Takes the options over: from now on they stay."""
        return self.set(param, self.of(param, has_state))

    def set(self, param: torch.Tensor, own: dict[str, Any]) -> dict[str, Any]:
        """Keeps options of a parameter, whatever the manager has, and returns them."""
        if own:
            self._taken[param] = own
        return own

    def keep_only(self, params: Iterable[torch.Tensor]) -> None:
        """Forgets and releases all parameters except these."""
        if self._taken:
            wanted = set(map(id, params))
            self._taken = {param: own for param, own in self._taken.items() if id(param) in wanted}

    def applied(self, group: dict[str, Any], param: torch.Tensor, has_state: bool = False) -> dict[str, Any]:
        """The options of a parameter: the group's, where the parameter has none."""
        own = self.of(param, has_state)
        return {**group, **own} if own else group
