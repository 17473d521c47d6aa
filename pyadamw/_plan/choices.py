"""Owns the choices: which there are, what each takes, which fit, and in which order they are preferred. Must not know
where the list of tensors comes from, or how the result is shown.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import torch

from .. import optim
from ..paging import PageManager
from . import sizes
from .gradients import in_backward
from .sizes import Process, State
from .weights import Form, Model, cast

OURS, TORCH, BITSANDBYTES = "pyadamw", "torch.optim", "bitsandbytes.optim"
_WIDTHS = {"AdamW32bit": 32, "AdamW16bit": 16, "AdamW8bit": 8}


@dataclasses.dataclass(frozen=True)
class Choice:
    """An optimizer for a model, and the bytes that it takes in one process.

    Attributes:
        package: "pyadamw", "torch.optim" or "bitsandbytes.optim".
        optimizer: the name of the class there.
        dtype: of the weights: "bfloat16", "float16" or "float32"; "mixed" if parameters have more than one.
        master_weight_bits: None, 24 or 32, as the option of that name.
        paged: whether state is in pages.
        in_backward: whether pyadamw.StepInBackward steps each parameter in backward(), and drops its gradient.
        parameters: number of parameters that train, of the part of the model that this process has.
        weights: bytes of all weights, and of buffers if the model is a module.
        gradients: bytes of the gradients that exist at once.
        remainder: bytes that master_weight_bits adds to the state.
        state: all other bytes of optimizer state, without step counts.
        host: how many of `remainder` and `state` are in pages, in the memory of the host.
        windows: bytes that a page manager needs on the device to step them.
        fits: "yes"; "tight", with little left for all that is not counted; "no"; or "" if the plan has no `gpu`.
    """

    package: str
    optimizer: str
    dtype: str
    master_weight_bits: Literal[24, 32] | None
    paged: bool
    in_backward: bool
    parameters: int
    weights: int
    gradients: int
    remainder: int
    state: int
    host: int
    windows: int
    fits: str = ""

    @property
    def device(self) -> int:
        """Bytes on the device. (Pages with the backing "managed" use what else is free there, and give it back.)"""
        return self.weights + self.gradients + self.remainder + self.state - self.host + self.windows

    @property
    def bytes_per_parameter(self) -> float:
        """Bytes of weights, gradients, remainder and state for each of `parameters`; 0 if the process has none."""
        return (self.device - self.windows + self.host) / self.parameters if self.parameters else 0.0

    @property
    def code(self) -> str:
        """The lines that make the optimizer of `model`."""
        options = [f"master_weight_bits={self.master_weight_bits}"] if self.master_weight_bits else []
        if self.package == OURS and not options and self.dtype in ("bfloat16", "float16", "mixed"):
            options = ["stochastic_rounding=True"]  # or updates below half a unit in the last place would be lost
        arguments = ["model.parameters()", *([self.optimizer] if self.in_backward else []), *options]
        names = [self.optimizer, *(["StepInBackward"] if self.in_backward else [])]
        to = {"bfloat16": "model.bfloat16()\n", "float16": "model.half()\n", "float32": "model.float()\n"}
        return (
            f"from {self.package} import {', '.join(names)}\n"
            f"{to.get(self.dtype, '')}optimizer = {names[-1]}({', '.join(arguments)})"
        )

    @property
    def preference(self) -> tuple[Any, ...]:
        """A key to sort choices by, those first that are preferred.

        1. Weights that lose no update: float32, or bfloat16 with 32 bits of master weights, which is the same run bit
           for bit; then 24 bits; then bfloat16 alone, rounded stochastically.
        2. Without pages: pages cost time in each step.
        3. With all gradients: stepping in backward() allows no clipping by the norm and no GradScaler.
        4. 32 before 16 before 8 bits of state; in pages the other way round, since a step moves all of them.
        """
        width = _WIDTHS[self.optimizer.removeprefix("Paged")]
        lossless = self.dtype == "float32" or self.master_weight_bits == 32
        weights = 0 if lossless else 1 if self.master_weight_bits == 24 else 2
        return weights, self.paged, self.in_backward, width if self.paged else -width


def room(gpu: int) -> int:
    """Bytes that should be left for what is not counted: a tenth of the device, and at least 1 GiB."""
    return max(gpu // 10, 1 << 30)


def _fits(device: int, gpu: int | None) -> str:
    if gpu is None:
        return ""
    return "no" if device > gpu else "tight" if device + room(gpu) > gpu else "yes"


def _options(cls: type, **others: Any) -> dict[str, Any]:
    """The options of a parameter group of this class with its defaults."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(optim.AdamW.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, "max_unorm": 0.0, "optim_bits": cls._width, **others}  # type: ignore[attr-defined]


