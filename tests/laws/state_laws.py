"""Owns the laws on what a step keeps of the moments: ten steps, falling, stopped and absent gradients.

Each function takes a contestant and the law's sizes, and returns numbers. It must not know who is measured.
"""

import math
import statistics

import contestants  # noqa: F401  (which makes tests/python and tests/bench importable)
import torch
from test_accuracy8 import heavy_tailed, normal, sparse


class Pair:
    """The same parameter under torch's AdamW with float32 state, and under another optimizer."""

    def __init__(self, make, start, **options):
        self.wide, self.other = (torch.nn.Parameter(start.clone()) for _ in range(2))
        self.reference = torch.optim.AdamW([self.wide], fused=True, **options)
        self.optimizer = make([self.other], **options)

    def step(self, gradient):
        self.wide.grad, self.other.grad = gradient, gradient.clone()
        self.reference.step()
        self.optimizer.step()

    def values(self):
        """(float32 run, other run), copied."""
        return self.wide.detach().clone(), self.other.detach().clone()


def finite(value):
    """A number that JSON has."""
    return value if math.isfinite(value) else None


def median(values):
    """In which what is no number counts as larger than any."""
    return finite(statistics.median(math.inf if math.isnan(value) else value for value in values))


KINDS = {"normal": normal, "sparse": sparse, "heavy": heavy_tailed}


def ten_steps(contestant, sizes):
    """The largest and the mean difference of a parameter from the float32 run's: medians over the seeds."""
    result = {}
    for kind, gradients in KINDS.items():
        largest, means = [], []
        for seed in range(sizes["seeds"]):
            torch.manual_seed(seed)
            pair = Pair(contestant.make(), torch.randn(sizes["shape"]), lr=1e-3)
            for _ in range(sizes["steps"]):
                pair.step(gradients(sizes["shape"]))
            wide, other = pair.values()
            difference = (wide - other).abs()
            largest.append(difference.max().item())
            means.append(difference.mean().item())
        medians = {"largest": median(largest), "mean": median(means)}
        result[kind] = {**medians, "seeds": [finite(value) for value in largest]}
    return result


def falling(contestant, sizes):
    """Updates of the half of each block whose gradients fell tenfold, and of the other half, over the float32 run's."""
    n, window = sizes["elements"], sizes["window"]
    fallen = torch.arange(n) % 2 == 1
    generator = torch.Generator().manual_seed(0)
    pair = Pair(contestant.make(), torch.zeros(n), lr=1e-3, weight_decay=0.0)
    curve, sums, before = [], torch.zeros(2, 2), pair.values()
    for step in range(1, sizes["before"] + sizes["after"] + 1):
        gradient = torch.randn(n, generator=generator)
        if step > sizes["before"]:
            gradient[fallen] *= 0.1
        pair.step(gradient)
        now = pair.values()
        moved = [(b - a).abs() for a, b in zip(before, now, strict=True)]
        sums += torch.tensor([[m[fallen].mean(), m[~fallen].mean()] for m in moved])
        before = now
        if step % window == 0:
            ratios = (sums[1] / sums[0]).tolist()
            curve.append([step - sizes["before"] - window / 2, *(finite(ratio) for ratio in ratios)])
            sums.zero_()
    last = curve[-max(1, 100 // window) :]
    fallen_ratio, other_ratio = (statistics.mean(row[column] for row in last) for column in (1, 2))
    v8, v32 = contestant.second_moment(pair.optimizer, pair.other), pair.reference.state[pair.wide]["exp_avg_sq"]
    ratio = (v8.view(-1) / v32)[fallen].mean().item()
    return {"fallen": fallen_ratio, "others": other_ratio, "v_ratio": finite(ratio), "curve": curve}


def stopped(contestant, sizes):
    """How far elements move after their gradients stopped, over how far the float32 run moves them; the farthest, in
    learning rates.
    """
    n, lr = sizes["elements"], 1e-3
    stops = torch.arange(n) % 2 == 1
    generator = torch.Generator().manual_seed(3)
    signs = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    gradient = signs * torch.exp(torch.randn(n, generator=generator)) * 0.01
    pair = Pair(contestant.make(), torch.zeros(n), lr=lr, weight_decay=0.0)
    for _ in range(sizes["before"]):
        pair.step(gradient)
    start, gradient = pair.values(), gradient.masked_fill(stops, 0.0)
    seen = set(spaced(sizes["after"], 60))
    curve = []
    for step in range(1, sizes["after"] + 1):
        pair.step(gradient)
        if step in seen:
            wide, other = ((now - then)[stops].abs() for now, then in zip(pair.values(), start, strict=True))
            curve.append([step, finite(wide.mean().item()), finite(other.mean().item())])
    return {
        "moved": finite((other.mean() / wide.mean()).item()),
        "farthest": finite(other.max().item() / lr),
        "farthest_float32": wide.max().item() / lr,
        "curve": curve,
    }


def zero(contestant, sizes):
    """How far elements without gradient and decay move, in learning rates, beside others that have gradients."""
    n, lr = sizes["elements"], 1e-3
    idle = torch.arange(n) % 2 == 1
    generator = torch.Generator().manual_seed(1)
    pair = Pair(contestant.make(), 0.02 * torch.randn(n, generator=generator), lr=lr, weight_decay=0.0)
    start, seen, curve = pair.values()[1], set(spaced(sizes["steps"], 60)), []
    for step in range(1, sizes["steps"] + 1):
        pair.step(torch.randn(n, generator=generator).masked_fill(idle, 0.0))
        if step in seen:
            moved = (pair.other.detach() - start)[idle].abs() / lr
            curve.append([step, finite(moved.max().item()), finite(moved.mean().item())])
    return {"farthest": curve[-1][1], "mean": curve[-1][2], "share": (moved > 0).float().mean().item(), "curve": curve}


def spaced(last, count):
    """About so many steps from 1 to the last, a constant factor apart."""
    return sorted({round(last ** (i / (count - 1))) for i in range(count)})
