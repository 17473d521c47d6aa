"""Owns what a plan remembers of a parameter group, and of the rows of one call. Must not know how they are made."""

from itertools import chain
from operator import itemgetter

from .._native.cuda import is_device
from .._native.step_call import rows_pointer
from .._state.spec import STRUCTURE

_get_structure = itemgetter(*STRUCTURE)


def in_order(groups):
    """The parameters of all groups, in a new list."""
    return list(chain.from_iterable(group["params"] for group in groups))


class Group:
    """A parameter group as it was last seen."""

    def __init__(self, group):
        self.count, self.structure = len(group["params"]), _get_structure(group)
        self.values = self.lr = self.lr_tensor = None  # not looked at yet

    def same(self, group):
        """But for which parameters they are."""
        return len(group["params"]) == self.count and _get_structure(group) == self.structure


class Bucket:
    """Rows [start, stop) of the table, which one call steps."""

    def __init__(self, row, start, stop, rows, call):
        """`row`: one of them."""
        self.group, self.own = row.group, row.own  # own: options that win over the group's
        self.device, self.whole = row.local.device, row.local.whole
        self.start, self.stop, self.call = start, stop, call
        self.there = is_device(self.device)
        self.rows, self.pointer = range(start, stop), rows_pointer(rows[start:stop])
