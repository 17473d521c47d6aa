"""Owns three small training tasks on real data, and optimizers known to be worse than ours. Must not know any law.

digits: an MLP on scikit-learn's load_digits. photo: a coordinate network that learns scikit-learn's china.jpg. charlm:
a character transformer on pydoc_data.topics. A run is a pure function of (task, optimizer, seed): the seed decides
weights and batches, and a run uses one thread whatever the machine has.
"""

import functools
import math
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import pyadamw
from pyadamw._state import dynamic_maps

DOUBLINGS = 4  # metrics are taken from steps / 2^DOUBLINGS on
PER_DOUBLING = 2


class Result(NamedTuple):
    curve: list  # the metric at each checkpoint
    narrow_share: float  # of the elements of the state: how many have 8 bits


class Training(NamedTuple):
    model: nn.Module
    loss: object  # (generator) -> the loss of one batch
    metric: object  # () -> float, on what the task is judged by


class Task(NamedTuple):
    setup: object  # () -> Training, after torch.manual_seed
    steps: int
    lr: float
    seeds: int
    learnt: float  # a metric that only a model which has learnt the task is below
    unit: str

    def checkpoints(self):
        """Steps after which the metric is taken: log-spaced, because learning is."""
        count = DOUBLINGS * PER_DOUBLING
        return [round(self.steps * 2 ** (k / PER_DOUBLING - DOUBLINGS)) for k in range(count + 1)]


# ---- the tasks ------------------------------------------------------------------------------------------------------


def digits():
    """Test cross-entropy, in nats."""
    images, labels = _digits()
    train, test = slice(0, 1200), slice(1200, None)
    model = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 10))

    def loss(generator):
        batch = torch.randint(1200, (64,), generator=generator)
        return F.cross_entropy(model(images[train][batch]), labels[train][batch])

    return Training(model, loss, lambda: F.cross_entropy(model(images[test]), labels[test]).item())


def photo():
    """Negative PSNR in decibels, so that less is better, as it is in the other tasks."""
    positions, colours = _photo()
    frequencies = torch.randn(2, 64) * 8
    features = torch.cat([f(2 * math.pi * positions @ frequencies) for f in (torch.sin, torch.cos)], dim=1)
    model = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 3), nn.Sigmoid())

    def loss(generator):
        batch = torch.randint(len(features), (512,), generator=generator)
        return F.mse_loss(model(features[batch]), colours[batch])

    return Training(model, loss, lambda: 10 * math.log10(F.mse_loss(model(features), colours).item()))