class Planner:
    """Makes the choices for one model and one process."""

    def __init__(self, model: Model, process: Process, gpu: int | None) -> None:
        self._model, self._process, self._gpu = model, process, gpu
        self._pages = PageManager()

    def choices(self) -> Iterator[Choice]:
        """All, in the order of the table."""
        for dtype in (torch.float32, torch.bfloat16):
            yield self._made(
                TORCH, "AdamW", cast(self._model, dtype), lambda form: sizes.torch_state(form, self._process)
            )
        if self.takes_bitsandbytes:
            for paged in (False, True):
                name = "PagedAdamW8bit" if paged else "AdamW8bit"
                yield self._of_bitsandbytes(name, paged)
        dtypes = self._dtypes(self._model)
        masters: list[Literal[24, 32] | None] = [None]
        if torch.bfloat16 in dtypes and torch.float16 not in dtypes:  # which refuses master weights
            masters = [None, 24, 32]
        for name in _WIDTHS:
            for master in masters:
                for paged in (False, True):
                    for stepped in (False, True):
                        yield self._of_ours(name, master, paged, stepped)

    @property
    def takes_bitsandbytes(self) -> bool:
        """It steps no DTensors (tests/python/plan_script.py)."""
        return self._process.of == 1 and not self._model.is_placed

    def gathered(self) -> dict[str, str]:
        """{name: why} of the tensors that a step with 8-bit state gathers."""
        options = _options(optim.AdamW8bit)
        whys: dict[Form, str] = {}
        for name, form, *_ in self._model.weights:
            if form.trains and form not in whys:
                whys[form] = sizes.why_gathered(form, self._process, options, name)
        return {name: whys[form] for name, form, *_ in self._model.weights if whys.get(form)}

    def _dtypes(self, model: Model) -> set[torch.dtype]:
        return {weight.form.dtype for weight in model.weights if weight.form.trains}

    def _of_ours(self, name: str, master: Any, paged: bool, stepped: bool) -> Choice:
        name = f"Paged{name}" if paged else name
        stochastic = master is None and self._dtypes(self._model) != {torch.float32}  # as in Choice.code
        options = _options(
            getattr(optim, name), is_paged=paged, master_weight_bits=master, stochastic_rounding=stochastic
        )

        def state(form: Form) -> State:
            return sizes.state(form, self._process, options, self._pages, name)

        return self._made(OURS, name, self._model, state, master, paged, stepped, windows=sizes.WINDOWS)

    def _of_bitsandbytes(self, name: str, paged: bool) -> Choice:
        codes = any(sizes.bitsandbytes_has_codes(w.form) for w in self._model.weights if w.form.trains)
        return self._made(
            BITSANDBYTES,
            name,
            self._model,
            lambda form: sizes.bitsandbytes_state(form, paged),
            paged=paged,
            once=sizes.BITSANDBYTES_MAPS if codes else 0,
        )

    def _made(
        self,
        package: str,
        optimizer: str,
        model: Model,
        state_of: Any,
        master: Any = None,
        paged: bool = False,
        stepped: bool = False,
        windows: int = 0,
        once: int = 0,
    ) -> Choice:
        """`state_of`: the State of a tensor; `once`: bytes of state that the optimizer has once."""
        counts = Counter(weight.form for weight in model.weights)
        parameters = weights = gradients = remainder = state = host = 0
        for form, count in counts.items():
            local = count * sizes.local_bytes(form, self._process)
            weights += local
            if form.trains:
                one = state_of(form)
                parameters += local // form.dtype.itemsize
                gradients += local
                state += count * one.moments
                remainder += count * one.remainder
                host += count * one.paged
        if stepped:
            gradients = in_backward(model, lambda form: sizes.local_bytes(form, self._process))
        dtypes = self._dtypes(model)
        choice = Choice(
            package=package,
            optimizer=optimizer,
            dtype=str(next(iter(dtypes))).removeprefix("torch.") if len(dtypes) == 1 else "mixed",
            master_weight_bits=master,
            paged=paged,
            in_backward=stepped,
            parameters=parameters,
            weights=weights,
            gradients=gradients,
            remainder=remainder,
            state=state + once,
            host=host,
            windows=windows if host else 0,
        )
        return dataclasses.replace(choice, fits=_fits(choice.device, self._gpu))


def best(choices: list[Choice]) -> Choice | None:
    """Of this project's choices, the first one that fits with room; if none does, the first that fits at all."""
    ours = sorted((choice for choice in choices if choice.package == OURS), key=lambda choice: choice.preference)
    for fits in ("yes", "tight"):
        for choice in ours:
            if choice.fits == fits:
                return choice
    return None
