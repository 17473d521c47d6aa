"""Owns one comparison: what becomes of the updates of bfloat16 weights, here and elsewhere. Knows nothing of speed.

    python tests/bench/master_weights.py [SEEDS]

The first table: weights from N(0, 0.02^2), rounded to bfloat16, move along gradients that are noise of size 1 with a
drift of 0.3 of it, at the learning rates of fine-tuning. Printed is how far each run ends from torch.optim.AdamW on
float32 weights, as a share of the way; in brackets, the part of the way that arrives. What is compared are the master
weights, if a run has some. FlashOptim needs a GPU: its published rule runs here, with 32-bit state.

The second table: bits per character of the demo's model, on validation text, after training with each kind of weights,
for each seed. The deviation of float32 runs over the seeds is the measure.
"""

import functools
import os
import statistics
import sys

import torch

import pyadamw
from pyadamw.demo import app, text, training

ELEMENTS = 65_536
SETTINGS = ((6e-7, 220), (1e-6, 2000), (1e-5, 2000))


class FlashOptim:
    """FlashAdamW 0.1.4's master weights of 24 bits: an error in 127ths of half a unit, rounded to nearest."""

    def __init__(self, params, **options):
        (self.param,) = params
        self.error = torch.zeros_like(self.param, dtype=torch.float32)
        self.wide = torch.nn.Parameter(self.param.detach().float())
        self.inner = torch.optim.AdamW([self.wide], **options)

    def half_unit(self):
        return torch.ldexp(torch.ones_like(self.error), torch.frexp(self.param.detach().float())[1] - 9)

    def weights(self):
        return self.param.detach().float() + self.error / 127 * self.half_unit()

    def step(self):
        self.wide.data.copy_(self.weights())
        self.wide.grad = self.param.grad.float()
        self.inner.step()
        with torch.no_grad():
            self.param.copy_(self.wide)
            self.error = ((self.wide - self.param.float()) / self.half_unit() * 127).round().clamp(-127, 127)


def contestants():
    narrow = pyadamw.AdamW8bit, pyadamw.AdamW32bit
    yield "bf16, nearest", narrow[1], {}
    yield "bf16, stochastic", narrow[1], {"stochastic_rounding": True}
    yield "FlashOptim's rule, 24 bits", FlashOptim, {}
    yield "24 bits, 32-bit state", narrow[1], {"master_weight_bits": 24}
    yield "24 bits, 8-bit state", narrow[0], {"master_weight_bits": 24}
    yield "32 bits, 32-bit state", narrow[1], {"master_weight_bits": 32}
    yield "32 bits, 8-bit state", narrow[0], {"master_weight_bits": 32}


def displacement(optimizer_class, options, lr, steps):
    """(error, part that arrives), both as shares of the way of torch's optimizer on float32 weights."""
    torch.manual_seed(0)
    param = torch.nn.Parameter((0.02 * torch.randn(ELEMENTS)).bfloat16())
    wide, drift = torch.nn.Parameter(param.detach().float()), 0.3 * torch.randn(ELEMENTS)
    start = wide.detach().clone()
    optimizer = optimizer_class([param], lr=lr, weight_decay=1e-2, **options)
    reference = torch.optim.AdamW([wide], lr=lr, weight_decay=1e-2, fused=True)
    for _ in range(steps):
        param.grad = (torch.randn(ELEMENTS) + drift).bfloat16()
        wide.grad = param.grad.float()
        optimizer.step()
        reference.step()
    ours = optimizer.weights() if hasattr(optimizer, "weights") else optimizer.fp32_weights()[0]
    way, moved = wide.detach() - start, ours - start
    return ((moved - way).norm() / way.norm()).item(), ((moved @ way) / (way @ way)).item()


KINDS = {
    "float32, torch AdamW": training.CONTESTANTS["torch AdamW"],
    "bf16, AdamW8bit": training.Contestant(pyadamw.AdamW8bit, torch.bfloat16),
    "bf16, AdamW8bit, 24 bits": training.CONTESTANTS["AdamW8bit, bf16"],
    "bf16, AdamW8bit, 32 bits": training.Contestant(
        functools.partial(pyadamw.AdamW8bit, master_weight_bits=32), torch.bfloat16
    ),
}


def bits_per_character(kind, seed, content):
    found = []

    def report(event, **values):
        if event == "validation":
            found.append(values["bits_per_character"])

    training.CONTESTANTS["this"] = KINDS[kind]
    training.train("this", app.DEFAULT_STEPS, seed, content, report)
    return found[-1]


def main():
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    torch.set_num_threads(1)
    print("|", *(f"| lr {lr:g}, {steps} steps" for lr, steps in SETTINGS), "|\n" + "|---" * (1 + len(SETTINGS)) + "|")
    for name, optimizer_class, options in contestants():
        cells = (displacement(optimizer_class, options, lr, steps) for lr, steps in SETTINGS)
        print(f"| {name}", *(f"| {error:.3g} ({arrives:.3f})" for error, arrives in cells), "|", flush=True)
    if not seeds:
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    content, _ = text.load_text(None)
    print("\n| |", *(f"seed {seed} |" for seed in range(seeds)), "mean difference |\n" + "|---" * (2 + seeds) + "|")
    reference = None
    for kind in KINDS:
        values = [bits_per_character(kind, seed, content) for seed in range(seeds)]
        reference = reference or values
        off = statistics.mean(a - b for a, b in zip(values, reference, strict=True))
        print(f"| {kind} |", *(f"{value:.4f} |" for value in values), f"{off:+.4f} |", flush=True)
    if seeds > 1:
        print(f"\nStandard deviation of the float32 runs over the seeds: {statistics.stdev(reference):.4f}")


if __name__ == "__main__":
    main()