class Transformer(nn.Module):
    """Causal, pre-norm, with learned positions."""

    def __init__(self, vocabulary, context, width=64, depth=2, heads=4):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "norm2": nn.LayerNorm(width),
                    "mlp": nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)),
                }
            )
            for _ in range(depth)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        self.heads = heads

    def forward(self, tokens):
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            qkv = block["qkv"](block["norm1"](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(*qkv, is_causal=True)
            x = x + block["out"](attended.transpose(1, 2).flatten(2))
            x = x + block["mlp"](block["norm2"](x))
        return self.head(self.norm(x))


def charlm():
    """Bits per character of a part of the text that is not trained on."""
    context, text, vocabulary = 32, *_text()
    split = len(text) * 9 // 10
    window = torch.arange(context + 1)
    held_out = text[torch.arange(split, len(text) - context - 1, (len(text) - split) // 64)[:, None] + window]
    model = Transformer(vocabulary, context)

    def bits(rows):
        logits = model(rows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()) / math.log(2)

    def loss(generator):
        return bits(text[torch.randint(split - context, (12, 1), generator=generator) + window])

    return Training(model, loss, lambda: bits(held_out).item())


TASKS = {
    "digits": Task(digits, 800, 3e-3, 8, 0.12, "nats"),
    "photo": Task(photo, 500, 5e-3, 6, -30, "dB"),
    "charlm": Task(charlm, 360, 4e-3, 5, 3.2, "bits"),
}


@functools.cache
def _digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return torch.tensor(data.data[order], dtype=torch.float32) / 16, torch.tensor(data.target[order])


@functools.cache
def _photo():
    from sklearn.datasets import load_sample_image

    pixels = torch.tensor(load_sample_image("china.jpg")).permute(2, 0, 1)[None].float() / 255
    colours = F.interpolate(pixels, (64, 96), mode="area")[0].flatten(1).T.contiguous()
    grid = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1.5, 96), indexing="ij")
    return torch.stack(grid, dim=-1).flatten(0, 1), colours


@functools.cache
def _text():
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([number[character] for character in text]), len(number)


# ---- the optimizers -------------------------------------------------------------------------------------------------


class Degraded(pyadamw.AdamW32bit):
    """32-bit state that is rounded to 8 bits and back after each step, by rules that are known to be worse than ours.

    "truncated": the codes of our 8-bit state, but both moments rounded towards zero. "nearest": each moment rounded to
    the nearest value of a dynamic map, of which 0 is one: what bitsandbytes does. As there, blocks are of the flat
    tensor. All tensors at once, each padded to whole blocks with zeros, which both rules keep: one by one takes as long
    as the training.
    """

    BLOCK = 256

    def __init__(self, params, rule, **options):
        super().__init__(params, **options)
        self.rule = rule
        tensors = [param for group in self.param_groups for param in group["params"]]
        lengths = [-(-tensor.numel() // self.BLOCK) * self.BLOCK for tensor in tensors]
        self.padded = torch.zeros(sum(lengths))
        parts = zip(tensors, self.padded.split(lengths), strict=True)
        self.places = [part[: tensor.numel()].view_as(tensor) for tensor, part in parts]

    def step(self, closure=None):
        loss = super().step(closure)
        states = list(self.state.values())
        rule = _truncated if self.rule == "truncated" else _nearest
        for moment in ("exp_avg", "exp_avg_sq"):
            self._round(states, moment, functools.partial(rule, moment=moment))
        return loss

    def _round(self, states, key, rule):
        tensors = [state[key] for state in states]
        torch._foreach_copy_(self.places, tensors)
        self.padded.copy_(rule(self.padded))
        torch._foreach_copy_(tensors, self.places)


@functools.cache
def _nearest_table(signed):
    """The nearest value of a map for each number, by the upper half of its bits: a search takes four times as long."""
    upper = torch.arange(1 << 16) << 16 | 0x8000  # in the middle of what has this half
    numbers = upper.to(torch.int32).view(torch.float32).nan_to_num()
    values = dynamic_maps.dynamic_map(signed)
    return values[torch.bucketize(numbers, (values[1:] + values[:-1]) / 2)]


def _nearest(values, moment):
    blocks = values.view(-1, dynamic_maps.BLOCK)
    scales = blocks.abs().amax(1, keepdim=True)
    scaled = blocks / torch.where(scales > 0, scales, 1.0)
    upper = scaled.view(torch.int32).flatten() >> 16 & 0xFFFF
    return _nearest_table(moment == "exp_avg").index_select(0, upper).view_as(blocks).mul_(scales).flatten()


def _truncated(values, moment):
    quantized = pyadamw.quantize(values, moment)
    zero = 128 if moment == "exp_avg" else 0
    too_large = pyadamw.dequantize(*quantized, moment).abs() > values.abs()
    towards_zero = (zero - quantized.codes.int()).sign() * too_large
    truncated = quantized._replace(codes=(quantized.codes + towards_zero).to(torch.uint8))
    return pyadamw.dequantize(*truncated, moment)


# min_8bit_size = 1: every parameter, biases and norms included, has 8-bit state.
OPTIMIZERS = {
    "32": pyadamw.AdamW32bit,
    "8": functools.partial(pyadamw.AdamW8bit, min_8bit_size=1),
    "8 tensor-wise": functools.partial(pyadamw.AdamW8bit, min_8bit_size=1, block_wise=False),
    "truncated": functools.partial(Degraded, rule="truncated"),
    "nearest": functools.partial(Degraded, rule="nearest"),
}


# ---- runs -----------------------------------------------------------------------------------------------------------


def trained(task, make, seed, steps):
    """(model, optimizer, [(step, metric)]) after steps of a task; `make` makes the optimizer, of parameters and lr."""
    torch.manual_seed(seed)
    model, loss, metric = task.setup()
    optimizer = make(list(model.parameters()), lr=task.lr)
    cosine = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5 + 0.5 * math.cos(math.pi * t / task.steps))
    generator, checkpoints, curve = torch.Generator().manual_seed(seed), task.checkpoints(), []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        loss(generator).backward()
        optimizer.step()
        cosine.step()
        if step in checkpoints:
            with torch.no_grad():
                curve.append((step, metric()))
    return model, optimizer, curve


def run(name, optimizer_name, seed):
    """One training run, in this process."""
    torch.set_num_threads(1)
    task = TASKS[name]
    _, optimizer, curve = trained(task, OPTIMIZERS[optimizer_name], seed, task.steps)
    moments = [state.get("exp_avg_codes", state.get("exp_avg")) for state in optimizer.state.values()]
    narrow = sum(moment.numel() for moment in moments if moment.dtype == torch.uint8)
    return Result([value for _, value in curve], narrow / sum(moment.numel() for moment in moments))


def run_all(jobs):
    """{job: run(*job)} of (task, optimizer, seed) jobs, as many at a time as there are processors."""
    jobs = list(jobs)
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    context = get_context("forkserver")  # no threads are forked, and what takes seconds to import is imported once
    # torch imports torch._dynamo when the first optimizer is made
    context.set_forkserver_preload(["pyadamw", "torch._dynamo", "sklearn.datasets"])
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return dict(zip(jobs, pool.map(run, *zip(*jobs, strict=True)), strict=True))
