"""Owns the law of Ctrl-C: wherever it ends a step, each parameter, its moments and its count are those from before the
step, or all are those after it; and what has not been stepped can be stepped, with the bits of an undisturbed run.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
from forked import run
from harness import CLASSES, bits, parameters, state_bits

import pyadamw
from pyadamw._counts import Counts
from pyadamw._run import Run

PACKAGE = str(Path(pyadamw.__file__).parent)
# What is made in a step that has begun is ended between any two operations, the rest between any two lines.
FINELY = {os.path.join(PACKAGE, name) for name in ("_run.py", "_counts.py", "_table.py")}
SHAPES = ((40, 100), (300,), (70, 100), (5,), (3, 200))


class Interrupt:
    """Raises KeyboardInterrupt at the event number `at` of what runs in the package in the meantime."""

    def __init__(self, at):
        self.left, self.came = at, False

    def _see(self, frame, event, _argument):
        if frame.f_code.co_filename.startswith(PACKAGE):
            frame.f_trace_opcodes = frame.f_code.co_filename in FINELY
        elif event == "call":
            return None
        if event in ("line", "opcode"):
            self.left -= 1
            if self.left < 0:
                self.came = True
                raise KeyboardInterrupt
        return self._see

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._see)
        return self

    def __exit__(self, kind, error, _traceback):
        sys.settrace(self._before)
        assert (kind is KeyboardInterrupt) == self.came
        return self.came


def interrupted(step):
    """Calls `step` with an interrupt at its first event, at its second, and so on, until it ends before that."""
    at = 0
    while True:
        with Interrupt(at) as interrupt:
            step()
        yield at, interrupt.came
        if not interrupt.came:
            return
        at += 1


def made(cls, **options):
    """An optimizer of two groups, whose third parameter does not lie plainly in memory, and one has no gradient."""
    params = parameters(SHAPES)
    params[2] = torch.nn.Parameter(params[2].detach().t())
    if "Paged" in cls.__name__:
        options["page_manager"] = pyadamw.PageManager("host", min_numel=1000)
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03}]
    if cls is pyadamw.AdamW8bit:
        groups[1]["percentile_clipping"] = 40
    optimizer = cls(groups, lr=0.1, min_8bit_size=1000, **options)
    give(params)
    return optimizer, params


def give(params):
    generator = torch.Generator().manual_seed(5)
    for i, p in enumerate(params):
        p.grad = torch.randn(p.shape, generator=generator) if i != 3 else None


def seen(optimizer, params):
    return [(bits(p), state_bits(optimizer, p) if p in optimizer.state else None) for p in params]


def restore(optimizer, params, saved):
    for p, (value, state) in zip(params, saved, strict=True):
        p.data.copy_(value)
        for key, tensor in state.items():
            optimizer.state[p][key].copy_(tensor)


def copies(optimizer, params):
    return [(p.detach().clone(), {k: v.clone() for k, v in optimizer.state[p].items()}) for p in params]


def check(optimizer, params, before, after, at):
    """Row by row, before or after; then what is before is stepped, and all is after."""
    now = seen(optimizer, params)
    for i, row in enumerate(now):
        assert row in (before[i], after[i]), (at, i, params[i].shape)
    for p, row, goal in zip(params, now, after, strict=True):
        if row == goal:
            p.grad = None
    optimizer.step()
    assert seen(optimizer, params) == after, at
    return sum(row == goal for row, goal in zip(now, after, strict=True))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_point_of_a_step(cls):
    optimizer, params = made(cls)
    optimizer.step()
    params[3].grad = torch.ones_like(params[3])  # it has a row, and no gradient later
    optimizer.step()
    saved, before = copies(optimizer, params), seen(optimizer, params)
    give(params)
    optimizer.step()
    after, stepped = seen(optimizer, params), set()

    def again():
        restore(optimizer, params, saved)
        assert seen(optimizer, params) == before
        give(params)
        optimizer.step()  # builds what such a step needs
        restore(optimizer, params, saved)

    again()
    for at, came in interrupted(optimizer.step):
        if came:
            stepped.add(check(optimizer, params, before, after, at))
            again()
    assert seen(optimizer, params) == after
    assert len(stepped) >= 3 and at > 300, (stepped, at)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_point_of_the_first_step(cls):
    optimizer, params = made(cls)
    before = seen(optimizer, params)
    optimizer.step()
    after, at = seen(optimizer, params), 0
    while True:
        optimizer, params = made(cls)
        with Interrupt(at) as interrupt:
            optimizer.step()
        if not interrupt.came:
            break
        now = seen(optimizer, params)
        for i, (value, state) in enumerate(now):
            assert (value, state) == after[i] or (
                # State may be there already, in which nothing has happened.
                value == before[i][0] and (not state or not any(any(content) for content in state.values()))
            ), (at, i)
            if (value, state) == after[i]:
                params[i].grad = None
        optimizer.step()
        assert seen(optimizer, params) == after, at
        at += 7  # a step takes long here, and has many lines
    assert at > 300
