"""Owns a case for every status that adamw.h lists: a call that returns it. Here are those that are the caller's own
fault, and what all cases need. Must not know what the header says. It imports no torch: processes are made for it.
"""

import ctypes
import importlib.util
import os
import tempfile
from pathlib import Path

_spec = importlib.util.spec_from_file_location("cdef", Path(__file__).parents[2] / "pyadamw" / "_cdef.py")
_cdef = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cdef)
ffi = _cdef.ffi

HOST, FILE, PINNED, MANAGED = range(4)  # adamw_place
COUNT = 5000  # elements of a tensor
ROW, STATISTICS = map(ffi.sizeof, ("adamw_tensor", "adamw_pager_statistics"))
DEVICE_FAILS, DEVICE_FULL = 719, 2  # CUDA's numbers
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


class World:
    """The library, and what calls of it need."""

    def __init__(self, kind, library, refusals):
        self.lib = ffi.dlopen(library)
        self.played = kind == "played"
        self.device = 0 if self.played else -1
        self.system = ctypes.CDLL(refusals)
        self.system.refusals_begin()
        self.driver = ctypes.CDLL(library).played_failure if self.played else None
        self.kept = []  # memory that C points to

    def make(self, kind, *arguments):
        self.kept.append(ffi.new(kind, *arguments))
        return self.kept[-1]

    def options(self, kind, **values):
        options = self.make(f"adamw_{kind}_options *")
        assert getattr(self.lib, f"adamw_{kind}_options_init")(options, ffi.sizeof(f"adamw_{kind}_options")) == 0
        for name, value in values.items():
            setattr(options, name, value)
        return options

    # ---- calls that are right but for what is said ----

    def step(self, rows=1, size=ROW, state=None, **options):
        """`state`: addresses of both moments of one tensor."""
        table = self.make("adamw_tensor[]", max(rows, 1))
        for row in table:
            row.numel = row.row_length = COUNT
            row.step = 1
            row.param, row.grad = (self.make("float[]", COUNT) for _ in range(2))
            row.exp_avg, row.exp_avg_sq = state or (self.make("float[]", COUNT) for _ in range(2))
        options = self.options("step", **{"device": self.device, **options})
        return self.lib.adamw_step(options, table, size, rows)

    def quantize(self, function="quantize", **options):
        values = {"device": self.device, "numel": 256, "row_length": 256, **options}
        floats, codes, scales = self.make("float[]", 256), self.make("uint8_t[]", 256), self.make("float[]", 1)
        order = (floats, codes, scales) if function == "quantize" else (codes, scales, floats)
        return getattr(self.lib, f"adamw_{function}")(self.options("quantize", **values), *order)

    def create(self, backing=HOST, **options):
        self.pager = self.make("adamw_pager **")
        if backing == FILE:
            options.setdefault("chunk_bytes", 65536)
        device = self.device if backing in (PINNED, MANAGED) else -1
        options = {"backing": backing, "device": device, **options}
        return self.lib.adamw_pager_create(self.options("pager", **options), self.pager)

    def new_pager(self, backing=HOST, **options):
        assert self.create(backing, **options) == 0, self.error()
        return self.pager[0]

    def alloc(self, pager, size=4 * COUNT):
        self.buffer = self.make("void **")
        return self.lib.adamw_pager_alloc(pager, size, self.buffer, ffi.NULL)

    def new_buffer(self, pager):
        assert self.alloc(pager) == 0, self.error()
        return self.buffer[0]

    def acquire(self, pager, address, size=4 * COUNT):
        self.usable = self.make("void **")
        return self.lib.adamw_pager_acquire(pager, address, size, ffi.NULL, self.usable)

    def new_loan(self, pager, address):
        assert self.acquire(pager, address) == 0, self.error()
        return self.usable[0]

    def release(self, pager, usable, dirty=1):
        return self.lib.adamw_pager_release(pager, usable, dirty, ffi.NULL)

    def prefetch(self, pager, address, size=4 * COUNT):
        return self.lib.adamw_pager_prefetch(pager, address, size, ffi.NULL)

    def stats(self, pager, size=STATISTICS):
        return self.lib.adamw_pager_stats(pager, self.make("adamw_pager_statistics *"), size)

    # ---- circumstances ----

    def error(self):
        return ffi.string(self.lib.adamw_last_error()).decode()

    def without_memory(self, prepare, call):
        """The first status but ADAMW_OK of call(prepare()) in which one allocation of the library's fails: the first,
        the second, ..."""
        for number in range(1, 100):
            prepared = prepare()
            self.system.refuse_allocation(number)
            status = call(prepared)
            if status or self.system.refuse_allocation(0) > 0:
                self.system.refuse_allocation(0)
                return status
        return 0

    def refused(self, what, error, call):
        """What call() returns while the system refuses something."""
        refuse = getattr(self.system, f"refuse_{what}")
        refuse(error)
        try:
            return call()
        finally:
            refuse(0)

    def failing(self, failure, prepare, call):
        """The status of call(prepare()) in which the first call of the driver fails."""
        prepared = prepare()
        self.driver(1, failure)
        status = call(prepared)
        self.driver(0, 0)
        return status

    def in_child(self, call):
        """What call() returns in a child of fork()."""
        child = os.fork()
        if child == 0:
            os._exit(call())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def beside_child(self, call):
        """What call() returns while a child lives that was forked before it."""
        ours, childs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(childs)
            os.read(ours, 1)
            os._exit(0)
        os.close(ours)
        try:
            return call()
        finally:
            os.close(childs)
            os.waitpid(child, 0)

    def beside_child_without_memory(self, prepare, call):
        """Both at a time."""
        return self.without_memory(prepare, lambda prepared: self.beside_child(lambda: call(*prepared)))


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
                status = body(world)
                results.append([function, wanted, names.get(status, str(status)), world.error()])
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
    return w.lib.adamw_get_state_layout(1, 10, 3, 0, w.make("adamw_state_layout *"))


@case("codebook", "INVALID_ARGUMENT")
def _(w):
    return w.lib.adamw_codebook(7, w.make("float[256]"))


INITS = ("step_options_init", "quantize_options_init", "pager_options_init", "describe_options_init")


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
    return w.step(size=120)


@cases("INVALID_ARGUMENT", "quantize", "dequantize")
def _(w, function):
    return w.quantize(function, map=5)


@cases("VERSION", "quantize", "dequantize")
def _(w, function):
    return w.quantize(function, size=8)


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
