"""Owns taking time on a CUDA device: events around single steps, contestants in turn, medians. Must not know bars."""

import functools
import importlib
import statistics
import time

import torch
from host import Timed

import pyadamw

# Bytes that a step moves for one element, parameters and gradients of `size` bytes each: gradient in, parameter in and
# out, state in and out. +16 and +8: with so many bits of remainder, for 32 and 24 bits of master weights.
STATE_BYTES = {
    "8bit": 4 + 16 / 256,
    "32bit": 16,
    "torch fused": None,
    "bitsandbytes": 4 + 16 / 256,
    "16bit": 8,
    "8bit+16": 8 + 16 / 256,
    "8bit+8": 6 + 16 / 256,
}


BUSY_CYCLES = 60_000_000  # some 30 ms


# What is queued before a call that is timed. The device waits for the host where that is slower; not after something
# else to do, as in training, nor after the call itself, which moreover finds the clock, the heat and the caches that it
# leaves, not those that others leave.
def nothing(_call):
    pass


def something_else(_call):
    torch.cuda._sleep(BUSY_CYCLES)


def itself(call):
    call()


def timed(call, ahead=nothing):
    """Seconds that the device takes for what `call` queues."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    ahead(call)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def in_turn(calls, budget, least=7, most=200, ahead=nothing):
    """The times of each call, taken in turn after two rounds that do not count. `ahead`: of timed()."""
    times = [[] for _ in calls]
    for _ in range(2):
        for call in calls:
            call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    while len(times[0]) < least or (time.perf_counter() - start < budget * len(calls) and len(times[0]) < most):
        for call, taken in zip(calls, times, strict=True):
            taken.append(timed(call, ahead))
    return times


def quartiles(times):
    q1, median, q3 = statistics.quantiles(times, n=4, method="inclusive")
    return {"median": median, "q1": q1, "q3": q3, "repetitions": len(times)}


def copy_ceiling(elements, budget):
    """What the card's memory moves when it does nothing else: a copy, counting bytes read and written."""
    source = torch.randn(elements, device="cuda")
    target = torch.empty_like(source)
    times = in_turn([lambda: target.copy_(source)], budget)[0]
    return {**quartiles(times), "bytes_per_second": 8 * elements / statistics.median(times)}


