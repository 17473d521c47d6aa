"""Owns the laws on rare and on small updates: embeddings, noise of the state, bfloat16 weights, and a task.

Each function takes a contestant and the law's sizes, and returns numbers. It must not know who is measured.
"""

from unittest import mock

import contestants  # noqa: F401  (which makes tests/python and tests/bench importable)
import master_weights
import noise
import tasks
import torch
from state_laws import Pair, finite


def embedding(contestant, sizes):
    """Rows of an embedding, seen as often as words are: where they end, and the largest update of all, in learning
    rates. Once with gradients of 6e-5 an element, once of 6e-7.
    """
    rows, width, lr, result = sizes["rows"], sizes["width"], 1e-3, {}
    frequencies = 1.0 / torch.arange(1, rows + 1).float()
    for gradient_size in (6e-5, 6e-7):
        generator = torch.Generator().manual_seed(5)
        start = 0.02 * torch.randn(rows, width, generator=generator)
        pair = Pair(contestant.make(), start, lr=lr, weight_decay=0.0)
        largest, before = torch.zeros(2), pair.values()
        for _ in range(sizes["steps"]):
            tokens = torch.multinomial(frequencies, sizes["tokens"], replacement=True, generator=generator)
            gradient = torch.zeros(rows, width)
            gradient.index_add_(0, tokens, torch.randn(sizes["tokens"], width, generator=generator) * gradient_size)
            pair.step(gradient)
            now = pair.values()
            updates = torch.stack([(b - a).abs().max() for a, b in zip(before, now, strict=True)])
            largest, before = torch.maximum(largest, updates / lr), now
        wide, other = before
        result[f"{gradient_size:.0e}"] = {
            "error": finite(((other - wide).norm() / (wide - start).norm()).item()),
            "largest": finite(largest[1].item()),
            "largest_float32": finite(largest[0].item()),
        }
    return result


def noise_of_state(contestant, sizes):
    """Displacement errors after small steps (tests/bench/noise.py); v beside float32's, by its share of its block."""
    with mock.patch.object(noise, "ELEMENTS", sizes["elements"]):
        one, lognormal = (noise.error(contestant.make(), spread, sizes["steps"]) for spread in (0.0, 1.0))
    shares = sizes["shares"]
    scale = torch.ones(len(shares), sizes["blocks"] * 8, 32)
    scale[:, :, 1:] = torch.tensor(shares)[:, None, None]  # one of 32 is large: blocks of 32 elements have one, too
    generator = torch.Generator().manual_seed(0)
    pair = Pair(contestant.make(), torch.zeros(scale.numel()), lr=1e-3, weight_decay=0.0)
    for _ in range(sizes["spread_steps"]):
        pair.step((torch.randn(scale.shape, generator=generator) * scale).flatten())
    found = contestant.second_moment(pair.optimizer, pair.other).view_as(scale)
    ratio = (found / pair.reference.state[pair.wide]["exp_avg_sq"].view_as(scale))[:, :, 1:].flatten(1)
    curve = [
        [share, finite(row.sqrt().std().item()), finite(row.mean().item()), (row == 0).float().mean().item()]
        for share, row in zip(shares, ratio, strict=True)
    ]
    return {"one_size": finite(one), "lognormal": finite(lognormal), "curve": curve}


def weights(contestant, sizes):
    """How far bfloat16 weights, and what stands beside them, end from a float32 run (tests/bench/master_weights.py)."""
    result = []
    for lr, steps in sizes["settings"]:
        with mock.patch.object(master_weights, "ELEMENTS", sizes["elements"]):
            error, arrives = master_weights.displacement(contestant.make(), {}, lr, steps)
        result.append({"lr": lr, "steps": steps, "error": finite(error), "arrives": finite(arrives)})
    return {"settings": result}


def digits(contestant, sizes):
    """After training on digits (tests/python/tasks.py), with each optimizer's own defaults: the loss on held-out ones,
    and the largest weight. Pixels at the border are nearly always zero, and so are the gradients of their weights.
    """
    curves, largest, task = [], [], tasks.TASKS["digits"]
    for seed in range(sizes["seeds"]):
        model, _, curve = tasks.trained(task, contestant.make(), seed, sizes["steps"])
        curves.append([[step, finite(value)] for step, value in curve])
        largest.append(finite(max(param.abs().max().item() for param in model.parameters())))
    return {"losses": [curve[-1][1] for curve in curves], "largest": largest, "curves": curves}
