"""Owns the law of Ctrl-C: wherever it ends a step, each parameter, its moments and its count are those from before the
step, or all are those after it; and what has not been stepped can be stepped, with the bits of an undisturbed run.
"""

import functools
import gc
import os
import sys
from pathlib import Path

import forked
import pytest
import torch
from harness import CLASSES, bits, parameters, run_played, state_bits

import pyadamw
from pyadamw._native.step_call import Call
from pyadamw._state.sharding import inner
from pyadamw._step.run import Run

PACKAGE = str(Path(pyadamw.__file__).parent)
# What is made in a step that has begun is ended between any two operations, the rest between any two lines.
FINELY = {os.path.join(PACKAGE, name) for name in ("_step/run.py", "_step/step_counts.py", "_native/step_call.py")}
SHAPES = ((40, 100), (300,), (70, 100), (5,), (3, 200))


class Interrupt:
    """Raises KeyboardInterrupt at the event number `at` of what runs in the package in the meantime. No garbage is
    collected then: Python drops what is raised in the callback of an object that it collects.
    """

    def __init__(self, at):
        left, self.came = at, False

        def count(_frame, event, _argument):
            nonlocal left
            if event in ("line", "opcode"):
                left -= 1
                if left < 0:
                    self.came = True
                    raise KeyboardInterrupt
            return count

        self._count = count  # which is called most often of all that is here

    def see(self, frame, _event, _argument):
        """Of a function that is called."""
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = name in FINELY
        return self._count

    def __enter__(self):
        self._before, self._collects = sys.gettrace(), gc.isenabled()
        gc.disable()
        sys.settrace(self.see)
        return self

    def __exit__(self, kind, error, _traceback):
        sys.settrace(self._before)
        if self._collects:
            gc.enable()
        assert (kind is KeyboardInterrupt) == self.came
        return self.came


# Of two classes that are the same here, each is ended at every other point.
TURN = {pyadamw.AdamW: 0, pyadamw.AdamW32bit: 1, pyadamw.PagedAdamW: 0, pyadamw.PagedAdamW32bit: 1}


def interrupted(step, stride=1, first=0):
    """Calls `step` with an interrupt at an event, and `stride` events later each time, until it ends before."""
    at = first
    while True:
        with Interrupt(at) as interrupt:
            step()
        yield at, interrupt.came
        if not interrupt.came:
            return
        at += stride


def made(cls, dtype=torch.float32, **options):
    """An optimizer of two groups, whose third parameter does not lie plainly in memory, and one has no gradient."""
    params = parameters(SHAPES, dtype)
    params[2] = torch.nn.Parameter(params[2].detach().t())
    if "Paged" in cls.__name__:
        options = {"page_manager": pyadamw.PageManager("host", min_numel=1000), **options}
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.03}]
    if cls is pyadamw.AdamW8bit:
        groups[1]["percentile_clipping"] = 40
    optimizer = cls(groups, lr=0.1, min_8bit_size=1000, **options)
    give(params)
    return optimizer, params


@functools.cache
def numbers(shapes, dtypes):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator).to(dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]


def give(params):
    """New tensors, of the same numbers each time."""
    given = numbers(tuple(p.shape for p in params), tuple(p.dtype for p in params))
    for i, (p, grad) in enumerate(zip(params, given, strict=True)):
        p.grad = grad.clone() if i != 3 else None


def seen(optimizer, params):
    states = optimizer.state  # which waits for pages each time that it is asked for
    return [(bits(inner(p)), local_bits(states[p]) if p in states else None) for p in params]


def local_bits(state):
    return {key: bits(inner(value)) for key, value in state.items()}


def restore(optimizer, params, saved):
    states, targets, sources = optimizer.state, [], []
    for p, (value, state) in zip(params, saved, strict=True):
        targets += [inner(p).detach(), *(inner(states[p][key]) for key in state)]
        sources += [inner(value), *map(inner, state.values())]
    torch._foreach_copy_(targets, sources)


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


def every_point_of_a_step(optimizer, params, stride=1, first=0):
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
    for at, came in interrupted(optimizer.step, stride, first):
        if came:
            stepped.add(check(optimizer, params, before, after, at))
            again()
    assert seen(optimizer, params) == after
    assert len(stepped) >= 3 and at > 300, (stepped, at)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_point_of_a_step(cls):
    every_point_of_a_step(*made(cls), stride=2 if cls in TURN else 1, first=TURN.get(cls, 0))


def test_every_point_of_a_step_with_master_weights():
    every_point_of_a_step(*made(pyadamw.AdamW16bit, torch.bfloat16, master_weight_bits=24), stride=3)


def test_every_point_of_a_step_with_pages_in_a_file(disk):
    pages = pyadamw.PageManager("file", directory=disk, min_numel=1000)
    every_point_of_a_step(*made(pyadamw.PagedAdamW8bit, page_manager=pages))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_point_of_the_first_step(cls):
    optimizer, params = made(cls)
    before = seen(optimizer, params)
    optimizer.step()
    # A step takes long here, and has many lines.
    after, at, stride = seen(optimizer, params), 7 * TURN.get(cls, 0), 14 if cls in TURN else 7
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
                value == before[i][0]
                and (not state or all(content.count(0) == len(content) for content in state.values()))
            ), (at, i)
            if (value, state) == after[i]:
                params[i].grad = None
        optimizer.step()
        assert seen(optimizer, params) == after, at
        at += stride
    assert at > 300


