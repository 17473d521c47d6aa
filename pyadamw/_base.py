"""Owns being a torch.optim.Optimizer: step, state, checkpoints, copies. Must not know the names of the classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, overload

import torch

from ._native.cuda import Counter, is_capturing, is_device
from ._native.library import library
from ._native.memory import is_lazy
from ._native.torch_private import ParamsT, multiply, partition_of_caller
from ._options.names import separate_names
from ._options.options import check_clipping, check_options, plain_betas
from ._options.overrides import Overrides
from ._state import load, received
from ._state.export import converted
from ._state.report import MemoryReport
from ._state.weights import TakeOver, float32_weights
from ._step.exclusive import exclusive, new_lock
from ._step.plan import Plan
from ._step.stepper import Common, Stepper
from ._step.torch_hooks import with_hooks
from .paging import PageManager

T = TypeVar("T")


class _Cache(Stepper, Common):
    """Data of an optimizer beside its state. Shallow copies, such as those of Lightning's wrappers, share it."""

    def __init__(self) -> None:
        Stepper.__init__(self)
        Common.__init__(self)
        self.lock = new_lock()


class Base(torch.optim.Optimizer):
    """What all optimizers of pyadamw have in common: steps, state, checkpoints and reports."""

    _new_cache: type[_Cache] = _Cache

    def __init__(self, params: ParamsT, options: dict[str, Any]) -> None:
        check_options(options)
        library()
        self._cache = self._new_cache()
        self._cache.norms.partition = partition_of_caller()
        super().__init__(params, options)
        if any(group["page_manager"] for group in self.param_groups) and not any(
            group["is_paged"] for group in self.param_groups
        ):
            raise ValueError("page_manager is given, but is_paged=False: pass is_paged=True, or use a class Paged...")
        self._cache.exposed = False  # nobody has seen it yet

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    @exclusive
    def state(self) -> defaultdict[torch.Tensor, Any]:
        """The state of each parameter, a dict of plain tensors that is empty before the first step of the parameter.

        The moments have the shape of the parameter. They are exp_avg and exp_avg_sq (float32 or bfloat16), and with
        amsgrad max_exp_avg_sq. With 8 bits they are exp_avg_codes and so on (uint8), with scales in exp_avg_absmax and
        so on (float32). `step` is the number of steps so far.

        You may edit it, move it or share it with other processes at any time. After the first access, every step
        compares it with the state that the last step saw. Tensors in the pages of a PageManager("pinned") are up to
        date only after wait(), which this property calls.
        """
        self._cache.exposed = True
        self._settle_pages()
        return self._state

    @state.setter
    @exclusive
    def state(self, state: defaultdict[torch.Tensor, Any]) -> None:
        self._settle()
        self._state, self._cache.exposed = state, True
        self._cache.forget()

    @exclusive
    def fp32_weights(self) -> dict[str | int, torch.Tensor]:
        """Returns the weights of all parameters as float32 tensors in new memory, by name.

        They are the master weights where the optimizer keeps them: exact with master_weight_bits=32, the upper 24 bits
        with 24. Other parameters are converted. Sharded parameters (DTensors) have sharded weights.

        Returns:
            A dict of the weights by name. The name is that of the (name, parameter) pairs that the optimizer was made
            from, or else the number of the parameter in state_dict(). Parameters that are not initialized yet are left
            out.
        """
        self._settle_pages()
        names = [
            group["param_names"][position] if "param_names" in group else None
            for group in self.param_groups
            for position in range(len(group["params"]))
        ]
        params = [param for group in self.param_groups for param in group["params"]]
        return {
            number if name is None else name: float32_weights(param, self._state.get(param) or {})
            for number, (name, param) in enumerate(zip(names, params, strict=True))
            if not is_lazy(param)
        }

    def _settle_pages(self) -> None:
        self._settle()
        for manager in self._managers():
            manager.wait()

    def _settle(self) -> None:
        self._cache.settle()

    @property
    def skipped_elements(self) -> int:
        """The number of elements that 8-bit state has skipped since the optimizer was made.

        The gradients of these elements were NaN or infinite, or so large that the second moment would have overflowed.
        On a CUDA device, reading it waits for the device.
        """
        return self._cache.skipped.total

    @property
    @exclusive
    def grad_norm(self) -> torch.Tensor | None:
        """The norm of all gradients in the last step, before clipping, as a float32 tensor without dimensions.

        It is a copy on the device of the first parameter, and nothing waits for it before you call its item(). With
        capturable and a GradScaler, it is the norm of the unscaled gradients. None before the first step, and if the
        last one had max_grad_norm=None. A step that GradScaler skips may leave it as it was.
        """
        last = self._cache.norms.last
        return None if last is None else last.clone()

    @property
    def default_pages(self) -> PageManager:
        """The PageManager of parameter groups whose page_manager is None."""
        return self._cache.pages

    @property
    def overrides(self) -> Overrides:
        """The options of single parameters that this optimizer has taken over from the GlobalOptimManager."""
        return self._cache.overrides

    def _managers(self) -> list[PageManager]:
        named = {group["page_manager"] for group in self.param_groups} - {None}
        return [self._cache.pages, *named]

    @exclusive
    def memory_report(self) -> MemoryReport:
        """Returns how many bytes the state of each parameter takes, and where it is.

        Returns:
            A MemoryReport, of which str() makes a table.

        Example:
            >>> import torch, pyadamw
            >>> model = torch.nn.Linear(256, 256)
            >>> optimizer = pyadamw.AdamW8bit(model.named_parameters())
            >>> model(torch.ones(8, 256)).square().mean().backward()
            >>> optimizer.step()
            >>> print(optimizer.memory_report())  # doctest: +NORMALIZE_WHITESPACE, +ELLIPSIS
            bits master   bytes  place    parameter
               8        134,144  cpu      parameter 'weight' (shape (256, 256))
              32          2,048  cpu      parameter 'bias' (shape (256,)): 32 bits because ...
                        136,192  cpu 136,192
        """
        return MemoryReport(self.param_groups, self._state, self.default_pages, self.overrides)

    # ---- step ----------------------------------------------------------------------------------------------------

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether GradScaler leaves unscaling and the test for infinities to step(), through grad_scale and found_inf.

        Only with capturable=True, so that the step need not wait. Otherwise GradScaler does both, as with
        torch.optim.AdamW: frameworks that clip gradients after unscaling refuse optimizers that unscale.
        """
        return all(group["capturable"] for group in self.param_groups)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], T]) -> T: ...

    @with_hooks
    @exclusive
    def step(self, closure: Callable[[], T] | None = None) -> T | None:
        """Steps every parameter that has a gradient, and returns the result of `closure`.

        Args:
            closure: None, or a function that is called first, with gradients enabled. It computes the loss and the
                gradients again, and returns the loss.

        Returns:
            The result of `closure`. None without one.

        Raises:
            ValueError: a parameter, gradient, option or state is wrong; nothing has been changed.
            UnsupportedError: the library cannot step parameters on their device.
            OutOfMemoryError: there is no memory. `stepped` of the exception has the parameters that have been stepped.
            DeviceError: a CUDA call failed. `stepped` as above.
            StorageError: the file of a PageManager cannot be read or written. Parameters and state agree. `stepped` as
                above.
            RuntimeError: the norm is not finite, and error_if_nonfinite=True; nothing has been changed. Or a CUDA graph
                captures the step, and capturable=False.
            KeyboardInterrupt: Ctrl-C. Each parameter has been stepped completely, including its count, or not at all.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # GradScaler sets attributes; where one is missing, to look it up as an attribute would be slow.
        scaler: dict[str, Any] = self.__dict__
        found_inf: Any = scaler.get("found_inf")
        if scaler.get("grad_scale") is not None:
            self._unscale(scaler["grad_scale"])
        on_device = found_inf is not None and is_device(found_inf.device)
        if found_inf is not None and not on_device and float(found_inf) != 0:
            return loss
        if is_capturing() and not all(group["capturable"] for group in self.param_groups):
            raise RuntimeError(
                f"step() of {type(self).__name__} cannot be captured into a CUDA graph with capturable=False: "
                "pass capturable=True"
            )
        plan = self._current_plan(counts_on_device=on_device)
        if on_device and not plan.all_on_device and float(found_inf) != 0:  # parameters on the CPU must wait for it
            plan.release()
            return loss
        plan.step(self.param_groups, found_inf if on_device and plan.all_on_device else None)
        return loss

    def _unscale(self, scale: torch.Tensor) -> None:
        """Divides every gradient by `scale`, in place: after the step, gradients are as without a GradScaler."""
        lists = defaultdict(list)
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    lists[param.grad.device, param.grad.dtype].append(param.grad)
        with torch.no_grad():
            factor = scale.to(torch.float64).reciprocal().to(torch.float32)
            for (device, _), grads in lists.items():
                multiply(grads, factor.to(device, non_blocking=True))

    def _current_plan(self, counts_on_device: bool) -> Plan:
        """`counts_on_device`: whether step counts must be on the devices of the parameters; they then stay on them."""
        return self._cache.current(self.param_groups, self._state, self._cache, counts_on_device)

    # ---- groups --------------------------------------------------------------------------------------------------

    @exclusive
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters, which may override every option, including optim_bits and min_8bit_size.

        Args:
            param_group: a dict with "params" (tensors, or (name, tensor) pairs if the other groups have names), and
                values for any options of the class. The others get the defaults of the optimizer.

        Raises:
            ValueError: an option has a wrong value, a parameter is in another group, or max_grad_norm differs from that
                of the other groups.
            TypeError: it is no dict, or has something else than tensors.
        """
        if isinstance(param_group, dict):
            check_options(param_group, f"group {len(self.param_groups)}: ")
            check_clipping([*self.param_groups, {**self.defaults, **param_group}])
            if "betas" in param_group:
                param_group["betas"] = plain_betas(param_group["betas"])
            separate_names(param_group, self.param_groups)
        super().add_param_group(param_group)

    # ---- checkpoints and copies ----------------------------------------------------------------------------------

    @exclusive
    def state_dict(self) -> dict[str, Any]:
        """Returns the state of all parameters and the options of all groups, as torch.optim.Optimizer does.

        The tensors share memory with the optimizer: they change with its steps until you copy or save them.

        Returns:
            A dict with "state", which has the state of each parameter under its number, and "param_groups".
        """

        # This hook runs before the user's hooks.
        handle = self.register_state_dict_post_hook(lambda _, found: load.aliased(found), prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def to_torch_state_dict(self) -> dict[str, Any]:
        """Returns a state dict for torch.optim.AdamW, on the CPU: 8-bit and 16-bit state is converted to 32 bits.

        It leaves out the history of percentile clipping and the remainders of master weights. Give torch float32
        parameters with the weights of `pyadamw.fp32_state_dict`.

        Returns:
            A dict that load_state_dict() of torch.optim.AdamW takes.
        """
        return converted(self.state_dict(), "torch")

    def to_bitsandbytes_state_dict(self) -> dict[str, Any]:
        """Returns a state dict for the AdamW classes of bitsandbytes, on the CPU.

        8-bit state keeps its width; other state has 32 bits there. It leaves out the history of percentile clipping and
        the remainders of master weights, as to_torch_state_dict() does.

        Returns:
            A dict that load_state_dict() of a class of bitsandbytes takes.

        Raises:
            ValueError: the state has amsgrad, which bitsandbytes does not support.
        """
        return converted(self.state_dict(), "bitsandbytes")

    @exclusive
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a copy of the state of another optimizer: the two share no memory.

        State of another width (8, 16 or 32 bits) is converted to the width that this optimizer is configured for. The
        options that decide about width and memory (optim_bits, min_8bit_size, block_wise, is_paged, page_manager,
        master_weight_bits) stay as they are. Every other option comes from `state_dict`. Unknown keys are kept.

        With master_weight_bits, a state without remainders makes the parameters the master weights. To give this
        optimizer float32 weights, first load its state, and then call `pyadamw.load_fp32_state_dict`.

        Args:
            state_dict: from state_dict() of these classes, of torch.optim.AdamW, of bitsandbytes' AdamW classes (any
                version and width) or of torchao's AdamW8bit. The format is recognised by the content.

        Raises:
            ValueError: a value is missing, damaged, of the wrong shape or type, or infinite although 8-bit state cannot
                hold infinities. Or the state has master weights, which this optimizer would lose. The message names
                the parameter and the key, and the optimizer is unchanged.
        """
        # The base class casts every tensor to the dtype of the parameter. So a hook, which runs after the user's hooks,
        # hides the state from it. __setstate__ brings the state back before the user's post hooks run.
        self._settle()
        if not isinstance(state_dict, dict):
            received.check_structure(state_dict)  # the base class copies it before any hook sees it
        handle = self.register_load_state_dict_pre_hook(lambda _, found: load.prepare(self._target(), found))
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    @exclusive
    def _take_over(self, made: Iterable[TakeOver]) -> None:
        """Writes the state of parameters that have got other weights."""
        target = self._target()
        for entry in made:
            entry.write(target)
        self._cache.forget()

    def _target(self) -> load.Target:
        """What state is loaded into."""
        return load.Target(self.param_groups, self._state, self._cache.pages, self._cache.overrides)

    @exclusive
    def __getstate__(self) -> dict[str, Any]:
        # The base class keeps only the first three.
        return {
            "defaults": self.defaults,
            "state": self.state,
            "param_groups": self.param_groups,
            "skipped": self.skipped_elements,
            "overrides": [
                (param, own)
                for group in self.param_groups
                for param in group["params"]
                if (own := self._cache.overrides.of(param, bool(self._state.get(param))))
            ],
        }

    @exclusive
    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        cache, previous = self.__dict__.get("_cache") or self._new_cache(), self.__dict__.get("param_groups")
        if "skipped" in state:
            cache.skipped = Counter(state.pop("skipped"))
        for param, own in state.pop("overrides", ()):
            cache.overrides.set(param, own)
        entries = state.pop("state", {})
        self.__dict__["_cache"] = cache
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # the base class adds it to every optimizer
        self._state = defaultdict(dict, {param: load.reveal(entry) for param, entry in entries.items()})
        cache.exposed = previous is None  # a copy may share its state with the original
        cache.forget()
        load.restore_options(self.param_groups, previous, self.defaults)
