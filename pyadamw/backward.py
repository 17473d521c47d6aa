"""Owns stepping inside of backward(): one optimizer for each parameter. Must not know how a step is done."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from ._paging import PageManager
from .optim import AdamW8bit, _AdamW


class StepInBackward:
    """Steps each parameter as soon as backward() has accumulated its gradient, and drops the gradient: at no time do
    the gradients of all parameters exist. Results are those of one optimizer for all, without gradient clipping over
    all.

        stepper = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=1e-4)
        for x, y in batches:
            loss(model(x), y).backward()          # that was the step

    Not together with gradient accumulation over several backward() calls or a GradScaler.

    Args:
        params: tensors, or (name, tensor) pairs. Those that require no gradient are left alone.
        cls: one of the six classes.
        options: as `cls` takes them. Paged state of all parameters shares one page manager.

    Attributes:
        optimizers: {parameter: its optimizer}, in the order of `params`.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
        cls: type[_AdamW] = AdamW8bit,
        **options: Any,
    ) -> None:
        named = [entry if isinstance(entry, tuple) else (None, entry) for entry in params]
        if options.get("page_manager") is None and (
            options.get("is_paged") or "is_paged" not in inspect.signature(cls).parameters
        ):
            options["page_manager"] = PageManager()
        self.optimizers: dict[torch.Tensor, _AdamW] = {
            param: cls([param if name is None else (name, param)], **options)
            for name, param in named
            if param.requires_grad
        }
        self._hooks = [param.register_post_accumulate_grad_hook(self._step) for param in self.optimizers]

    def _step(self, param: torch.Tensor) -> None:
        optimizer = self.optimizers[param]
        optimizer.step()
        optimizer.zero_grad()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers, to change options such as lr in."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The state dicts of all optimizers, in their order."""
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers.values()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what state_dict() gave. ValueError if it is of another number of parameters, or damaged."""
        saved = state_dict["optimizers"]
        if len(saved) != len(self.optimizers):
            raise ValueError(f"the state dict has {len(saved)} optimizers: must have {len(self.optimizers)}")
        for optimizer, state in zip(self.optimizers.values(), saved, strict=True):
            optimizer.load_state_dict(state)

    def remove(self) -> None:
        """Ends it: backward() leaves gradients where they are again. The optimizers stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