def links(quick):
    """GB/s between page-locked host memory and the device: each way, and both together."""
    count = 1 << (22 if quick else 27)
    here = [torch.empty(count, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
    there = [torch.empty(count, dtype=torch.uint8, device="cuda") for _ in range(2)]
    side = torch.cuda.Stream()

    def both():
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            here[1].copy_(there[1], non_blocking=True)
        there[0].copy_(here[0], non_blocking=True)
        torch.cuda.current_stream().wait_stream(side)

    ways = {
        "to device": (lambda: there[0].copy_(here[0], non_blocking=True), 1),
        "to host": (lambda: here[0].copy_(there[0], non_blocking=True), 1),
        "both": (both, 2),
    }
    taken = in_turn([call for call, _ in ways.values()], 0.3)
    return {
        name: round(factor * count / statistics.median(times) / 1e9, 1)
        for (name, (_, factor)), times in zip(ways.items(), taken, strict=True)
    }


def contestants(dtype):
    """{who: makes an optimizer of parameters}"""
    result = {
        "8bit": pyadamw.AdamW8bit,
        "32bit": pyadamw.AdamW32bit,
        "torch fused": lambda params: torch.optim.AdamW(params, fused=True),
    }
    if dtype == torch.bfloat16:
        result["16bit"] = pyadamw.AdamW16bit
        result["8bit+16"] = functools.partial(pyadamw.AdamW8bit, master_weight_bits=32)
        result["8bit+8"] = functools.partial(pyadamw.AdamW8bit, master_weight_bits=24)
    try:
        result["bitsandbytes"] = importlib.import_module("bitsandbytes.optim").AdamW8bit
    except Exception as error:  # whatever a foreign package throws: the benchmark goes on
        print(f"bitsandbytes: not measured ({type(error).__name__})")
    return result


def contest(shapes, dtype, budget, size):
    """Times one step of each contestant in turn, each on its own random parameters and gradients. Of a single tensor
    the second of two steps, and a copy of as many elements beside them."""
    calls, entries = [], []
    elements = sum(torch.Size(shape).numel() for shape in shapes)
    width = 4 if dtype == torch.float32 else 2

    def enter(who, bytes_each):
        entry = {"size": size, "who": who, "dtype": "fp32" if width == 4 else "bf16", "tensors": len(shapes)}
        entry.update(elements=elements, bytes=elements * bytes_each, median=None, note=None)
        entries.append(entry)
        return entry

    for who, make in contestants(dtype).items():
        entry = enter(who, 3 * width + (2 * 2 * width if who == "torch fused" else STATE_BYTES[who]))
        try:
            params = [torch.nn.Parameter(torch.randn(shape, device="cuda", dtype=dtype) * 0.02) for shape in shapes]
            for param in params:
                param.grad = torch.randn_like(param)
            optimizer = make(params)
            optimizer.step()
            torch.cuda.synchronize()
            calls.append((entry, optimizer.step))
        except Exception as error:
            entry["note"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    alone = len(shapes) == 1
    if alone:
        source = torch.randn(shapes[0], device="cuda", dtype=dtype)
        target = torch.empty_like(source)
        calls.append((enter("copy", 2 * width), lambda: target.copy_(source)))
    measured, steps = zip(*calls, strict=True)
    ahead = itself if alone else nothing
    for entry, times in zip(measured, in_turn(steps, budget, ahead=ahead), strict=True):
        entry.update(quartiles(times), ahead=ahead.__name__, busy_median=None)
    if not alone:
        for entry, times in zip(measured, in_turn(steps, 0.0, ahead=something_else), strict=True):
            entry["busy_median"] = statistics.median(times)
    del calls, steps
    torch.cuda.empty_cache()
    return [entry for entry in entries if entry["median"] is not None or entry["note"]]


class HostTimes:
    """Of several cases, each an optimizer and its shapes, in rounds that lie apart: a processor that others use, too,
    takes up to twice as long for some seconds. What counts is the round with the least median; the others are named."""

    def __init__(self, cases, repetitions):
        self.cases, self.repetitions = cases, repetitions
        self.rounds = [[] for _ in cases]

    def round(self):
        for case, done in zip(self.cases, self.rounds, strict=True):
            done.append(host_time(*case, self.repetitions))

    def results(self):
        best = [min(done, key=lambda entry: entry["median"]) for done in self.rounds]
        return [
            {**entry, "medians": [other["median"] for other in done]}
            for entry, done in zip(best, self.rounds, strict=True)
        ]


def host_time(optimizer_class, shapes, repetitions):
    """Seconds of the CPU in step(); the device is idle before. With gradients at new addresses each time (what a
    training loop does), of these the part in the library and the driver, and with the same gradients again."""
    params = [torch.nn.Parameter(torch.zeros(shape, device="cuda")) for shape in shapes]
    optimizer = optimizer_class(params)
    fresh, library, again = [], [], []
    for _ in range(repetitions + 3):
        for param in params:
            param.grad = torch.randn_like(param)
        if not fresh:
            optimizer.step()
        timed = Timed(optimizer)
        for times in (fresh, again):
            torch.cuda.synchronize()
            start = time.perf_counter()
            optimizer.step()
            times.append(time.perf_counter() - start)
            if times is fresh:
                library.append(timed.seconds)
    parts = {"library": quartiles(library[3:]), "same_gradients": quartiles(again[3:])}
    calls = len(optimizer._cache.plan.buckets)  # each has a launch
    return {"who": optimizer_class.__name__, "tensors": len(shapes), "calls": calls, **quartiles(fresh[3:]), **parts}
