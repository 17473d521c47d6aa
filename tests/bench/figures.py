"""Owns the figures: what is stepped against what, the bar, and how each is measured. Must not know how it is shown."""

import functools
from typing import NamedTuple

import ceiling
import measure
import torch
import workloads

import pyadamw

WARM_UP = 3  # steps of both sides before the comparison of results and the timing


class Figure(NamedTuple):
    name: str
    title: str
    optimizer: type
    shapes: object  # (quick) -> list of shapes
    bar: float | None = None  # of ours / torch fused
    dtype: torch.dtype = torch.float32
    tolerance: float = 0.05  # see workloads.check
    rival: object = None  # None: torch fused, on the same dtype
    rival_dtype: torch.dtype | None = None

    def sides(self):
        """(how to make it, dtype of the parameters) of ours and of the rival."""
        rival = workloads.torch_fused if self.rival is None else _make(self.rival)
        return (_make(self.optimizer), self.dtype), (rival, self.rival_dtype or self.dtype)


def _large(quick):
    return [(1 << (20 if quick else 26),)]


def _small(quick):
    return [(1000,)] * (200 if quick else 2000)


def _gpt2(split):
    return lambda quick: (
        [(-(-a // 16), *rest) for a, *rest in workloads.gpt2_shapes(split)] if quick else workloads.gpt2_shapes(split)
    )


def _master(bits):
    return functools.partial(pyadamw.AdamW8bit, master_weight_bits=bits)


# A limit that no norm reaches: clipping takes the same time, and gradients stay what they are.
_clipping = functools.partial(pyadamw.AdamW8bit, max_grad_norm=workloads.LARGE_NORM)
BF16, FP32 = torch.bfloat16, torch.float32
_MASTER = "bf16 with 32 bits of master weights, AdamW8bit"

# Tolerance 0.2: 16-bit parameters and torch's 16-bit state round more than 8-bit state does. 1e-4: fp32 roundings.
FIGURES = (
    Figure("large-fp32-8bit", "fp32, AdamW8bit, one tensor", pyadamw.AdamW8bit, _large, 0.75),
    Figure("large-bf16-8bit", "bf16, AdamW8bit, one tensor", pyadamw.AdamW8bit, _large, 0.9, torch.bfloat16, 0.2),
    Figure("large-bf16-master32", f"{_MASTER}, torch on fp32", _master(32), _large, 0.8, BF16, 0.2, rival_dtype=FP32),
    Figure("large-bf16-master32-alone", f"{_MASTER}, without", _master(32), _large, 1.25, BF16, 0.2, pyadamw.AdamW8bit),
    Figure("large-bf16-master24-alone", "the same with 24", _master(24), _large, None, BF16, 0.2, pyadamw.AdamW8bit),
    Figure("large-bf16-16bit", "bf16, AdamW16bit, one tensor", pyadamw.AdamW16bit, _large, None, BF16, 0.2),
    Figure(
        "large-fp32-clip-alone",
        "fp32, AdamW8bit clipping, without",
        _clipping,
        _large,
        1.35,
        FP32,
        0.2,
        pyadamw.AdamW8bit,
    ),
    Figure(
        "large-bf16-clip-alone",
        "bf16, AdamW8bit clipping, without",
        _clipping,
        _large,
        1.35,
        BF16,
        0.2,
        pyadamw.AdamW8bit,
    ),
    Figure(
        "gpt2-304-clip",
        "fp32, AdamW8bit, 304, both clipping",
        _clipping,
        _gpt2(True),
        0.6,
        FP32,
        0.2,
        workloads.TorchClipping,
    ),
    Figure("large-fp32-32bit", "fp32, AdamW32bit, one tensor", pyadamw.AdamW32bit, _large, 1.05, tolerance=1e-4),
    Figure("small-fp32-32bit", "fp32, AdamW32bit, tensors of 1000", pyadamw.AdamW32bit, _small, 0.25, tolerance=1e-4),
    Figure("gpt2-304-8bit", "fp32, AdamW8bit, GPT-2 small in 304", pyadamw.AdamW8bit, _gpt2(True), 0.75),
    Figure("gpt2-148-8bit", "fp32, AdamW8bit, GPT-2 small as is", pyadamw.AdamW8bit, _gpt2(False)),
)


class Settings(NamedTuple):
    quick: bool
    least: int
    most: int
    budget: float
    keep_gradients: bool
    threads: int


def name_of(optimizer):
    """What makes it, as Python writes that."""
    options = getattr(optimizer, "keywords", {})
    name = getattr(optimizer, "func", optimizer).__name__
    return f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})" if options else name


def _make(optimizer):
    return lambda params: optimizer(params, lr=workloads.LR)


def _stat(quartiles, **more):
    return {**quartiles._asdict(), **more}


def contest(both, shapes, tolerance, settings):
    """Both sides, as Figure.sides() gives them, warmed up on the same numbers and compared."""
    sides = [workloads.Side(make, shapes, dtype, settings.keep_gradients) for make, dtype in both]
    before = [param.detach().clone() for param in sides[0].params]
    for _ in range(WARM_UP):
        for side in sides:
            side.fresh_gradients()
            side.step()
    return sides, workloads.check(sides[0].params, sides[1].params, before, WARM_UP, tolerance)


def time_pairs(sides, settings):
    return measure.paired(
        sides[0].step,
        sides[1].step,
        lambda i: sides[i].fresh_gradients(),
        settings.least,
        settings.most,
        settings.budget,
    )


def measure_figure(figure, settings, library):
    """The result of one figure, ready for JSON; see report.py. `library`: of ceiling.build(), or None."""
    shapes = figure.shapes(settings.quick)
    sides, agreement = contest(figure.sides(), shapes, figure.tolerance, settings)
    pairs = time_pairs(sides, settings)
    result = {
        "name": figure.name,
        "title": figure.title,
        "device": "cpu",
        "dtype": str(figure.dtype).removeprefix("torch."),
        "tensors": len(shapes),
        "elements": sum(sides[0].sizes),
        "ours": name_of(figure.optimizer),
        "rival": "torch.optim.AdamW(fused=True)" if figure.rival is None else name_of(figure.rival),
        "bar": figure.bar,
        "pairs": len(pairs.first),
        "ratio": _stat(pairs.ratio()),
        "seconds": _stat(measure.Quartiles.of(pairs.first)),
        "rival_seconds": _stat(measure.Quartiles.of(pairs.second)),
        "agreement": agreement,
        "ceiling": None,
    }
    if library is not None:
        result["ceiling"] = _ceiling(library, sides, settings)
    return result


def _ceiling(library, sides, settings):
    """Steps of ours in turn with the ceiling, on the same tensors: the share of the ceiling's speed that they reach.

    Before each of the two, torch's side steps, so that both find the caches as in a pair of the figure.
    """
    bounds = [ceiling.Ceiling(library, side.optimizer, settings.threads) for side in sides]

    def prepare(number):
        sides[0].fresh_gradients()
        sides[1].fresh_gradients()
        sides[1].step()
        bounds[0].point_to_gradients()

    least, budget = max(3, settings.least // 2), settings.budget / 2
    pairs = measure.paired(bounds[0], sides[0].step, prepare, least, settings.most, budget)
    quartiles = measure.Quartiles.of(pairs.first)
    return _stat(
        quartiles,
        bytes=bounds[0].bytes,
        rival_bytes=bounds[1].bytes,
        share=_stat(pairs.ratio()),
        pairs=len(pairs.first),
    )
