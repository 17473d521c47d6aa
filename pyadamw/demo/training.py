"""Owns one training run, in a process of its own: settings and text come in by stdin, JSON lines go out by stdout.

It must not know the other runs or how a person is shown the numbers. Protocol: the first line of stdin is a JSON
object with `optimizer`, `steps` and `seed`, the rest is the text. Each line of stdout is a JSON object with an `event`:
start, progress, validation or done.
"""

from __future__ import annotations

import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

import torch
from torch.func import functional_call

import pyadamw

from .corpus import Corpus
from .memory import peak_memory, reset_peak_memory, tensor_bytes
from .model import GPT, Shape


class Contestant(NamedTuple):
    """An optimizer with its options, and the dtype of the weights."""

    optimizer: Callable[..., torch.optim.Optimizer]
    dtype: torch.dtype = torch.float32


CONTESTANTS = {
    "torch AdamW": Contestant(functools.partial(torch.optim.AdamW, fused=True)),
    "AdamW32bit": Contestant(pyadamw.AdamW32bit),
    "AdamW8bit": Contestant(pyadamw.AdamW8bit),
    "AdamW8bit, bf16": Contestant(functools.partial(pyadamw.AdamW8bit, master_weight_bits=24), torch.bfloat16),
}

BATCH = 4
LEARNING_RATE = 2e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0
WARMUP_SHARE = 0.05
FINAL_LEARNING_RATE_SHARE = 0.02

VALIDATION_WINDOWS = 128
VALIDATION_BATCH = 16
VALIDATIONS = 12
SECONDS_BETWEEN_REPORTS = 0.1


def learning_rate_factor(step: int, steps: int) -> float:
    """A linear warm-up and then half a cosine, as a factor of LEARNING_RATE; `step` counts from 0."""
    warmup = min(1.0, (step + 1) / max(1.0, WARMUP_SHARE * steps))
    cosine = 0.5 + 0.5 * math.cos(math.pi * step / steps)
    return warmup * (FINAL_LEARNING_RATE_SHARE + (1 - FINAL_LEARNING_RATE_SHARE) * cosine)


def validation_steps(steps: int) -> set[int]:
    """After which steps the validation loss is measured: about VALIDATIONS of them, the last step always."""
    return {max(1, round(steps * i / VALIDATIONS)) for i in range(1, VALIDATIONS + 1)}


def loss_of(model: GPT, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The loss of the weights as they are kept, computed in float32.

    Arithmetic in bfloat16 would take ten times as long on a processor that has no instructions for it.
    """
    weights = {name: weight.to(torch.float32) for name, weight in model.named_parameters()}
    return functional_call(model, weights, (inputs, targets))


@torch.no_grad()
def bits_per_character(model: GPT, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    nats = sum(loss_of(model, inputs, targets).item() * targets.numel() for inputs, targets in batches)
    return nats / sum(targets.numel() for _, targets in batches) / math.log(2)


def _load_code(contestant: Contestant) -> None:
    """Trains a tiny model for one step. What that loads, about 100 MB of code and thread stacks, is no one's state."""
    model = GPT(2, Shape(context=8, width=16, layers=1, heads=2)).to(contestant.dtype)
    optimizer = contestant.optimizer(model.parameters())
    tokens = torch.zeros(BATCH, 8, dtype=torch.long)
    loss_of(model, tokens, tokens).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
    optimizer.step()


def train(name: str, steps: int, seed: int, text: str, report: Any) -> None:
    """Trains one model. The seed alone decides its initial weights and its batches."""
    contestant = CONTESTANTS[name]
    corpus = Corpus(text, Shape().context)
    batches = corpus.training_batches(BATCH, seed)
    validation = corpus.validation_batches(VALIDATION_BATCH, VALIDATION_WINDOWS)

    _load_code(contestant)
    # From here on memory is the model's, the gradients', the optimizer's and the activations'.
    memory_before = reset_peak_memory()
    torch.manual_seed(seed)
    model = GPT(corpus.vocabulary, Shape()).to(contestant.dtype)
    options = {"lr": LEARNING_RATE, "betas": BETAS, "weight_decay": WEIGHT_DECAY}
    optimizer = contestant.optimizer(model.parameters(), **options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    report("start", parameters=parameters)

    measured_after = validation_steps(steps)
    optimizer_seconds = []
    next_report = 0.0
    for step in range(1, steps + 1):
        inputs, targets = next(batches)
        loss_of(model, inputs, targets).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        started = time.perf_counter()
        optimizer.step()
        finished = time.perf_counter()
        optimizer_seconds.append(finished - started)
        optimizer.zero_grad()
        schedule.step()
        if step in measured_after:
            report("validation", step=step, bits_per_character=bits_per_character(model, validation))
        elif finished >= next_report:
            report("progress", step=step)
            next_report = finished + SECONDS_BETWEEN_REPORTS
    report(
        "done",
        weight_bytes=sum(weight.numel() * weight.element_size() for weight in model.parameters()),
        state_bytes=tensor_bytes(optimizer.state),
        step_milliseconds=1e3 * statistics.median(optimizer_seconds),
        memory_before=memory_before,
        peak_memory=peak_memory(),
    )


def _private_stdout() -> TextIO:
    """The pipe to the parent, out of reach of anything that prints: file descriptor 1 becomes stderr."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def main() -> int:
    pipe = _private_stdout()

    def report(event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), file=pipe, flush=True)

    settings = json.loads(sys.stdin.buffer.readline())
    text = sys.stdin.buffer.read().decode("utf-8")
    try:
        train(settings["optimizer"], settings["steps"], settings["seed"], text, report)
    except BrokenPipeError:  # The parent is gone: nobody wants the rest.
        os._exit(1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
