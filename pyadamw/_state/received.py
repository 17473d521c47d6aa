"""Owns checking the outer structure of a foreign state dict, and the ValueError that names a fault. Must not know the
content of the state of a parameter.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch

from .._checks import shown
from .._native.memory import is_out_of_memory
from ..errors import AdamWError


def check_structure(state_dict: Any) -> None:
    """Raises ValueError unless it is {"state": {key: ...}, "param_groups": [{"params": [key, ...], ...}, ...]}."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        raise ValueError('not the state dict of an optimizer: it has no "state" and "param_groups"')
    state, groups = state_dict["state"], state_dict["param_groups"]
    if not isinstance(state, Mapping):
        raise ValueError(f'the "state" of the state dict is {type(state).__name__}: must be a dict')
    if not isinstance(groups, (list, tuple)):
        raise ValueError(f'the "param_groups" of the state dict are {type(groups).__name__}: must be a list of dicts')
    seen = set()
    for number, group in enumerate(groups):
        _check_group(group, f"group {number}")
        for key in group["params"]:
            if key in seen:
                raise ValueError(f"group {number}: params has {shown(key)}, which appears in the groups before")
            seen.add(key)


def _check_group(group: Any, where: str) -> None:
    if not isinstance(group, Mapping):
        raise ValueError(f"{where} of the state dict is {type(group).__name__}: must be a dict")
    if "params" not in group:
        raise ValueError(f"{where} of the state dict has no params")
    params, names = group["params"], group.get("param_names")
    if not isinstance(params, (list, tuple)) or not all(isinstance(key, (int, str)) for key in params):
        raise ValueError(f"{where}: params = {shown(params)}: must be a list of keys of the state")
    if names is not None and not (
        isinstance(names, (list, tuple)) and len(names) == len(params) and all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"{where}: param_names = {shown(names)}: must be a list of strings, one for each of params")


def check_has_number(lr: Any, where: str) -> None:
    """Refuses a learning rate on the meta device, which has no value. (Constructors accept it, to be filled later.)"""
    if isinstance(lr, torch.Tensor) and lr.device.type == "meta":
        raise ValueError(f"{where} is a meta tensor, which has no value")


def check_copies(values: Any, where: str) -> None:
    """Refuses values of {name: value} that cannot be copied: an optimizer must not share them with the caller."""
    for name, value in values.items():
        with naming(f"{where}: {shown_name(name)}"):
            copy.deepcopy(value)


def shown_name(name: str) -> Any:
    return name if isinstance(name, str) else shown(name)


class naming:
    """Turns every exception in its block into a ValueError that begins with `where`.

    A value from a file may be anything, and torch raises a different error for each kind of value. Errors of the
    library, and errors about missing memory, stay as they are.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, error: BaseException, traceback: Any) -> Literal[False]:
        if not isinstance(error, Exception) or isinstance(error, (ValueError, AdamWError)) or is_out_of_memory(error):
            return False
        lines = str(error).strip().splitlines()
        raise ValueError(f"{self.where}: {kind.__name__}{': ' + lines[0] if lines else ''}") from error
