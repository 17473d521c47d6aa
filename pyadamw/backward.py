"""Owns stepping during backward(): an optimizer with a hook on each parameter. Must not know how a step is done."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

import torch

from ._base import Base, _Cache
from ._checks import shown
from ._native.cuda import is_capturing
from ._native.torch_private import ParamsT, belongs_to_fsdp1, plain_methods
from ._state.blank import blank_states, is_blank
from ._state.spec import describe
from ._step.data_parallel import Averaged
from ._step.exclusive import exclusive
from ._step.stepper import Part
from ._step.torch_hooks import not_compiled, with_hooks
from .optim import AdamW8bit, _AdamW

T = TypeVar("T")


class _Hook:
    """The hook of one parameter.

    torch.utils.swap_tensors() gives a parameter the hooks of another: it would silently not be stepped any more. It
    refuses parameters that have weak references, such as this one.
    """

    def __init__(self, param: torch.Tensor, function: Callable[[torch.Tensor], None]) -> None:
        self.param, self._handle = weakref.ref(param), None
        frozen = not param.requires_grad
        with contextlib.suppress(RuntimeError, ValueError), plain_methods():  # step() tries again
            try:
                if frozen:  # torch takes hooks only where it may need them; this one waits until the user unfreezes it
                    param.requires_grad_(True)
                self._handle = param.register_post_accumulate_grad_hook(function)
            finally:
                if frozen:
                    param.requires_grad_(False)

    def belongs_to(self, param: torch.Tensor) -> bool:
        return self._handle is not None and self.param() is param

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()


class _Parts(_Cache):
    """Each parameter by itself. It holds no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: dict[int, Part] = {}  # by the id of the parameter
        self.hooks: dict[int, _Hook] = {}
        self.function: Callable[[torch.Tensor], None] | None = None  # the hook; None: parameters have none
        self.averaged: Averaged | None = None  # the next backward() looks
        self.accumulating = 0

    def has_hook(self, param: torch.Tensor) -> bool:
        hook = self.hooks.get(id(param))
        return hook is not None and hook.belongs_to(param)

    def settle(self) -> None:
        for part in list(self.parts.values()):
            part.settle()

    def forget(self) -> None:
        for part in list(self.parts.values()):
            part.forget()


# {id of a parameter: who steps it in backward()}. A parameter with two of these would be stepped twice.
_OWNERS: weakref.WeakValueDictionary[int, _Parts] = weakref.WeakValueDictionary()


def _function(reference: weakref.ref[StepInBackward]) -> Callable[[torch.Tensor], None]:
    """A hook that does not hold the optimizer."""

    def hook(param: torch.Tensor) -> None:
        optimizer = reference()
        if optimizer is not None:
            optimizer._reached(param)

    return not_compiled(hook)


def _remove_all(hooks: dict[int, _Hook]) -> None:
    for hook in hooks.values():
        hook.remove()
    hooks.clear()


