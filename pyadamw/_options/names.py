"""Owns the names of parameters in groups, which torch itself takes since 2.6. Must not know options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

NAMES = "param_names"


def separate_names(param_group: dict[str, Any], groups: Iterable[dict[str, Any]]) -> None:
    """Makes tensors of the (name, tensor) pairs in "params", and puts the names into "param_names", as torch 2.6 does.

    `groups`: those that the optimizer has. What is no list of tensors or pairs is left to torch, which refuses it.

    Raises:
        ValueError: some parameters have names, and some have none.
    """
    params = param_group.get("params")
    if not isinstance(params, Iterable) or isinstance(params, (set, torch.Tensor)):
        return
    param_group["params"] = params = list(params)
    pairs = [param for param in params if isinstance(param, tuple)]
    if pairs and len(pairs) < len(params):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    if pairs:
        param_group["params"] = [pair[1] for pair in pairs]
        param_group[NAMES] = [pair[0] for pair in pairs]
    if any((NAMES in group) != (NAMES in param_group) for group in groups):
        found = "with names" if NAMES in param_group else "without names"
        raise ValueError(
            f"all optimizer param groups should be with/without names. cannot add param group {found} to the optimizer"
        )


def keep_names(loaded: dict[str, Any], before: dict[str, Any]) -> None:
    """Names that a loaded group lacks are those of the group before, as since torch 2.6."""
    if NAMES in before:
        loaded.setdefault(NAMES, before[NAMES])
