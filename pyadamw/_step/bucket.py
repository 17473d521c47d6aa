"""Owns what a plan remembers: a parameter group, and the rows of one call. Must not know how rows are made."""

from __future__ import annotations

from itertools import chain
from operator import itemgetter
from typing import Any

import torch

from .._native.cuda import is_device
from .._native.step_call import rows_pointer
from .._state.spec import PLACE, STRUCTURE

_get_structure = itemgetter(*STRUCTURE)


def in_order(groups: Any) -> list[torch.Tensor]:
    """The parameters of all groups, in a new list."""
    return list(chain.from_iterable(group["params"] for group in groups))


def where(group: Any, number: int) -> str:
    """The beginning of a message about an option of group `number` of a list."""
    return f"group {group.get(PLACE, (number,))[0]}: "


class Group:
    """A parameter group as the plan last saw it."""

    def __init__(self, group: Any) -> None:
        self.count, self.structure = len(group["params"]), _get_structure(group)
        self.values: Any = None
        self.lr: Any = None
        self.lr_tensor: Any = None  # not looked at yet

    def same(self, group: Any) -> bool:
        """Whether the group is unchanged, apart from the identity of its parameters."""
        return len(group["params"]) == self.count and _get_structure(group) == self.structure


class Bucket:
    """Rows [start, stop) of the table, which one call steps."""

    def __init__(self, row: Any, start: int, stop: int, rows: Any, call: Any) -> None:
        """`row`: any row of the call."""
        self.group, self.own = row.group, row.own  # own: options that win over the group's
        self.device, self.whole = row.local.device, row.local.whole
        self.start, self.stop, self.call = start, stop, call
        self.on_device = is_device(self.device)
        self.rows, self.pointer = range(start, stop), rows_pointer(rows[start:stop])
