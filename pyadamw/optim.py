"""Owns the optimizer classes: their names, signatures and documentation. Must not know how a step is done.

The positional arguments are the same, in the same order, as in bitsandbytes' documentation. New arguments are
keyword-only.

Formula, arguments and errors are written once, in the docstring of _AdamW.__init__. Editors show that text at a call of
any class, because they read the source. What runs (help(), Sphinx) shows it in the docstring of each class, where
_options/presented.py has put it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from ._base import Base
from ._native.torch_private import ParamsT
from ._options.options import carried, check_width, plain_betas
from ._options.overrides import GlobalOptimManager
from ._options.presented import always_paged, complete, naming_the_class
from .paging import PageManager


class _AdamW(Base):
    """The argument list, once. A class defines which values of optim_bits it accepts, and the width of its state."""

    _accepted: tuple[int, ...] = (8, 16, 32)
    _width: int | None = None  # None: optim_bits decides
    _explanation: str | None  # the docstring of __init__

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
        """Makes an optimizer, which allocates the state of a parameter in the first step of that parameter.

        For each element p with gradient g, a step computes::

            m  = beta1 * m + (1 - beta1) * g                                   exp_avg
            v  = beta2 * v + (1 - beta2) * g**2                                exp_avg_sq
            v' = the largest v so far if amsgrad, else v
            p  = p * (1 - lr * weight_decay)
                 - lr / (1 - beta1**step) * m / (sqrt(v') / sqrt(1 - beta2**step) + eps)

        in float32, and rounds once to the dtype of p. p is float32, bfloat16 or float16, of any shape, on the CPU or on
        a CUDA device. g may have another of these dtypes.

        Args:
            params: tensors, (name, tensor) pairs, or dicts. Each dict is a parameter group: it has "params", and may
                have its own value for any option below except args.
            lr: the learning rate, >= 0: a number, or a tensor of one element that a scheduler may change in place.
            betas: the decay rates of m and v, each in [0, 1), as any sequence of two numbers. Groups hold a tuple of
                floats.
            eps: a number >= 0 that is added to the denominator.
            weight_decay: a number >= 0. The decay is decoupled from the gradient.
            amsgrad: True: divide by the largest v so far, which is a third moment in the state.
            optim_bits: the width of the state: 32, 16 or 8. A class with a width in its name always has state of this
                width; it accepts its own width and 32 (the default), which then has no effect. A group may have any
                of the three, in all classes.
            args: None, or a mapping or object that may have optim_bits, min_8bit_size, percentile_clipping, block_wise,
                max_unorm and skip_zeros. Its values win. max_unorm (0.0: off) scales the update of a tensor down to
                max_unorm times the norm of the tensor. skip_zeros (False) does not change elements whose gradient is
                exactly zero.
            min_8bit_size: with 8-bit state, tensors with fewer elements keep 32-bit state. An integer >= 0.
            percentile_clipping: an integer. 100: off. 1 ... 99: a gradient is scaled down if its norm is above this
                percentile of the last 100 norms of its tensor.
            block_wise: True: one scale for every 256 elements of 8-bit state. False: one scale for the tensor, less
                exact.
            is_paged: True: keep the state of tensors of 100,000 elements or more in the pages of a PageManager.
            maximize: True: step uphill.
            stochastic_rounding: True: round 16-bit parameters stochastically instead of to nearest, so that updates
                smaller than half a unit in the last place are not lost. No effect on parameters with master weights.
            seed: the seed of all stochastic rounding, in [0, 2**64). Equal seeds repeat equal runs.
            capturable: True: keep step counts in the memory of the CUDA device, so that a CUDA graph can capture
                step(). lr may then be a tensor on this device. No effect on the CPU.
            page_manager: the PageManager for paged state. None: a manager with the defaults.
            master_weight_bits: None: off. 32: the optimizer keeps what a bfloat16 parameter lacks of a float32 master
                weight (2 more bytes). The run is then that of float32 parameters, bit for bit. 24: it keeps the upper
                24 bits of the master weight, rounded stochastically (1 more byte). float32 parameters need no master
                weights and ignore this. float16 parameters refuse it.
            max_grad_norm: None: off. Otherwise a step multiplies all gradients by
                min(1, max_grad_norm / (norm + 1e-6)), with norm = sqrt(sum of g**2) over all gradients of the
                optimizer: of all groups, dtypes, devices and shards, after a GradScaler has unscaled them. This is
                torch.nn.utils.clip_grad_norm_() before the step, but gradients are neither written nor rounded, and
                nothing waits for a device. `grad_norm` has the norm. >= 0; infinity measures the norm only. All groups
                have the same value.
            error_if_nonfinite: True: raise RuntimeError if the norm is NaN or infinite, before anything is stepped.
                This waits for the device in each step. No effect without max_grad_norm.

        Raises:
            ValueError: an argument is wrong. The message has its value and what is allowed.
            TypeError: an argument is unknown or missing, or `params` holds something else than tensors.
            LibraryNotFoundError: libadamw is missing or cannot be loaded. The message says what to do.
            VersionError: libadamw and pyadamw have versions that do not fit.

        With 8-bit state, a step skips elements whose gradient is NaN or infinite, and counts them in
        `skipped_elements`. With 32-bit and 16-bit state they propagate, as in torch.optim.AdamW.

        `fp32_state_dict` exports master weights, and `load_fp32_state_dict` imports them.

        Sources: Loshchilov & Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; Dettmers et al., "8-bit
        Optimizers via Block-wise Quantization", ICLR 2022; Reddi et al., "On the Convergence of Adam and Beyond", ICLR
        2018 (amsgrad).
        """
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
        _explanation = __init__.__doc__
        __init__ = naming_the_class(__init__)

    @property
    def mng(self) -> GlobalOptimManager:
        """The GlobalOptimManager of the process, under the name that it has in bitsandbytes."""
        return GlobalOptimManager.get_instance()


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
        __init__ = always_paged(_AdamW.__init__)


class AdamW(_AdamW):
    """AdamW with 32-bit, 16-bit or 8-bit state, as optim_bits says.

    With 32 bits, m and v are float32: 8 bytes a parameter, as in torch.optim.AdamW. With 16 bits they are bfloat16, v
    rounded stochastically: 4 bytes. With 8 bits they are one byte an element and float32 scales: 2.05 bytes.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100))
        >>> groups = [{"params": model[0].parameters(), "optim_bits": 32}, {"params": model[1].parameters()}]
        >>> optimizer = pyadamw.AdamW(groups, lr=1e-3, optim_bits=8)
        >>> model(torch.arange(100)).logsumexp(1).mean().backward()
        >>> optimizer.step()
        >>> [entry.bits for entry in optimizer.memory_report().entries]  # the bias is below min_8bit_size
        [32, 8, 32]
    """


class AdamW32bit(_AdamW):
    """AdamW with 32-bit state, as torch.optim.AdamW has it.

    m and v are float32, which takes 8 bytes a parameter.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.
    """

    _accepted = (32,)
    _width = 32


class AdamW16bit(_AdamW):
    """AdamW with 16-bit state, which takes 4 bytes a parameter instead of 8.

    m and v are bfloat16. v is rounded stochastically, because rounding to nearest would stall it at beta2 = 0.999.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
        >>> optimizer = pyadamw.AdamW16bit(model.parameters(), lr=1e-3, master_weight_bits=32)
        >>> model(torch.ones(8, 64, dtype=torch.bfloat16)).square().mean().backward()
        >>> optimizer.step()
        >>> optimizer.memory_report().bytes // (64 * 64 + 64)  # 4 for m and v, 2 for the master weights
        6
    """

    _accepted = (16, 32)
    _width = 16


class AdamW8bit(_AdamW):
    """AdamW with 8-bit state, which takes 2.05 bytes a parameter instead of 8.

    m and v are one byte an element. Every 256 elements of m have one float32 scale, and those of v have two. Tensors
    with fewer than min_8bit_size elements keep 32-bit state.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(256, 256)
        >>> optimizer = pyadamw.AdamW8bit(model.parameters(), lr=1e-3)
        >>> model(torch.ones(8, 256)).square().mean().backward()
        >>> optimizer.step()
        >>> weight, bias = optimizer.memory_report().entries
        >>> round(weight.bytes / weight.numel, 2), bias.bytes / bias.numel
        (2.05, 8.0)
    """

    _accepted = (8, 32)
    _width = 8


class PagedAdamW(_PagedAdamW):
    """AdamW with paged 32-bit, 16-bit or 8-bit state, as optim_bits says.

    The state of tensors of 100,000 elements or more is kept in the pages of a PageManager. It need not fit into the
    memory of the device that runs the step. Its sizes are those of AdamW, and so are the results.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.
    """


class PagedAdamW32bit(_PagedAdamW):
    """AdamW with paged 32-bit state, which takes 8 bytes a parameter.

    The state of tensors of 100,000 elements or more is kept in the pages of a PageManager. It need not fit into the
    memory of the device that runs the step.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.
    """

    _accepted = (32,)
    _width = 32


class PagedAdamW16bit(_PagedAdamW):
    """AdamW with paged 16-bit state, which takes 4 bytes a parameter instead of 8.

    The state of tensors of 100,000 elements or more is kept in the pages of a PageManager. It need not fit into the
    memory of the device that runs the step. m and v are bfloat16, as in AdamW16bit.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.
    """

    _accepted = (16, 32)
    _width = 16


class PagedAdamW8bit(_PagedAdamW):
    """AdamW with paged 8-bit state, which takes 2.05 bytes a parameter instead of 8.

    The state of tensors of 100,000 elements or more is kept in the pages of a PageManager. It need not fit into the
    memory of the device that runs the step. m and v are one byte an element, as in AdamW8bit.

    The docstring of `__init__` has the formula, and explains the arguments and the errors.

    Example:
        >>> import torch, pyadamw
        >>> model = torch.nn.Linear(500, 400)
        >>> manager = pyadamw.PageManager("host")
        >>> optimizer = pyadamw.PagedAdamW8bit(model.parameters(), lr=1e-3, page_manager=manager)
        >>> model(torch.ones(8, 500)).square().mean().backward()
        >>> optimizer.step()
        >>> manager.stats()["host_bytes"] > 2 * 500 * 400
        True
    """

    _accepted = (8, 32)
    _width = 8


complete(
    (AdamW, AdamW32bit, AdamW16bit, AdamW8bit, PagedAdamW, PagedAdamW32bit, PagedAdamW16bit, PagedAdamW8bit),
    _AdamW._explanation,
)

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
