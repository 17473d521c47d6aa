"""Owns the plan as text, on one screen of 100 columns. Must not know how anything in it was found."""

from __future__ import annotations

import textwrap
from typing import Protocol

from .choices import BITSANDBYTES, OURS, TORCH, Choice
from .quantities import Unit, shown_bytes

WIDTH = 100
_VARIANTS = ((False, False), (False, True), (True, False), (True, True))  # (paged, in_backward)
_NAMES = {TORCH: "torch ", BITSANDBYTES: "bnb ", OURS: ""}
_MARKS = {"yes": "*", "tight": "!"}
_SHORT = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


class Planned(Protocol):
    """What is shown of a plan."""

    source: str
    parameters: int
    frozen: int
    processes: int
    process: int
    gpu: int | None
    room: int | None
    choices: list[Choice]
    best: Choice | None
    has_shapes: bool
    notes: list[str]


Variants = dict[tuple[bool, bool], Choice]


def rows(choices: list[Choice]) -> list[tuple[str, Variants]]:
    """Choices that differ only in where state is and when gradients are dropped, together, and what they are called."""
    found: dict[str, Variants] = {}
    for choice in choices:
        name = f"{_NAMES[choice.package]}{choice.optimizer.removeprefix('Paged')} "
        name += _SHORT.get(choice.dtype, choice.dtype)
        if choice.master_weight_bits:
            name += f"/{choice.master_weight_bits}"
        found.setdefault(name, {})[choice.paged, choice.in_backward] = choice
    return list(found.items())


def table(plan: Planned) -> str:
    unit = Unit(max(choice.device + choice.host for choice in plan.choices))
    lines = [*textwrap.wrap(headline(plan), WIDTH, break_long_words=False), ""]
    lines.append(f"{unit.name + ' a process':58}{'all on the device':17} {'state in pages':17}{'pages:':>7}")
    lines.append(
        f"{'optimizer, weights':20}{'B/param':>8}{'weights':>8}{'grads':>7}{'master':>7}{'state':>7}"
        f"{'plain':>8} {'in bwd':>8} {'plain':>8} {'in bwd':>8} {'host':>6}"
    )
    for name, variants in rows(plan.choices):
        plain = variants[False, False]
        numbers = (plain.gradients, plain.remainder, plain.state)
        cells = f"{unit(plain.weights):>8}" + "".join(f"{unit(count):>7}" for count in numbers)
        places = "".join(_cell(variants.get(variant), unit) for variant in _VARIANTS)
        host = unit(variants[True, False].host) if (True, False) in variants else "-"
        lines.append(f"{name:20}{plain.bytes_per_parameter:>8.2f}{cells}{places}{host:>6}")
    lines += ["", *_legend(plan)]
    if plan.gpu is not None:
        lines += ["", *_best(plan)]
    return "\n".join(lines)


def _cell(choice: Choice | None, unit: Unit) -> str:
    if choice is None:
        return f"{'-':>8} "
    return f"{unit(choice.device):>8}{_MARKS.get(choice.fits, ' ')}"


def headline(plan: Planned) -> str:
    text = f"{plan.source}: {plan.parameters:,} parameters that train"
    text += f", {plan.frozen:,} other numbers" if plan.frozen else ""
    if plan.processes > 1:
        text += f"; process {plan.process} of {plan.processes}" + (" (the largest)" if plan.process == 0 else "")
    return text + ("" if plan.gpu is None else f"; GPU of {shown_bytes(plan.gpu)}")


def _legend(plan: Planned) -> list[str]:
    windows = max(choice.windows for choice in plan.choices)
    unit = "fully_shard unit" if plan.processes > 1 else "module"
    unknown = "" if plan.has_shapes else " (of a number: a quarter is assumed)"
    entries = [("in bwd", f"StepInBackward: gradients of one {unit} at a time{unknown}.")]
    if any(choice.master_weight_bits for choice in plan.choices):
        entries.insert(0, ("master", "What master_weight_bits=24 or 32 adds to the state (rows bf16/24, bf16/32)."))
    if windows:
        text = "PagedAdamW...: state of tensors of 100,000 elements or more is on the host; on the device "
        entries.append(("pages", f"{text}are windows of {shown_bytes(windows)} (of managed memory: none)."))
    hidden = "Activations, CUDA context, torch's allocator, step counts, and copies that exist only within a step or "
    entries.append(("missing", f"{hidden}backward (a whole layer of FSDP2)."))
    if plan.gpu is not None and plan.room is not None:
        entries.append(("* or !", f"It fits. *: and leaves {shown_bytes(plan.room)} or more for what is missing here."))
    entries += [("note", note) for note in plan.notes]
    lines = []
    for label, text in entries:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"{label:8}", subsequent_indent=" " * 8)
    return lines


def _best(plan: Planned) -> list[str]:
    assert plan.gpu is not None and plan.room is not None
    if plan.best is None:
        least = min((choice for choice in plan.choices if choice.package == OURS), key=lambda choice: choice.device)
        text = f"Nothing fits: {least.optimizer}, stepped in backward, takes {shown_bytes(least.device)} at least. "
        return textwrap.wrap(
            f"{text}Shard the model over more processes (--processes), or take bfloat16 weights.", WIDTH
        )
    left, host = plan.gpu - plan.best.device, plan.best.host
    text = "Best" if plan.best.fits == "yes" else f"Tight: none leaves {shown_bytes(plan.room)}. The best that fits"
    text += f" takes {shown_bytes(plan.best.device)} on the device and leaves {shown_bytes(left)}"
    text += f"; it needs {shown_bytes(host)} on the host" if host else ""
    text += ". Call fully_shard first:" if plan.processes > 1 else ":"
    return [*textwrap.wrap(text, WIDTH), *plan.best.code.splitlines()]
