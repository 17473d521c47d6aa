"""Owns the optimizer classes: their names, signatures and documentation. Must not know how a step is done.

The positional arguments are the same, in the same order, as in bitsandbytes' documentation. New arguments are
keyword-only.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch

from ._base import Base
from ._native.torch_private import ParamsT
from ._options.options import carried, check_width, plain_betas
from ._options.overrides import GlobalOptimManager
from .paging import PageManager

_SUMMARY = """AdamW with {state}.

    For each element p with gradient g, a step computes::

        m  = beta1 * m + (1 - beta1) * g                                   exp_avg
        v  = beta2 * v + (1 - beta2) * g**2                                exp_avg_sq
        v' = the largest v so far if amsgrad, else v
        p  = p * (1 - lr * weight_decay)
             - lr / (1 - beta1**step) * m / (sqrt(v') / sqrt(1 - beta2**step) + eps)

    in float32, and rounds once to the dtype of p (float32, bfloat16 or float16; g may have another of these). 8-bit
    state keeps m and v as one byte an element, with one or two float32 scales for every 256 elements: 2.05 bytes a
    parameter instead of 8. 16-bit state keeps them as bfloat16, v rounded stochastically: 4 bytes a parameter.
    {note}
    Args:
        params: tensors, (name, tensor) pairs, or dicts. Each dict is a parameter group: it has "params", and may have a
            value for any option below.
        lr: learning rate, >= 0: a number, or a tensor of one element that a scheduler may change in place.
        betas: decay rates of m and v, each in [0, 1), as any sequence of two numbers. Groups hold a tuple of floats.
        eps: is added to the denominator, >= 0.
        weight_decay: >= 0; decoupled from the gradient.
        amsgrad: divide by the largest v so far.
        optim_bits: {widths}
        args: None, or a mapping or object that may have optim_bits, min_8bit_size, percentile_clipping, block_wise,
            max_unorm and skip_zeros. Its values win. max_unorm (0.0: off) scales the update of a tensor down to
            max_unorm times the norm of the tensor. skip_zeros (False) does not change elements whose gradient is
            exactly zero.
        min_8bit_size: with 8-bit state, tensors with fewer elements keep 32-bit state.
        percentile_clipping: 100: off. 1 ... 99: a gradient is scaled down if its norm is above this percentile of the
            last 100 norms of its tensor.
        block_wise: True: one scale for every 256 elements of 8-bit state. False: one scale for the tensor, less exact.
{paged}        maximize: step uphill.
        stochastic_rounding: round 16-bit parameters stochastically instead of to nearest, so that updates smaller than
            half a unit in the last place are not lost. No effect on parameters with master weights.
        seed: the seed of all stochastic rounding, in [0, 2**64). Equal seeds repeat equal runs.
        capturable: keep step counts in the memory of the CUDA device, so that a CUDA graph can capture step(). lr may
            then be a tensor on this device. No effect on the CPU.
        page_manager: the pyadamw.PageManager for paged state; None: a manager with the defaults.
        master_weight_bits: None: off. 32: the optimizer keeps what a bfloat16 parameter lacks of a float32 master
            weight (2 more bytes), so that the run is that of float32 parameters, bit for bit. 24: it keeps the upper 24
            bits of the master weight, rounded stochastically (1 more byte). float32 parameters need no master weights
            and ignore this. float16 parameters refuse it.
        max_grad_norm: None: off. Otherwise a step multiplies all gradients by min(1, max_grad_norm / (norm + 1e-6)),
            with norm = sqrt(sum of g**2) over all gradients of the optimizer: of all groups, dtypes, devices and
            shards, after a GradScaler has unscaled them. This is torch.nn.utils.clip_grad_norm_() before the step,
            but gradients are neither written nor rounded, and nothing waits for a device. `grad_norm` has the norm.
            >= 0; infinity measures the norm only. All groups have the same value.
        error_if_nonfinite: True: raise RuntimeError if the norm is NaN or infinite, before anything is stepped. This
            waits for the device in each step. No effect without max_grad_norm.

    Raises:
        ValueError: an argument is wrong; the message has its value and what is allowed.

    With 8-bit state, a step skips elements whose gradient is NaN or infinite, and counts them in `skipped_elements`.
    With 32-bit and 16-bit state they propagate, as in torch.optim.AdamW.

    Master weights are exported and imported by pyadamw.fp32_state_dict() and pyadamw.load_fp32_state_dict().

    Sources: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; Dettmers et al., "8-bit Optimizers
    via Block-wise Quantization", ICLR 2022; Reddi et al., "On the Convergence of Adam and Beyond", ICLR 2018 (amsgrad).
    """

_IS_PAGED = """        is_paged: keep the state of tensors of 100,000 elements or more in the pages of a PageManager.
"""
_PAGED_NOTE = """
    The state of tensors of 100,000 elements or more is kept in the pages of a PageManager. It need not fit into the
    memory of the device that runs the step.
"""


# Arguments of torch.optim.AdamW that these classes do not need, and what to do instead.
_NOT_NEEDED = {
    "foreach": "leave it out, a step is always one call for all tensors",
    "fused": "leave it out, a step is always fused",
    "differentiable": "leave it out, a step cannot be differentiated",
}


def _refuse_call(self: _AdamW, error: TypeError) -> NoReturn:
    """Raises Python's error about a call that does not fit the signature, with the user's class and some advice."""
    advice = [f": {what}" for name, what in _NOT_NEEDED.items() if repr(name) in str(error)]
    raise TypeError(f"{type(self).__name__}.__init__() {error}{''.join(advice)}") from None


def _naming_the_class(init: Callable[..., None]) -> Callable[..., None]:
    """`init`, with a TypeError for unknown arguments that names the class that was called."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def named(self: _AdamW, *arguments: Any, **keywords: Any) -> None:
        try:
            signature.bind(self, *arguments, **keywords)
        except TypeError as error:
            _refuse_call(self, error)
        init(self, *arguments, **keywords)

    return named


class _AdamW(Base):
    """The argument list, once. A class defines which values of optim_bits it accepts, and the width of its state."""

    _accepted: tuple[int, ...] = (8, 16, 32)
    _width: int | None = None  # None: optim_bits decides

    def __init__(
        self,
        params: ParamsT,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        optim_bits: Literal[8, 16, 32] = 32,
        args: Any = None,
        min_8bit_size: int = 4096,
        percentile_clipping: int = 100,
        block_wise: bool = True,
        is_paged: bool = False,
        *,
        maximize: bool = False,
        stochastic_rounding: bool = False,
        seed: int = 0,
        capturable: bool = False,
        page_manager: PageManager | None = None,
        master_weight_bits: Literal[24, 32] | None = None,
        max_grad_norm: float | None = None,
        error_if_nonfinite: bool = False,
    ) -> None:
        options = {
            "lr": lr,
            "betas": plain_betas(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "optim_bits": optim_bits,
            "min_8bit_size": min_8bit_size,
            "percentile_clipping": percentile_clipping,
            "block_wise": block_wise,
            "is_paged": is_paged,
            "maximize": maximize,
            "stochastic_rounding": stochastic_rounding,
            "seed": seed,
            "capturable": capturable,
            "page_manager": page_manager,
            "master_weight_bits": master_weight_bits,
            "max_grad_norm": max_grad_norm,
            "error_if_nonfinite": error_if_nonfinite,
            "max_unorm": 0.0,
            "skip_zeros": False,
            **carried(args),
        }
        check_width(type(self).__name__, self._accepted)(options["optim_bits"])
        options["optim_bits"] = self._width or options["optim_bits"]
        super().__init__(params, options)

    if not TYPE_CHECKING:
        __init__ = _naming_the_class(__init__)

    @property
    def mng(self) -> GlobalOptimManager:
        """The GlobalOptimManager of the process, under bitsandbytes' name."""
        return GlobalOptimManager.get_instance()


def _document(state: str, widths: str, paged: bool) -> str:
    return _SUMMARY.format(
        state=state, widths=widths, paged="" if paged else _IS_PAGED, note=_PAGED_NOTE if paged else ""
    )


def _always_paged(init: Callable[..., None]) -> Callable[..., None]:
    """`init` without its argument is_paged, which is True."""
    signature = inspect.signature(init)
    without = signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "is_paged"])

    @functools.wraps(init)
    def paged(self: _AdamW, *arguments: Any, **keywords: Any) -> None:
        try:
            bound = without.bind(self, *arguments, **keywords)
        except TypeError as error:
            _refuse_call(self, error)
        init(**bound.arguments, is_paged=True)

    paged.__signature__ = without  # type: ignore[attr-defined]
    paged.__annotations__ = {name: hint for name, hint in init.__annotations__.items() if name != "is_paged"}
    return paged


class _PagedAdamW(_AdamW):
    """The argument list without is_paged."""

    if TYPE_CHECKING:
        # Type checkers and editors cannot follow the code below, so this repeats the signature for them. Stubtest
        # compares the two (tests/packages/test_typing.py).
        def __init__(
            self,
            params: ParamsT,
            lr: float | torch.Tensor = 1e-3,
            betas: tuple[float, float] = (0.9, 0.999),
            eps: float = 1e-8,
            weight_decay: float = 1e-2,
            amsgrad: bool = False,
            optim_bits: Literal[8, 16, 32] = 32,
            args: Any = None,
            min_8bit_size: int = 4096,
            percentile_clipping: int = 100,
            block_wise: bool = True,
            *,
            maximize: bool = False,
            stochastic_rounding: bool = False,
            seed: int = 0,
            capturable: bool = False,
            page_manager: PageManager | None = None,
            master_weight_bits: Literal[24, 32] | None = None,
            max_grad_norm: float | None = None,
            error_if_nonfinite: bool = False,
        ) -> None: ...
    else:
        __init__ = _always_paged(_AdamW.__init__)


_ANY = "32, 16 or 8: the width of the state."
_ONLY_32 = "32."
_ONLY_16 = "32 (the default, as in the other classes) or 16; the state has 16 bits in either case."
_ONLY_8 = '32 (the documented default, "for compatibility") or 8; the state has 8 bits in either case.'


class AdamW(_AdamW):
    __doc__ = _document("32-bit, 16-bit or 8-bit state, as optim_bits says", _ANY, False)


class AdamW32bit(_AdamW):
    __doc__ = _document("32-bit state", _ONLY_32, False)
    _accepted = (32,)
    _width = 32


class AdamW16bit(_AdamW):
    __doc__ = _document("16-bit state", _ONLY_16, False)
    _accepted = (16, 32)
    _width = 16


class AdamW8bit(_AdamW):
    __doc__ = _document("8-bit state", _ONLY_8, False)
    _accepted = (8, 32)
    _width = 8


class PagedAdamW(_PagedAdamW):
    __doc__ = _document("paged 32-bit, 16-bit or 8-bit state, as optim_bits says", _ANY, True)


class PagedAdamW32bit(_PagedAdamW):
    __doc__ = _document("paged 32-bit state", _ONLY_32, True)
    _accepted = (32,)
    _width = 32


class PagedAdamW16bit(_PagedAdamW):
    __doc__ = _document("paged 16-bit state", _ONLY_16, True)
    _accepted = (16, 32)
    _width = 16


class PagedAdamW8bit(_PagedAdamW):
    __doc__ = _document("paged 8-bit state", _ONLY_8, True)
    _accepted = (8, 32)
    _width = 8


__all__ = [
    "AdamW",
    "AdamW8bit",
    "AdamW16bit",
    "AdamW32bit",
    "GlobalOptimManager",
    "PagedAdamW",
    "PagedAdamW8bit",
    "PagedAdamW16bit",
    "PagedAdamW32bit",
]
