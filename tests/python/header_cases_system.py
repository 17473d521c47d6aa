"""Owns the cases for what lies in the system: its devices, its processor, its memory, its disks, a fork. As a script it
runs all cases of one kind of process, and prints what they returned. Must not know what the header says.

header_cases_system.py KIND LIBRARY REFUSALS   REFUSALS: refusals.c as a library, which must be loaded before all others
"""

import errno
import json
import sys

from header_cases import case, cases, run
from header_cases_device import on_device
from header_world import DEVICE_FAILS, DEVICE_FULL, FILE, HOST, PINNED

# ---- what is not here ------------------------------------------------------------------------------------------------


@case("cpu_kernel", "UNSUPPORTED", "kernel")
def _(w):
    return w.lib.adamw_cpu_kernel(w.make("char **"))


@case("step", "UNSUPPORTED", "kernel")
def _(w):
    return w.step()


@case("norm", "UNSUPPORTED", "kernel")
def _(w):
    return w.norm()


@cases("UNSUPPORTED", "quantize", "dequantize", kind="kernel")
def _(w, function):
    return w.quantize(function)


@cases("UNSUPPORTED", "split_weights", "join_weights", kind="kernel")
def _(w, function):
    return w.split(function)


@case("step", "UNSUPPORTED")
def _(w):
    return w.step(device=0)


@cases("UNSUPPORTED", "norm", "clip_factor")
def _(w, function):
    return getattr(w, function)(device=0)


@cases("UNSUPPORTED", "quantize", "dequantize")
def _(w, function):
    return w.quantize(function, device=0)


@cases("UNSUPPORTED", "split_weights", "join_weights")
def _(w, function):
    return w.split(function, device=0)


@case("pager_create", "UNSUPPORTED")
def _(w):
    return w.create(PINNED, device=0)


@case("pager_create", "UNSUPPORTED", "played")
def _(w):
    return w.create(PINNED, device=7)


# ---- a child of fork() -----------------------------------------------------------------------------------------------


def _inherited(w, call):
    """call(pager, buffer, usable) in a child; of the buffer, `usable` is acquired."""
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    usable = w.new_loan(pager, buffer)
    return w.in_child(lambda: call(pager, buffer, usable))


@case("step", "UNSUPPORTED")
def _(w):
    pager = w.new_pager(FILE)
    state = w.new_buffer(pager), w.new_buffer(pager)
    return w.in_child(lambda: w.step(pager=pager, state=state))


@case("pager_alloc", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.alloc(pager))


@case("pager_acquire", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.acquire(pager, buffer, 100))


@case("pager_release", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.release(pager, usable))


@case("pager_prefetch", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.prefetch(pager, buffer, 100))


@case("pager_wait", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.lib.adamw_pager_wait(pager))


@case("pager_stats", "UNSUPPORTED")
def _(w):
    return _inherited(w, lambda pager, buffer, usable: w.stats(pager))


# ---- memory and threads ----------------------------------------------------------------------------------------------


@case("step", "OUT_OF_MEMORY")
def _(w):
    return w.without_memory(tuple, lambda: w.step(rows=70))


@case("norm", "OUT_OF_MEMORY")
def _(w):
    return w.without_memory(tuple, lambda: w.norm(count=70))


@cases("OUT_OF_MEMORY", "quantize", "dequantize")
def _(w, function):
    return w.without_memory(tuple, lambda: w.quantize(function))


@cases("OUT_OF_MEMORY", "split_weights", "join_weights")
def _(w, function):
    return w.without_memory(tuple, lambda: w.split(function))


@case("pager_create", "OUT_OF_MEMORY")
def _(w):
    return w.without_memory(tuple, lambda: w.create(FILE))


@case("pager_alloc", "OUT_OF_MEMORY")
def _(w):
    return w.without_memory(lambda: (w.new_pager(HOST),), w.alloc)


@case("pager_acquire", "OUT_OF_MEMORY")
def _(w):
    def prepare():
        pager = w.new_pager(FILE)
        return pager, w.new_buffer(pager)

    return w.without_memory(prepare, w.acquire)


@case("pager_acquire", "OUT_OF_MEMORY")
def _without_threads(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    return w.refused("threads", 1, lambda: w.acquire(pager, buffer))


@case("step", "OUT_OF_MEMORY")
def _without_threads_of_a_pager(w):
    pager = w.new_pager(FILE)
    state = w.new_buffer(pager), w.new_buffer(pager)
    return w.refused("threads", 1, lambda: w.step(pager=pager, state=state))


@case("pager_release", "OUT_OF_MEMORY")
def _(w):
    def prepare():
        pager = w.new_pager(FILE)
        return pager, w.new_loan(pager, w.new_buffer(pager))

    return w.without_memory_beside_child(prepare, w.release)


# ---- disks -----------------------------------------------------------------------------------------------------------


@case("pager_create", "STORAGE")
def _(w):
    return w.create(FILE, directory=w.make("char[]", b"/no/such/directory"))


@case("pager_create", "STORAGE")
def _full(w):
    return w.refused("space", errno.ENOSPC, lambda: w.create(FILE, reserve_bytes=100_000))


@case("pager_alloc", "STORAGE")
def _(w):
    pager = w.new_pager(FILE)
    return w.refused("space", errno.ENOSPC, lambda: w.alloc(pager))


@case("pager_acquire", "STORAGE")
def _(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    return w.refused("reads", errno.EIO, lambda: w.acquire(pager, buffer))


@case("pager_release", "STORAGE")
def _(w):
    pager = w.new_pager(FILE)
    usable = w.new_loan(pager, w.new_buffer(pager))
    return w.refused("writes", errno.EIO, lambda: w.release(pager, usable))


@cases("STORAGE", "step")
def _(w, function):
    pager = w.new_pager(FILE)
    state = w.new_buffer(pager), w.new_buffer(pager)
    return w.refused("writes", errno.EIO, lambda: w.step(pager=pager, state=state))


@case("step", "STORAGE")
def _after_fork(w):
    pager = w.new_pager(FILE)
    state = w.new_buffer(pager), w.new_buffer(pager)

    def step_on_full_disk():
        return w.refused("space", errno.ENOSPC, lambda: w.step(pager=pager, state=state))

    return w.beside_child(step_on_full_disk)


# ---- what never fails for what lies in the system --------------------------------------------------------------------


@case("pager_free", "OK")
def _(w):
    def prepare():
        pager = w.new_pager(FILE)
        return pager, w.new_buffer(pager)

    return w.without_memory_beside_child(prepare, w.lib.adamw_pager_free)


@case("pager_free", "OK")
def _on_full_disk(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)

    def free_on_full_disk():
        return w.refused("space", errno.ENOSPC, lambda: w.lib.adamw_pager_free(pager, buffer))

    return w.beside_child(free_on_full_disk)


@case("pager_prefetch", "OK")
def _(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    return w.refused("reads", errno.EIO, lambda: w.prefetch(pager, buffer))


@case("pager_prefetch", "OK")
def _without_memory(w):
    def prepare():
        pager = w.new_pager(FILE)
        return pager, w.new_buffer(pager)

    return w.without_memory(prepare, w.prefetch)


@case("pager_prefetch", "OK")
def _without_threads_for_it(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    return w.refused("threads", 1, lambda: w.prefetch(pager, buffer))


if __name__ == "__main__":
    on_device("DEVICE", DEVICE_FAILS)
    on_device("OUT_OF_MEMORY", DEVICE_FULL)
    print(json.dumps(run(*sys.argv[1:])))
