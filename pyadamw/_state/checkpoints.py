"""Owns finding the state of an optimizer in a checkpoint, a file or a folder, for somebody who looks at one parameter
after the other. Must not know what the state of a parameter consists of.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .._checks import is_integer, shown
from . import files
from .flashoptim import MASTER_BYTES
from .folders import METADATA, Folder
from .marks import FORMAT_KEY, check_format
from .received import check_structure

# The options of groups that say something about their state.
OPTIONS = ("params", "param_names", "amsgrad", "optim_bits", FORMAT_KEY, MASTER_BYTES)
KEY = "the key of the optimizer's state in a larger checkpoint, such as optimizer_states.0"  # what --key is
# Files that other programs give the state of an optimizer in their folders.
_USUAL = ("optimizer.pt", "optimizer.bin", "optimizer.pth")


class Parameter(NamedTuple):
    """One parameter of an optimizer whose state is in a checkpoint."""

    key: Any  # of its state
    name: str | None  # None: the checkpoint does not have its name
    group: Mapping[str, Any]
    listed: bool  # whether a group lists it
    load: Callable[[], Any]  # its state, now: None if it has none

    @property
    def title(self) -> str:
        return str(self.key) if self.name is None else self.name


class Checkpoint(NamedTuple):
    """The state of an optimizer in a checkpoint."""

    key: str | None  # where in the checkpoint it is; None: it is the whole
    groups: list[dict[str, Any]]
    parameters: list[Parameter]  # in the order of the groups


def opened(path: Any, key: str | None = None) -> Checkpoint:
    """The checkpoint at `path`; `key` as in --key: the key of the optimizer's state in it.

    Raises ValueError or OSError if it cannot be read, or has not the state of just one optimizer.
    """
    tree, load = _tree(path)
    found, tree = chosen(tree, key, path)
    tree = _from_flat(tree) if _is_flat(tree) else tree
    groups = tree["param_groups"] if isinstance(tree, Mapping) and "param_groups" in tree else None
    if isinstance(groups, (list, tuple)):
        groups = [_options(group) for group in groups]
    if isinstance(tree, Mapping) and "state" in tree:
        tree = {"state": load(tree["state"]) if not isinstance(tree["state"], Mapping) else tree["state"]}
        tree["param_groups"] = load(groups)
    check_structure(tree)
    check_format(tree["param_groups"])
    return Checkpoint(found, tree["param_groups"], _parameters(tree["state"], tree["param_groups"], load))


def _tree(path: Any) -> tuple[Any, Callable[[Any], Any]]:
    """(what is in a file or folder, a function that reads what of it is still there)."""
    if not os.path.isdir(path):
        return files.read(path, mapped=True), lambda value: value
    if os.path.exists(os.path.join(path, METADATA)):
        folder = Folder(path)
        return folder.tree, folder.load
    inside = [name for name in _USUAL if os.path.isfile(os.path.join(path, name))]
    inside += sorted(name for name in os.listdir(path) if os.path.exists(os.path.join(path, name, METADATA)))
    hint = f": choose {' or '.join(os.path.join(path, name) for name in inside)}" if inside else ""
    raise ValueError(f"{path} is a folder without a file {METADATA}, so not one of torch.distributed.checkpoint{hint}")


def _options(group: Any) -> Any:
    return {name: group[name] for name in OPTIONS if name in group} if isinstance(group, Mapping) else group


# ---- where in the checkpoint -----------------------------------------------------------------------------------------


def _is_state(tree: Any) -> bool:
    return isinstance(tree, Mapping) and {"state", "param_groups"} <= tree.keys()


def _is_flat(tree: Any) -> bool:
    """Whether it is what get_optimizer_state_dict(flatten_optimizer_state_dict=True) makes, alone or with weights."""
    return isinstance(tree, Mapping) and any(
        isinstance(key, str) and key.startswith("state.") and key.count(".") >= 2 for key in tree
    )


def _states(tree: Any) -> dict[str, Any]:
    """{--key: state of an optimizer} of all that are in a larger checkpoint, also in lists, as Lightning's."""
    found = {}
    for key, value in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(value, (list, tuple)) and any(map(_is_state, value)):
            found.update({f"{key}.{place}": one for place, one in enumerate(value) if _is_state(one)})
        elif _is_state(value) or _is_flat(value):
            found[str(key)] = value
    return found