@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.AdamW32bit], ids=lambda cls: cls.__name__)
def test_every_point_of_an_interrupted_step(cls, calls, monkeypatch):
    """A second interrupt, while what the first has left is settled."""
    optimizer, params = made(cls)
    optimizer.step()
    saved, before = copies(optimizer, params), seen(optimizer, params)
    optimizer.step()
    after, step, settle, left, second = seen(optimizer, params), Call.step, Run.settle, [0], [None]

    def first(self, *arguments):
        step(self, *arguments)
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    def interrupted_again(self):
        interrupt, second[0] = second[0], None
        if interrupt is None:
            return settle(self)
        sys.settrace(interrupt.see)
        try:
            return settle(self)
        finally:
            sys.settrace(None)

    monkeypatch.setattr(Call, "step", first)
    monkeypatch.setattr(Run, "settle", interrupted_again)
    for at in range(10_000):
        restore(optimizer, params, saved)
        give(params)
        interrupt = second[0] = Interrupt(at)
        left[0] = calls
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
        assert second[0] is None
        assert check(optimizer, params, before, after, at) >= 1
        if not interrupt.came:
            break
    assert 50 < at < 9999


def test_every_point_of_a_step_in_backward():
    """Parameters have been stepped or have not, and of those that have, no gradient is left to be added to."""
    start, point = parameters(((40, 100), (100, 70))), torch.ones(1, 40)

    def stepper():
        params = [torch.nn.Parameter(p.detach().clone()) for p in start]
        made = pyadamw.StepInBackward(params, pyadamw.AdamW8bit, lr=0.1, min_8bit_size=1000)
        return made, params, lambda: ((point @ params[0]).relu() @ params[1]).square().sum().backward()

    def rows(stepper, params):
        return [(bits(p), state_bits(stepper, p)) for p in params]

    backward_in, params, backward = stepper()
    backward()
    backward()
    before = rows(backward_in, params)
    backward()
    after, at = rows(backward_in, params), 0
    while True:
        backward_in, params, backward = stepper()
        backward()
        backward()
        with Interrupt(at) as interrupt:
            backward()
        now = rows(backward_in, params)
        assert all(row in pair for row, *pair in zip(now, before, after, strict=True)), at
        if not interrupt.came:
            break
        at += 11
    assert at > 300


def test_every_point_of_a_step_on_a_device_that_the_cpu_plays():
    """Step counts in the device's memory, and a found_inf that decides there whether they count."""
    said = run_played("-c", PLAYED)
    assert "holds" in said


PLAYED = """
import sys
sys.path.insert(0, "tests/python")
import torch, pyadamw
from device_script import on_device
from test_interrupts import every_point_of_a_step, made
torch.set_num_threads(1)
with on_device():
    for cls in (pyadamw.AdamW32bit, pyadamw.AdamW8bit):
        optimizer, params = made(cls, capturable=True)
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(0.0)
        every_point_of_a_step(optimizer, params, stride=11)
print("holds")
"""


def test_every_point_of_a_step_of_gathered_parameters(tmp_path):
    """Those that processes gather for the step: each has its copy, and its call."""
    done = forked.run(GATHERED, tmp_path / "store", modules=forked.SHARDED, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr[-3000:]


GATHERED = """
import sys, torch, torch.distributed as dist, pyadamw
from distributed_names import Shard, distribute_tensor
from test_interrupts import every_point_of_a_step, give, parameters
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
mesh = dist.init_device_mesh("cpu", (1,))
params = [torch.nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for p in parameters()[2:6]]
optimizer = pyadamw.AdamW8bit(params, lr=0.1, min_8bit_size=1000, percentile_clipping=40)
give(params)
every_point_of_a_step(optimizer, params, stride=3)
dist.destroy_process_group()
"""


def test_a_signal_in_a_long_call():
    """What Ctrl-C is: the call goes on to its end, and the exception comes when it returns."""
    done = forked.run(SIGNAL)
    assert done.returncode == 0, done.stderr[-3000:]


SIGNAL = """
import os, signal, threading, time, torch, pyadamw
signal.signal(signal.SIGINT, signal.default_int_handler)
for cls in (pyadamw.AdamW32bit, pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit):
    p = torch.nn.Parameter(torch.zeros(4_000_000))
    p.grad = torch.ones_like(p)
    optimizer = cls([p], lr=0.1)
    optimizer.step()
    for wait in (0.001, 0.002):
        value, count, came = p.detach().clone(), float(optimizer.state[p]["step"]), False
        timer = threading.Timer(wait, lambda: os.kill(os.getpid(), signal.SIGINT))
        try:
            timer.start()
            optimizer.step()
            for _ in range(6000):
                time.sleep(0.01)  # a signal that the timer's thread gets ends no sleep here
        except KeyboardInterrupt:
            came = True
        counted = float(optimizer.state[p]["step"]) - count
        assert came and ((p != value).all() if counted else (p == value).all()), (cls, wait, counted)
"""
