"""Owns a case for every status that adamw.h lists: a call that returns it. Here are those that are the caller's own
fault. Must not know what the header says.
"""

import os
import tempfile

from header_world import FILE, World, ffi

# (kind of process, function, status, body). The kinds: cpu; kernel, where ADAMW_CPU names none; played, with a library
# whose CUDA device the CPU plays.
CASES = []


def case(function, status, kind="cpu"):
    """body(world) returns the status, of a call of that function."""

    def note(body):
        CASES.append((kind, f"adamw_{function}", status, body))
        return body

    return note


def cases(status, *functions, kind="cpu"):
    """body(world, function) for several functions."""

    def note(body):
        for function in functions:
            case(function, status, kind)(lambda world, function=function: body(world, function))
        return body

    return note


def run(kind, library, refusals):
    """What the cases of a kind return: [[function, the status of the case, status, message], ...]."""
    names = {
        value: name.removeprefix("ADAMW_").removeprefix("ERROR_")
        for value, name in ffi.typeof("adamw_status").elements.items()
    }
    world, results = World(kind, library, refusals), []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.environ["TMPDIR"] = folder
        for of, function, wanted, body in CASES:
            if of == kind:
                world.childs_error = None
                status = body(world)
                said = world.error() if world.childs_error is None else world.childs_error
                results.append([function, wanted, names.get(status, str(status)), said])
    return results


# ---- arguments -------------------------------------------------------------------------------------------------------


@case("set_num_threads", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_set_num_threads(-1)


@case("cpu_kernel", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_cpu_kernel(ffi.NULL)


@case("get_state_layout", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_get_state_layout(1, 10, 3, 0, 0, w.make("adamw_state_layout *"))


INITS = tuple(f"{kind}_options_init" for kind in ("step", "norm", "clip", "quantize", "split", "pager", "describe"))


@cases("INVALID_ARGUMENT", *INITS)
def _(w, function):
    return getattr(w.lib, f"adamw_{function}")(ffi.NULL, 8)


@cases("VERSION", *INITS)
def _(w, function):
    return getattr(w.lib, f"adamw_{function}")(w.make(f"adamw_{function.removesuffix('_init')} *"), 8)


@case("step", "INVALID_ARGUMENT")
def _(w):
    return w.step(lr=-1.0)


@case("step", "VERSION")
def _(w):
    return w.step(size=96)


@case("norm", "INVALID_ARGUMENT")
def _(w):
    return w.norm(count=-1)


@case("norm", "VERSION")
def _(w):
    return w.norm(size=8)


@case("clip_factor", "INVALID_ARGUMENT")
def _(w):
    return w.clip_factor(count=0)


@case("clip_factor", "VERSION")
def _(w):
    return w.clip_factor(size=8)


@cases("INVALID_ARGUMENT", "quantize", "dequantize")
def _(w, function):
    return w.quantize(function, moment=5)


@cases("VERSION", "quantize", "dequantize")
def _(w, function):
    return w.quantize(function, size=8)


@cases("INVALID_ARGUMENT", "split_weights", "join_weights")
def _(w, function):
    return w.split(function, remainder_bits=0)


@cases("VERSION", "split_weights", "join_weights")
def _(w, function):
    return w.split(function, size=8)


@case("describe_tensors", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_describe_tensors(ffi.NULL, w.options("describe"))


@case("describe_tensors", "VERSION")
def _(w):
    return w.lib.adamw_describe_tensors(ffi.NULL, w.options("describe", form_size=8))


@case("pager_create", "INVALID_ARGUMENT")
def _(w):
    return w.create(chunk_bytes=5)


@case("pager_create", "VERSION")
def _(w):
    return w.create(size=5)


@case("pager_destroy", "INVALID_ARGUMENT")
def _(w):
    pager = w.new_pager()
    w.new_buffer(pager)
    return w.lib.adamw_pager_destroy(pager)


@case("pager_alloc", "INVALID_ARGUMENT")
def _(w):
    return w.alloc(w.new_pager(), 0)


@case("pager_free", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_pager_free(w.new_pager(), w.make("char[8]"))


@case("pager_acquire", "INVALID_ARGUMENT")
def _(w):
    return w.acquire(w.new_pager(), w.make("char[8]"), 8)


@case("pager_acquire", "INVALID_ARGUMENT")
def _overlaps(w):
    pager = w.new_pager(FILE)
    buffer = w.new_buffer(pager)
    w.new_loan(pager, buffer)
    return w.acquire(pager, buffer + 100, 100)


@case("pager_release", "INVALID_ARGUMENT")
def _(w):
    return w.release(w.new_pager(), w.make("char[8]"))


@case("pager_prefetch", "INVALID_ARGUMENT")
def _(w):
    return w.prefetch(w.new_pager(), w.make("char[8]"), 8)


@case("pager_wait", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_pager_wait(ffi.NULL)


@case("pager_stats", "INVALID_ARGUMENT")
def _(w):
    return w.stats(ffi.NULL)


@case("pager_stats", "VERSION")
def _(w):
    return w.stats(w.new_pager(), 8)
