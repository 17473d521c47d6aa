"""Owns the host's own time of a step: what step() takes beyond the C call. Must not know the figures of figures.py."""

import time

import measure
import workloads

import pyadamw
import pyadamw._native.step_call as step_call

COUNTS = (304, 2000)
ELEMENTS = 16  # so that the C call is short and the caches are not disturbed
STEPS = 200


class Timed:
    """Stands for the C function, and adds up the time in it."""

    def __init__(self, optimizer):
        self.function, self.seconds = step_call.library().lib.adamw_step, 0.0
        for bucket in optimizer._cache.plan.buckets:
            bucket.call._step = self

    def __call__(self, *arguments):
        start = time.perf_counter()
        status = self.function(*arguments)
        self.seconds += time.perf_counter() - start
        return status


def _in_python(side):
    """Seconds of one step of `side` outside the C call."""
    timed = Timed(side.optimizer)
    side.fresh_gradients()
    whole = measure.seconds(side.step)
    return whole - timed.seconds


def measure_host(count, settings):
    """Of AdamW32bit and torch fused with `count` tiny tensors: of torch the whole step.

    Python's part twice: in a row of steps, and right after a step of torch's, which leaves little of what a step needs
    in the caches, as a model's forward and backward pass do.
    """
    shapes = [(ELEMENTS,)] * count
    sides = [
        workloads.Side(make, shapes, workloads.torch.float32, settings.keep_gradients)
        for make in (lambda params: pyadamw.AdamW32bit(params, lr=workloads.LR), workloads.torch_fused)
    ]
    for side in sides:
        side.fresh_gradients()
        side.step()
    steps = 20 if settings.quick else STEPS
    warm = [_in_python(sides[0]) for _ in range(steps)]
    cold, whole, rival = [], [], []
    for _ in range(steps):
        cold.append(_in_python(sides[0]))
        for side, times in zip(sides, (whole, rival), strict=True):
            side.fresh_gradients()
            times.append(measure.seconds(side.step))
    return {
        "tensors": count,
        "elements_each": ELEMENTS,
        "python_in_a_row_seconds": measure.Quartiles.of(warm)._asdict(),
        "python_seconds": measure.Quartiles.of(cold)._asdict(),
        "step_seconds": measure.Quartiles.of(whole)._asdict(),
        "rival_step_seconds": measure.Quartiles.of(rival)._asdict(),
    }