def chosen(tree: Any, key: str | None, path: Any) -> tuple[str | None, Any]:
    """(the key, what is there): `tree` itself, or what is under `key`, or the only state of an optimizer in that.

    Raises ValueError with the keys that there are; `path` is named in it.
    """
    if key is not None:
        tree = _at(tree, key, path)
    where = path if key is None else f"{path}, {key!r},"
    if _is_state(tree) or _is_flat(tree):
        return key, tree
    found = {name if key is None else f"{key}.{name}": state for name, state in _states(tree).items()}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        raise ValueError(f"{where} has the state of {len(found)} optimizers: choose --key: {_listed(found)}")
    if not isinstance(tree, Mapping):
        raise ValueError(f"{where} is {_kind(tree)}: must be the state of an optimizer, or a dict with it")
    raise ValueError(f"{where} is not the state of an optimizer; choose --key: it has {_listed(tree) or 'nothing'}")


def _at(tree: Any, key: str, path: Any) -> Any:
    """What is under `key`, or else under its parts between dots; in a list, a part is a number."""
    if isinstance(tree, Mapping) and key in tree:
        tree = tree[key]
    else:
        for part in key.split("."):
            if isinstance(tree, Mapping) and part in tree:
                tree = tree[part]
            elif isinstance(tree, (list, tuple)) and part.isdecimal() and int(part) < len(tree):
                tree = tree[int(part)]
            else:
                has = f"it has {_listed(tree)}" if isinstance(tree, Mapping) else f"there is {_kind(tree)}"
                raise ValueError(f"{path} has no {key!r}: {has}")
    if isinstance(tree, (list, tuple)) and len(tree) == 1:  # as Lightning saves a single optimizer
        tree = tree[0]
    return tree


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, (list, tuple)) else f"a list of {len(value)}"


def _listed(tree: Any) -> str:
    keys = list(map(shown, tree))
    return ", ".join(keys[:12]) + (f" and {len(keys) - 12} more" if len(keys) > 12 else "")


# ---- the parameters --------------------------------------------------------------------------------------------------


def _from_flat(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """A flat checkpoint with its parts: each parameter has options of its own."""
    state: dict[str, dict[str, Any]] = {}
    groups: dict[str, dict[str, Any]] = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            continue
        for start, made in (("state.", state), ("param_groups.", groups)):
            if key.startswith(start):
                name, _, field = key.removeprefix(start).rpartition(".")
                made.setdefault(name, {})[field] = value
    names = list(dict.fromkeys([*groups, *state]))
    # The names of all parameters, which each of them has, are in another order.
    own = {name: {**groups.get(name, {}), "params": [name]} for name in names}
    return {
        "state": state,
        "param_groups": [{k: v for k, v in group.items() if k != "param_names"} for group in own.values()],
    }


def _parameters(state: Mapping[Any, Any], groups: Any, load: Callable[[Any], Any]) -> list[Parameter]:
    words = {str(key): key for key in state}  # torch.distributed.checkpoint makes strings of keys
    found, taken = [], set()

    def loader(key: Any) -> Callable[[], Any]:
        return lambda: load(state[key]) if key in state else None

    for group in groups:
        names = group.get("param_names") or [key if isinstance(key, str) else None for key in group["params"]]
        for key, name in zip(group["params"], names, strict=True):
            own = words.get(str(key), key) if is_integer(key) and key not in state else key
            taken.add(own)
            found.append(Parameter(key, name, group, True, loader(own)))
    found += [Parameter(key, None, {}, False, loader(key)) for key in state if key not in taken]
    return found
