"""Owns the law that threads may use optimizers on a Python without a global lock: different ones at the same time, one
of them one after the other. Where Python has the lock, what the package does without it runs all the same.
"""

import inspect
import signal

import forked
import pytest

import pyadamw
from pyadamw._native import torch_private
from pyadamw._step import exclusive

SCRIPT = r"""
import sys, threading, time, torch
sys._is_gil_enabled = lambda: False
import pyadamw
from pyadamw._native import inspect_tensors
assert inspect_tensors._loop() is None  # it borrows references
sys.setswitchinterval(1e-6)  # threads take turns between any two operations
torch.set_num_threads(1)
STEPS, THREADS = 60, 4

def made(cls, seed):
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((300,), (3, 700), (5000,))]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    return cls(params, lr=0.01), params

def in_threads(*jobs):
    errors, barrier = [], threading.Barrier(len(jobs))
    def run(job):
        barrier.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors, errors

def same(one, other):
    return all(torch.equal(p, q) for p, q in zip(one[1], other[1], strict=True)) and all(
        torch.equal(one[0].state[p][key], other[0].state[q][key])
        for p, q in zip(one[1], other[1], strict=True) for key in one[0].state[p])

for cls in (pyadamw.AdamW32bit, pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit):
    # One optimizer, several threads: each step is one.
    one, alone = made(cls, 1), made(cls, 1)
    def steps(count, optimizer=one[0]):
        for _ in range(count):
            optimizer.step()
    def looks():
        for _ in range(STEPS):
            one[0].state_dict(), one[0].memory_report(), one[0].state
    in_threads(*[lambda: steps(STEPS)] * THREADS, looks)
    steps(STEPS * THREADS, alone[0])
    assert same(one, alone), cls
    # Several, at the same time, with one page manager.
    many, apart = [made(cls, seed) for seed in range(THREADS)], [made(cls, seed) for seed in range(THREADS)]
    if "Paged" in cls.__name__:
        manager = pyadamw.PageManager("host", min_numel=1)
        for optimizer, _ in many:
            optimizer.param_groups[0]["page_manager"] = manager
    in_threads(*[lambda optimizer=optimizer: steps(STEPS, optimizer) for optimizer, _ in many])
    for optimizer, _ in apart:
        steps(STEPS, optimizer)
    assert all(map(same, many, apart)), cls

# A closure may come back to the optimizer.
optimizer, params = made(pyadamw.AdamW8bit, 3)
assert optimizer.step(lambda: len(optimizer.state)) == 0

# Nobody is in a step while another is, which a closure sees that takes its time.
inside, seen = [], []
def slow():
    seen.append(len(inside))
    inside.append(1)
    time.sleep(0.05)
    inside.pop()
    return 0.0
in_threads(*[lambda: optimizer.step(slow)] * 2)
assert seen == [0, 0], seen
print("holds")
"""


# In the place of the module that keeps threads apart.
UNLOCKED = """
import types
stub = sys.modules["pyadamw._step.exclusive"] = types.ModuleType("exclusive")
stub.exclusive, stub.new_lock = lambda method: method, lambda: None
import pyadamw
"""


def test_threads_step_what_one_thread_steps():
    """The bits of a single thread, with the flag of a free-threaded Python."""
    done = forked.run(SCRIPT)
    assert done.returncode == 0 and done.stdout == "holds\n", done.stderr


def test_without_the_lock_it_fails():
    """The test notices steps of one optimizer that are not kept apart: an error, or a heap that is no longer one."""
    done = forked.run(SCRIPT.replace("import pyadamw\n", UNLOCKED, 1))
    crashed = done.returncode in (-signal.SIGABRT, -signal.SIGSEGV)
    assert crashed or (done.returncode > 0 and "Error" in done.stderr), done


@pytest.mark.skipif(not torch_private.has_gil(), reason="this Python has no lock")
def test_nothing_is_locked_where_python_locks():
    """Methods are those that are written in the source, and optimizers have no lock."""
    assert torch_private.has_gil() and not exclusive.FREE_THREADED
    assert inspect.unwrap(pyadamw.AdamW.state_dict) is pyadamw.AdamW.state_dict
