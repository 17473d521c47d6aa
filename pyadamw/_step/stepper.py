"""Owns the plan of parameters that are stepped together: it keeps the plan as long as it is true, and then makes
another. Must not know when steps happen.
"""

from __future__ import annotations

from typing import Any

import torch

from .._native.cuda import Counter
from .._options.options import check_options
from .._options.overrides import Overrides
from .._state.spec import PLACE
from ..errors import InternalError
from ..paging import PageManager
from .bucket import in_order, where
from .clipping import Norms
from .plan import Plan
from .rows import collect


class Common:
    """What all parameters of an optimizer share."""

    def __init__(self) -> None:
        self.pages = PageManager()  # for groups that name none
        self.overrides = Overrides()
        self.exposed = False  # the user may hold the state, and may replace or move its tensors
        self.skipped = Counter()
        self.norms = Norms()


class Stepper:
    """The plan of all groups of an optimizer."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.counts_on_device = False  # True once GradScaler's found_inf was on a device

    def settle(self) -> None:
        """Finishes the cleanup after an interrupted step, if another interrupt had stopped the cleanup."""
        plan = self.plan
        if plan is not None and plan.unsettled is not None:
            plan.settle()

    def forget(self) -> None:
        """Lets the next step find everything again."""
        self.plan = None

    def current(self, groups: Any, states: Any, common: Common, counts_on_device: bool = False) -> Plan:
        """The plan for the gradients that the parameters have now.

        `counts_on_device`: whether step counts must be on the devices of the parameters; they then stay on them.
        """
        self.settle()
        if counts_on_device and self.plan is not None and not self.plan.counts_on_device:
            self.plan = None
        if self.plan is None or not self.plan.refresh(groups, states, common.exposed):
            self.counts_on_device = self.counts_on_device or counts_on_device
            plan, self.plan = self.plan, None
            for number, group in enumerate(groups):
                check_options(group, where(group, number))
            self._release(groups, states, common)
            grad_dtypes = {} if plan is None else plan.grad_dtypes
            rows, waiting = collect(groups, states, grad_dtypes, common.pages, common.overrides)
            self.plan = Plan(groups, states, rows, waiting, common.skipped, common.norms, self.counts_on_device)
            if not self.plan.refresh(groups, states, common.exposed):
                raise InternalError("pyadamw: a parameter changed while step() was reading it")
        return self.plan

    def _release(self, groups: Any, states: Any, common: Common) -> None:
        """Releases parameters that have left the optimizer."""
        common.overrides.keep_only([*states, *in_order(groups)])


class Part(Stepper):
    """The plan of one parameter, which is stepped without the others of its optimizer. It does not hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.position = 0, 0  # of the group that the parameter is in; its place there

    def step(self, param: torch.Tensor, groups: Any, states: Any, common: Common) -> None:
        """Steps the parameter, which has a gradient, with the options that its group has now."""
        group = groups[self.number]
        alone = {**group, "params": [param], PLACE: (self.number, self.position)}
        self.current([alone], _StateOfOne(param, states), common).step([alone])
        if alone["betas"] is not group["betas"]:  # they were no tuple, and have been checked
            group["betas"] = alone["betas"]

    def _release(self, groups: Any, states: Any, common: Common) -> None:
        """The others have not left."""


class _StateOfOne(dict[torch.Tensor, Any]):
    """{a parameter: its state}. State that is made here is in the states of all parameters, too, before it is filled:
    an interrupt never leaves a plan whose state the optimizer does not have."""

    def __init__(self, param: torch.Tensor, states: Any) -> None:
        self._states, state = states, states.get(param)
        if state is not None:
            self[param] = state

    def setdefault(self, param: Any, default: Any = None) -> Any:
        self[param] = self._states.setdefault(param, default)
        return self[param]
