"""Owns what a state dict from elsewhere may look like as a whole, and the ValueError that says what is wrong with it.
Must not know what is in the state of a parameter, or what becomes of it.
"""

import copy
from collections.abc import Mapping

import torch

from ._checks import shown
from ._errors import AdamWError
from ._memory import is_out_of_memory


def check_structure(state_dict):
    """Refuses what is not {"state": {key: ...}, "param_groups": [{"params": [key, ...], ...}, ...]}."""
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


def _check_group(group, where):
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


def check_has_number(lr, where):
    """Refuses a learning rate without a value: an optimizer may be made with one, to be filled later."""
    if isinstance(lr, torch.Tensor) and lr.device.type == "meta":
        raise ValueError(f"{where} is a meta tensor, which has no value")


def check_copies(values, where):
    """Refuses what cannot be copied, of {name: value}: an optimizer must not share it with who has given it."""
    for name, value in values.items():
        with naming(f"{where}: {shown_name(name)}"):
            copy.deepcopy(value)


def shown_name(name):
    return name if isinstance(name, str) else shown(name)


class naming:
    """What goes wrong within, in whatever way, is a ValueError that begins with `where`: a value out of a file may be
    anything, and torch has an error of its own for each of its kinds. Not so where memory or the library fails."""

    def __init__(self, where):
        self.where = where

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if not isinstance(error, Exception) or isinstance(error, (ValueError, AdamWError)) or is_out_of_memory(error):
            return False
        lines = str(error).strip().splitlines()
        raise ValueError(f"{self.where}: {kind.__name__}{': ' + lines[0] if lines else ''}") from error