class StepInBackward(Base):
    """Steps each parameter as soon as backward() has accumulated its gradient, and then drops the gradient.

    The gradients of all parameters therefore never exist at once. It is a torch optimizer like the class `cls`, with
    the same parameter groups, state dicts and results: a run may change between the two at any checkpoint. The usual
    loop does not change:

        optimizer = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=1e-4)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)
        for x, y in batches:
            loss(model(x), y).backward()    # steps each parameter
            optimizer.step()                # steps the parameters that have a gradient left; mostly there are none
            scheduler.step()

    Each backward() is a step, also without step(). To accumulate the gradients of several backward() calls, keep them
    until the last one:

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

    It does not work with GradScaler, or with clipping by the norm of all gradients (max_grad_norm, clip_grad_norm_):
    when the first parameter is stepped, the last gradient does not exist yet. It refuses DistributedDataParallel, which
    averages gradients later and keeps all of them in its buckets, so that there is nothing to save.

    Args:
        params: as for `cls`: tensors, (name, tensor) pairs, or dicts.
        cls: one of the classes of pyadamw. It decides which options there are, and their defaults.
        options: keyword arguments of `cls`.

    Raises:
        ValueError: an argument is wrong; a parameter belongs to FullyShardedDataParallel (FSDP1), which calls no hooks,
            or to another StepInBackward.
        RuntimeError: a parameter belongs to DistributedDataParallel. backward() raises it too, and then steps nothing.

    backward() raises what step() of `cls` would raise for the parameter, and names it. This parameter and those after
    it are not stepped then, and its gradient is dropped.
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
        cache.function = _function(weakref.ref(self))
        weakref.finalize(self, _remove_all, cache.hooks).atexit = False
        self._hook_all()
        cache.averaged = None  # the first backward() looks again

    def _hook_all(self) -> None:
        """Gives every parameter of the groups a hook, and takes it from those that have left."""
        cache = self._cache
        everyone = {
            id(param): (number, position, param)
            for number, group in enumerate(self.param_groups)
            for position, param in enumerate(group["params"])
        }
        new = []
        if cache.function is not None:
            new = [param for *_, param in everyone.values() if not cache.has_hook(param)]
        self._check_new(new, everyone)
        for key in cache.parts.keys() - everyone.keys():
            del cache.parts[key]
        for key, (number, position, _) in everyone.items():
            part = cache.parts.setdefault(key, Part(number, position))
            part.number, part.position = number, position
        for key in cache.hooks.keys() - everyone.keys():
            cache.hooks.pop(key).remove()
        for param in new:
            cache.hooks[id(param)] = _Hook(param, cache.function)
            _OWNERS[id(param)] = cache
        cache.overrides.keep_only([*self._state, *(param for *_, param in everyone.values())])

    def _check_new(self, params: list[torch.Tensor], everyone: dict[int, Any]) -> None:
        """Refuses parameters that hooks cannot step rightly."""
        for number, group in enumerate(self.param_groups):
            _check_clipping(group, f"group {number}: ")
        for param in params:
            number, position, _ = everyone[id(param)]
            other = _OWNERS.get(id(param))
            if other is not None and other is not self._cache and other.has_hook(param):
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
        if params:
            self._refuse_averaged()

    def _refuse_averaged(self) -> None:
        """Raises if a DistributedDataParallel has any of the parameters, whichever was made first."""
        averaged = Averaged()
        for number, group in enumerate(self.param_groups):
            for position, param in enumerate(group["params"]):
                if param.requires_grad and param in averaged:
                    raise RuntimeError(
                        f"{describe(self.param_groups, number, position)} belongs to a DistributedDataParallel, which "
                        "averages its gradient only after StepInBackward would have stepped, and keeps all gradients in "
                        "its buckets anyway: step after backward(), with the class that you gave to StepInBackward, or "
                        "shard the model with fully_shard (FSDP2)"
                    )
        self._cache.averaged = averaged

    def remove(self) -> None:
        """Removes the hooks: from now on backward() keeps gradients, and step() steps."""
        cache = self._cache
        for key in cache.hooks:
            if _OWNERS.get(key) is cache:
                del _OWNERS[key]
        cache.function = None
        _remove_all(cache.hooks)

    # ---- step ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def accumulate(self) -> Iterator[None]:
        """backward() calls in this context keep their gradients, and step nothing.

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
        part = cache.parts.get(id(param))
        if part is None or not self._is_at(part, param):
            self._hook_all()  # the user has changed the groups
            part = cache.parts.get(id(param))
        if part is not None:
            self._step_part(part, param)

    def _is_at(self, part: Part, param: torch.Tensor) -> bool:
        try:
            return self.param_groups[part.number]["params"][part.position] is param
        except IndexError:
            return False

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

        A gradient is left where no hook has stepped: after accumulate(), or if it did not come from backward().

        Args:
            closure: is called first, with gradients enabled. Its backward() steps, as any other.

        Raises:
            as step() of `cls`, but for one parameter after the other: those before it have been stepped, and those
                after it keep their gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_the_rest()
        return loss

    @exclusive
    def _step_the_rest(self) -> None:
        self._hook_all()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    self._step_part(self._cache.parts[id(param)], param)

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
        """Adds a group, which may override every option, and hooks to its parameters."""
        super().add_param_group(param_group)
        if self._cache.function is not None:
            try:
                self._hook_all()
            except BaseException:
                self.param_groups.pop()
                raise

    @exclusive
    def state_dict(self) -> dict[str, Any]:
        """The state of all parameters and the options of all groups, as state_dict() of `cls`.

        Parameters that have not been stepped yet have the state there that the first step will make (step 0, zeros), so
        that torch.distributed.checkpoint.load() can fill it. The optimizer does not keep it.
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
        for param in [param for param, state in self._state.items() if is_blank(state)]:
            del self._state[param]  # nothing is decided before the first step: frameworks load what they have just saved

    load_state_dict.__doc__ = Base.load_state_dict.__doc__

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "hooked": self._cache.function is not None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooked = state.get("hooked")
        super().__setstate__({name: value for name, value in state.items() if name != "hooked"})
        if hooked:  # this is a copy
            self._start()


def _check_clipping(group: dict[str, Any], where: str) -> None:
    if group.get("max_grad_norm"):
        raise ValueError(
            f"{where}max_grad_norm = {shown(group['max_grad_norm'])}: StepInBackward cannot clip by the norm of all "
            "gradients, which is not known when the first parameter is stepped: leave it out (None), or step after "
            "backward(), with the class that you gave to StepInBackward"
        )
