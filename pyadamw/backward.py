"""Owns stepping during backward(): an optimizer with a hook on each parameter. Must not know how a step is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import torch

from ._base import Base, _Cache
from ._checks import shown
from ._native.cuda import is_capturing
from ._native.torch_private import ParamsT, belongs_to_fsdp1
from ._state.blank import blank_states, is_blank
from ._state.spec import describe
from ._step.bucket import in_order
from ._step.data_parallel import Averaged
from ._step.exclusive import exclusive
from ._step.hooks import Hooks
from ._step.stepper import Part
from ._step.torch_hooks import with_hooks
from .optim import AdamW8bit, _AdamW

T = TypeVar("T")


class _Parts(_Cache):
    """Each parameter by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[int, Part] = {}  # by the id of the parameter
        self.order: list[int] = []  # the ids of the parameters of all groups
        self.hooks: Hooks | None = None  # None: there are none yet, or no longer
        self.averaged: Averaged | None = None  # None: the next backward() looks
        self.accumulating = 0

    def settle(self) -> None:
        for part in list(self.parts.values()):
            part.settle()

    def forget(self) -> None:
        for part in list(self.parts.values()):
            part.forget()


class StepInBackward(Base):
    """Steps each parameter as soon as backward() has accumulated its gradient, and then drops the gradient.

    The gradients of all parameters therefore never exist at once. It is a torch optimizer like the class `cls`, with
    the same parameter groups, state dicts and results: a run may change between the two at any checkpoint. The usual
    loop does not change::

        optimizer = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        for x, y in batches:
            loss(model(x), y).backward()    # steps each parameter
            optimizer.step()                # steps the parameters that have a gradient left; mostly there are none
            scheduler.step()

    Each backward() is a step, also without step(). To accumulate the gradients of several backward() calls, keep them
    until the last one::

        with optimizer.accumulate():
            loss(model(x1), y1).backward()
        loss(model(x2), y2).backward()      # steps with the sum

    Keep the optimizer: its hooks do not, and when it is gone, backward() steps nothing. A parameter that is unfrozen
    later is stepped, too. Step hooks (register_step_pre_hook() and the like) run around step(), not around each
    parameter. A deep copy, or an optimizer from a pickle, steps its own copies of the parameters.

    With FSDP2, call fully_shard first, and then make the optimizer from the sharded parameters. As long as it exists,
    do not move them (model.cpu(), model.float()): they would lose their hooks. Call remove() first, move the model,
    and then make another optimizer. With activation checkpointing, pass use_reentrant=False if parts of the model share
    a parameter: each reentrant part runs a backward() of its own, and would step it.

    It does not work with GradScaler, or with clipping by the norm of all gradients (max_grad_norm, clip_grad_norm_()):
    when the first parameter is stepped, the last gradient does not exist yet. It refuses DistributedDataParallel, which
    averages gradients later and keeps all of them in its buckets, so that there is nothing to save.

    Args:
        params: as for `cls`: tensors, (name, tensor) pairs, or dicts.
        cls: one of the classes of pyadamw. It decides which options there are, and their defaults.
        **options: keyword arguments of `cls`.

    Raises:
        TypeError: `cls` does not have an argument of this name.
        ValueError: an argument is wrong; a parameter belongs to FullyShardedDataParallel (FSDP1), which calls no hooks,
            or to another StepInBackward.
        RuntimeError: a parameter belongs to DistributedDataParallel. backward() raises it too, and then steps nothing.

    backward() raises what step() of `cls` would raise for the parameter, and names it. This parameter and those after
    it are not stepped then, and its gradient is dropped.

    Source: Lv et al., "Full Parameter Fine-tuning for Large Language Models with Limited Resources", ACL 2024, fuse
    the step with backward() in the same way.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(64, 64)
        >>> optimizer = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=1e-3)
        >>> before = model.weight.detach().clone()
        >>> model(torch.ones(8, 64)).square().mean().backward()
        >>> torch.equal(model.weight, before), model.weight.grad
        (False, None)
    """

    _cache: _Parts
    _new_cache = _Parts

    def __init__(self, params: ParamsT, cls: type[_AdamW] = AdamW8bit, **options: Any) -> None:
        if not (isinstance(cls, type) and issubclass(cls, _AdamW)):
            raise ValueError(f"cls = {shown(cls)}: must be a class of pyadamw, such as pyadamw.AdamW8bit")
        plain = cls(params, **options)
        super().__init__(plain.param_groups, plain.defaults)
        self._start()

    # ---- hooks ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        cache = self._cache
        cache.hooks = Hooks(self, "_reached")
        self._find_parts()
        cache.averaged = None  # the first backward() looks again

    def _find_parts(self) -> None:
        """Gives every parameter of the groups its part and a hook, and takes them from those that have left."""
        cache = self._cache
        everyone = {
            id(param): (number, position, param)
            for number, group in enumerate(self.param_groups)
            for position, param in enumerate(group["params"])
        }
        params = in_order(self.param_groups)
        if len(everyone) != len(params):
            number, position = next(
                (number, position)
                for number, group in enumerate(self.param_groups)
                for position, param in enumerate(group["params"])
                if everyone[id(param)][:2] != (number, position)
            )
            what = describe(self.param_groups, number, position)
            raise ValueError(f"{what} appears more than once in the parameter groups")
        new = [] if cache.hooks is None else cache.hooks.lack(params)
        self._check_new([everyone[id(param)] for param in new])
        for key in cache.parts.keys() - everyone.keys():
            del cache.parts[key]
        for key, (number, position, _) in everyone.items():
            if key not in cache.parts:
                cache.parts[key] = Part()
            cache.parts[key].number, cache.parts[key].position = number, position
        if cache.hooks is not None:
            cache.hooks.keep_only(everyone.keys())
            cache.hooks.add(new)
        cache.order = list(map(id, params))
        cache.overrides.keep_only([*self._state, *params])

    def _check_new(self, new: list[tuple[int, int, torch.Tensor]]) -> None:
        """Refuses groups and parameters that hooks cannot step rightly. `new`: (group, place there, parameter)."""
        for number, group in enumerate(self.param_groups):
            _check_clipping(group, f"group {number}: ")
        for number, position, param in new:
            if self._cache.hooks is not None and self._cache.hooks.are_elsewhere(param):
                raise ValueError(
                    f"{describe(self.param_groups, number, position)} belongs to another StepInBackward, and would be "
                    "stepped twice in a backward(): call remove() of the other one first"
                )
            if param.requires_grad and belongs_to_fsdp1(param):
                raise ValueError(
                    f"{describe(self.param_groups, number, position)} belongs to FullyShardedDataParallel (FSDP1), "
                    "which calls no hooks of parameters: shard the model with fully_shard (FSDP2), or step after "
                    "backward()"
                )
        if new:
            self._refuse_averaged()

    def _refuse_averaged(self) -> None:
        """Raises if a DistributedDataParallel has any of the parameters, whichever was made first."""
        averaged = Averaged()
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                if param.requires_grad and param in averaged:
                    raise RuntimeError(
                        f"{describe(self.param_groups, number, position)} belongs to a DistributedDataParallel, which "
                        "averages its gradient only after StepInBackward would have stepped, and keeps all gradients "
                        "in its buckets anyway: step after backward(), with the class that you gave to "
                        "StepInBackward, or shard the model with fully_shard (FSDP2)"
                    )
        self._cache.averaged = averaged

    def remove(self) -> None:
        """Removes the hooks, so that from now on backward() keeps gradients, and step() steps."""
        hooks, self._cache.hooks = self._cache.hooks, None
        if hooks is not None:
            hooks.remove()

    # ---- step ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def accumulate(self) -> Iterator[None]:
        """Returns a context in which backward() calls keep their gradients, and step nothing.

        The next backward() outside of it adds its gradients, as in torch, and steps. step() steps parameters that this
        backward() does not reach. All gradients exist at once then.
        """
        self._cache.accumulating += 1
        try:
            yield
        finally:
            self._cache.accumulating -= 1

    @exclusive
    def _reached(self, param: torch.Tensor) -> None:
        """backward() has accumulated the gradient of a parameter."""
        cache = self._cache
        if cache.accumulating or param.grad is None:
            return
        if cache.averaged is None or cache.averaged.outdated():
            self._refuse_averaged()
        part = self._part(param)
        if part is not None:
            self._step_part(part, param)

    def _part(self, param: torch.Tensor) -> Part | None:
        """The part of a parameter; None if it has left the groups."""
        parts, groups = self._cache.parts, self.param_groups
        part = parts.get(id(param))
        try:
            if part is not None and groups[part.number]["params"][part.position] is param:
                return part
        except IndexError:
            pass
        self._find_parts()
        return parts.get(id(param))

    def _step_part(self, part: Part, param: torch.Tensor) -> None:
        try:
            group = self.param_groups[part.number]
            _check_clipping(group, f"group {part.number}: ")
            if is_capturing() and not group["capturable"]:
                raise RuntimeError(
                    "StepInBackward cannot be captured into a CUDA graph with capturable=False: pass capturable=True"
                )
            part.step(param, self.param_groups, self._state, self._cache)
        finally:  # also after an error or an interrupt: else the next backward() would add to a gradient already used
            param.grad = None

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], T]) -> T: ...

    @with_hooks
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Steps the parameters that have a gradient left, drops these gradients, and returns the result of `closure`.

        Each backward() has already stepped the parameters that it reached. A gradient is left where no hook has
        stepped: after accumulate(), or if it did not come from backward().

        Args:
            closure: None, or a function that is called first, with gradients enabled. Its backward() steps, as any
                other.

        Returns:
            The result of `closure`. None without one.

        Raises:
            Exception: what step() of `cls` raises, but for one parameter after the other: those before it have been
                stepped, and those after it keep their gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_the_rest()
        return loss

    @exclusive
    def _step_the_rest(self) -> None:
        cache = self._cache
        params = in_order(self.param_groups)
        if list(map(id, params)) != cache.order or not (cache.hooks is None or cache.hooks.are_complete()):
            self._find_parts()
        for param in params:
            if param.grad is not None and (part := self._part(param)) is not None:
                self._step_part(part, param)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        raise RuntimeError(
            "StepInBackward does not work with GradScaler, or with a trainer that unscales or clips gradients: "
            "backward() has used and dropped them before. Use bfloat16, which needs no GradScaler, or step after "
            "backward(), with the class that you gave to StepInBackward"
        )

    # ---- groups, checkpoints and copies --------------------------------------------------------------------------

    @exclusive
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may override every option, and gives its parameters their hooks.

        Args:
            param_group: as for add_param_group() of `cls`.

        Raises:
            ValueError: as from add_param_group() of `cls`; also for the parameters that the constructor refuses.
            TypeError: it is no dict, or has something else than tensors.
            RuntimeError: a parameter belongs to DistributedDataParallel.
        """
        super().add_param_group(param_group)
        if self._cache.hooks is not None:
            try:
                self._find_parts()
            except BaseException:
                self.param_groups.pop()
                raise

    @exclusive
    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all parameters and the options of all groups, as state_dict() of `cls` does.

        Parameters that have not been stepped yet have the state there that the first step will make (step 0, zeros), so
        that torch.distributed.checkpoint.load() can fill it. The optimizer does not keep it.

        Returns:
            A dict with "state", which has the state of each parameter under its number, and "param_groups".
        """
        blank = blank_states(self._target())
        try:
            self._state.update(blank)
            return super().state_dict()
        finally:
            for param in blank:
                self._state.pop(param, None)

    @exclusive
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        for number, group in enumerate(groups if isinstance(groups, (list, tuple)) else ()):
            if isinstance(group, dict):
                _check_clipping(group, f"group {number} of the state dict: ")
        super().load_state_dict(state_dict)
        # Nothing is decided before the first step: frameworks load what they have just saved.
        for param in [param for param, state in self._state.items() if is_blank(state)]:
            del self._state[param]

    load_state_dict.__doc__ = Base.load_state_dict.__doc__

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "hooked": self._cache.hooks is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooked = state.get("hooked")
        super().__setstate__({name: value for name, value in state.items() if name != "hooked"})
        if hooked:  # this is a copy
            self._start()


def _check_clipping(group: dict[str, Any], where: str) -> None:
    if group.get("max_grad_norm") is not None:
        raise ValueError(
            f"{where}max_grad_norm = {shown(group['max_grad_norm'])}: must be None for StepInBackward: the norm of all "
            "gradients is not known when the first parameter is stepped. To clip, step after backward(), with the "
            "class that you gave to StepInBackward"
        )
