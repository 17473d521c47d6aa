"""Owns stepping during backward(): one optimizer for each parameter. Must not know how a step is done."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Iterable
from typing import Any

import torch

from ._native.torch_private import belongs_to_fsdp1
from ._state import load
from ._state.spec import describe
from ._step.data_parallel import Averaged
from .optim import AdamW8bit, _AdamW
from .paging import PageManager


class StepInBackward:
    """Steps each parameter as soon as backward() has accumulated its gradient, and then drops the gradient.

    The gradients of all parameters therefore never exist at once. The results are the same as with one optimizer for
    all parameters. Gradient clipping over all parameters is not possible.

        stepper = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=1e-4)
        for x, y in batches:
            loss(model(x), y).backward()          # this was the step

    Do not use it with gradient accumulation over several backward() calls, or with a GradScaler. It refuses
    DistributedDataParallel, which averages gradients too late: the first backward() is then an error, before anything
    is stepped.

    With FSDP2, which averages earlier, call fully_shard first, and then make the stepper from the sharded parameters.
    While a stepper exists, do not move them (model.cpu(), model.float()): they would lose their hooks. Call remove()
    first, move the model, and then make another stepper.

    Args:
        params: tensors, or (name, tensor) pairs. Tensors that require no gradient are ignored.
        cls: one of the optimizer classes.
        options: keyword arguments of `cls`. All parameters share one page manager if their state is paged.

    Attributes:
        optimizers: {parameter: its optimizer}, in the order of `params`. With torch.distributed.checkpoint you have two
            ways. Save and load state_dict(), or name state by parameter, with get_optimizer_state_dict(model,
            list(stepper.optimizers.values())) and set_optimizer_state_dict().

    Raises:
        ValueError: a parameter belongs to FullyShardedDataParallel (FSDP1), which calls no hooks.
        RuntimeError: a parameter belongs to DistributedDataParallel. backward() raises it too, and then steps nothing.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
        cls: type[_AdamW] = AdamW8bit,
        **options: Any,
    ) -> None:
        if options.get("max_grad_norm") is not None:
            raise ValueError(
                f"max_grad_norm = {options['max_grad_norm']}: must be None for StepInBackward, which steps a parameter "
                "before the gradients of the others exist: clip with one optimizer for all parameters"
            )
        named: list[tuple[str | None, torch.Tensor]] = [
            entry if isinstance(entry, tuple) else (None, entry) for entry in params
        ]
        if options.get("page_manager") is None and (
            options.get("is_paged") or "is_paged" not in inspect.signature(cls).parameters
        ):
            options["page_manager"] = PageManager()
        self.optimizers: dict[torch.Tensor, _AdamW] = {
            param: cls([param] if name is None else [(name, param)], **options)
            for name, param in named
            if param.requires_grad
        }
        for param, optimizer in self.optimizers.items():
            if belongs_to_fsdp1(param):
                raise ValueError(
                    f"{describe(optimizer.param_groups, 0, 0)} belongs to FullyShardedDataParallel (FSDP1), which "
                    "calls no hooks of parameters: shard the model with fully_shard (FSDP2), or step after backward()"
                )
        self._refuse_averaged()
        self._averaged: Averaged | None = None  # the first backward() checks again
        self._hooks = [param.register_post_accumulate_grad_hook(self._step) for param in self.optimizers]
        # torch.utils.swap_tensors() gives a parameter the hooks of another: it would silently not be stepped any more.
        # swap_tensors() refuses parameters that have weak references.
        self._no_swapping = [weakref.ref(param) for param in self.optimizers]

    def _step(self, param: torch.Tensor) -> None:
        if self._averaged is None or self._averaged.outdated():
            self._refuse_averaged()
        optimizer = self.optimizers[param]
        try:
            optimizer.step()
        finally:  # also after an error or an interrupt: else the next backward() would add to a gradient already used
            optimizer.zero_grad()

    def _refuse_averaged(self) -> None:
        """Raises if a DistributedDataParallel has any of the parameters, whichever was made first."""
        averaged = Averaged()
        for param, optimizer in self.optimizers.items():
            if param in averaged:
                raise RuntimeError(
                    f"{describe(optimizer.param_groups, 0, 0)} belongs to a DistributedDataParallel, which averages "
                    "its gradient only after StepInBackward would have stepped: step after backward(), with one "
                    "optimizer for all parameters, or shard the model with fully_shard (FSDP2)"
                )
        self._averaged = averaged

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all optimizers. Change options such as lr here."""
        return [group for optimizer in self.optimizers.values() for group in optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The state dicts of all optimizers, in their order.

        Missing state is made first (step 0, zeros), so that torch.distributed.checkpoint.load() can fill the state of a
        stepper that has not stepped yet.
        """
        for optimizer in self.optimizers.values():
            _make_state(optimizer)
        return {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers.values()]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state dict from state_dict().

        Raises:
            ValueError: it is damaged, or has another number of parameters. Nothing has changed then.
        """
        saved = state_dict.get("optimizers") if isinstance(state_dict, dict) else None
        if not isinstance(saved, (list, tuple)):
            raise ValueError("not the state dict of a StepInBackward: it has no list of optimizers")
        if len(saved) != len(self.optimizers):
            raise ValueError(f"the state dict has {len(saved)} optimizers: must have {len(self.optimizers)}")
        for number, (optimizer, state) in enumerate(zip(self.optimizers.values(), saved, strict=True)):
            try:
                load.checked(optimizer._target(), state)
            except ValueError as error:
                raise ValueError(f"optimizer {number}: {error}") from None
        for optimizer, state in zip(self.optimizers.values(), saved, strict=True):
            optimizer.load_state_dict(state)

    def remove(self) -> None:
        """Removes the hooks: from now on backward() keeps gradients and does not step. The optimizers stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._no_swapping = [], []


def _make_state(optimizer: _AdamW) -> None:
    """Makes the state that the first step would make."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.device.type == "meta" or optimizer._state.get(param):
                continue
            grad = param.grad
            if grad is None:
                param.grad = torch.zeros_like(param)
            try:
                optimizer._current_plan(counts_on_device=False).release()
            finally:
                param.grad = grad
