"""Owns who is measured: each optimizer by its own code, and why one is missing. Must not know any law."""

import contextlib
import functools
import importlib
import importlib.metadata
import io
import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch

import pyadamw

ROOT = Path(__file__).resolve().parents[2]
sys.path.extend(str(ROOT / "tests" / name) for name in ("bench", "python"))
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao compiles its step; the arithmetic is the same without
ONLY_HERE = ROOT / ".venv" / "laws"  # what ci/laws installs for this program alone


class TorchBfloat16State(torch.optim.Optimizer):
    """torch's fused AdamW with bfloat16 state, on float32 weights.

    torch keeps bfloat16 state for bfloat16 parameters alone. So it steps bfloat16 parameters that are zero, without
    decay; what they become is the update, which is added to the weights. Thus its state alone is judged.
    """

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        (group,) = self.param_groups
        self.updates = [torch.nn.Parameter(torch.zeros_like(p, dtype=torch.bfloat16)) for p in group["params"]]
        self.inner = torch.optim.AdamW(self.updates, lr=lr, betas=betas, eps=eps, weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        self.inner.param_groups[0]["lr"] = group["lr"]
        for param, update in zip(group["params"], self.updates, strict=True):
            update.zero_()
            update.grad = param.grad.bfloat16()
        self.inner.step()
        for param, update in zip(group["params"], self.updates, strict=True):
            param.mul_(1 - group["lr"] * group["weight_decay"]).add_(update)

    def second_moment(self, param):
        (group,) = self.param_groups
        place = next(i for i, other in enumerate(group["params"]) if other is param)
        return self.inner.state[self.updates[place]]["exp_avg_sq"]


class Contestant(NamedTuple):
    make: object  # () -> a function of (params, **options) that makes the optimizer; raises ImportError
    second_moment: object = None  # (optimizer, param) -> exp_avg_sq as float32
    package: str = "pyadamw"


def _state(optimizer, param):
    return optimizer.state[param]["exp_avg_sq"]


def _ours(optimizer, param):
    return optimizer.to_torch_state_dict()["state"][0]["exp_avg_sq"]


def _of_bitsandbytes(optimizer, param):
    from bitsandbytes import functional

    state = optimizer.state[param]
    return functional.dequantize_blockwise(state["state2"], absmax=state["absmax2"], code=state["qmap2"], blocksize=256)


def _imported(module, name):
    def make():
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return getattr(importlib.import_module(module), name)

    return make


@functools.cache
def flashoptim():
    import flashoptim_kernel

    return flashoptim_kernel.load(ONLY_HERE)


def _of_flashoptim():
    return functools.partial(flashoptim().FlashAdamW, master_weight_bits=None)


# What keeps state in few bits, on float32 weights.
STATE = {
    "pyadamw 8-bit": Contestant(lambda: pyadamw.AdamW8bit, _ours),
    "pyadamw 16-bit": Contestant(lambda: pyadamw.AdamW16bit, _ours),
    "torch bf16 state": Contestant(lambda: TorchBfloat16State, lambda o, p: o.second_moment(p).float(), "torch"),
    "bitsandbytes 8-bit": Contestant(_imported("bitsandbytes.optim", "AdamW8bit"), _of_bitsandbytes, "bitsandbytes"),
    "torchao 8-bit": Contestant(
        _imported("torchao.optim", "AdamW8bit"), lambda o, p: _state(o, p).dequantize(), "torchao"
    ),
    "torchao FP8": Contestant(
        _imported("torchao.optim", "AdamWFp8"), lambda o, p: _state(o, p).dequantize(), "torchao"
    ),
    "torchao 4-bit": Contestant(
        _imported("torchao.optim", "AdamW4bit"), lambda o, p: _state(o, p).dequantize(), "torchao"
    ),
    "FlashOptim 8-bit": Contestant(_of_flashoptim, lambda o, p: _state(o, p).materialize(), "flashoptim"),
}
REFERENCE = "torch float32"
WITH_REFERENCE = {REFERENCE: Contestant(lambda: torch.optim.AdamW, _state, "torch"), **STATE}


class _Weights:
    """An optimizer of one bfloat16 parameter, and the weights that it really holds."""

    def __init__(self, optimizer, weights=None):
        self.step, self._weights = optimizer.step, weights
        (self._param,) = optimizer.param_groups[0]["params"]

    def weights(self):
        return self._weights() if self._weights else self._param.detach().float()


def _weights_of(make, **fixed):
    return lambda: lambda params, **options: _Weights(make()(params, **options, **fixed))


def _flashoptim_weights(bits):
    def make(params, **options):
        module, (param,) = flashoptim(), params
        optimizer = module.FlashAdamW(params, master_weight_bits=bits, **options)
        return _Weights(
            optimizer, lambda: module.reconstruct_fp32_param(param.detach(), optimizer.state[param]["error_bits"])
        )

    flashoptim()
    return make


def _our_weights(cls, bits):
    return Contestant(lambda: functools.partial(cls, master_weight_bits=bits))


# What becomes of bfloat16 weights.
WEIGHTS = {
    "bf16 nearest (torch)": Contestant(
        _weights_of(lambda: functools.partial(torch.optim.AdamW, fused=True)), package="torch"
    ),
    "bf16 nearest (bitsandbytes 8-bit)": Contestant(
        _weights_of(STATE["bitsandbytes 8-bit"].make), package="bitsandbytes"
    ),
    "bf16 stochastic (torchao 8-bit)": Contestant(
        _weights_of(STATE["torchao 8-bit"].make, bf16_stochastic_round=True), package="torchao"
    ),
    "bf16 stochastic (pyadamw 8-bit)": Contestant(
        lambda: functools.partial(pyadamw.AdamW8bit, stochastic_rounding=True)
    ),
    "24 bits (FlashOptim 8-bit)": Contestant(lambda: _flashoptim_weights(24), package="flashoptim"),
    "32 bits (FlashOptim 8-bit)": Contestant(lambda: _flashoptim_weights(32), package="flashoptim"),
    "24 bits (pyadamw 8-bit)": _our_weights(pyadamw.AdamW8bit, 24),
    "32 bits (pyadamw 8-bit)": _our_weights(pyadamw.AdamW8bit, 32),
    "24 bits (pyadamw 32-bit)": _our_weights(pyadamw.AdamW32bit, 24),
    "32 bits (pyadamw 32-bit)": _our_weights(pyadamw.AdamW32bit, 32),
}


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        found = next(ONLY_HERE.glob(f"{package}-*.dist-info"), None)
        return found.name.removesuffix(".dist-info").split("-")[1] if found else None
