"""Owns taking time: interleaved pairs and their quartiles. Must not know what is timed."""

import gc
import statistics
import time
from typing import NamedTuple


class Quartiles(NamedTuple):
    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, values):
        if len(values) == 1:
            return cls(*values * 3)
        q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, q1, q3)


class Pairs(NamedTuple):
    """Seconds of two things that were timed in turn, and the ratios of neighbours."""

    first: list
    second: list

    def ratio(self):
        return Quartiles.of([a / b for a, b in zip(self.first, self.second, strict=True)])


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def paired(first, second, prepare, least, most, budget):
    """Times first, second, first, second ...: at least `least` pairs, then more until `budget` seconds or `most` pairs.

    `prepare(0)` is called before each `first`, `prepare(1)` before each `second`, outside the time. What ran last
    before a turn is always the other one, so both find the caches in the same state. The first pair is not counted.
    """
    calls, times = (first, second), ([], [])
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        while len(times[0]) <= least or (time.perf_counter() - start < budget and len(times[0]) <= most):
            for number, call in enumerate(calls):
                prepare(number)
                times[number].append(seconds(call))
    finally:
        gc.enable()
    return Pairs(times[0][1:], times[1][1:])
