"""Owns what cases of statuses need: the library, calls that are right but for what a case says, a system and a driver
that fail. Must not know what the header says. It imports no torch: processes are made for it.
"""

import ctypes
import functools
import importlib.util
import os
from pathlib import Path

_spec = importlib.util.spec_from_file_location("cdef", Path(__file__).parents[2] / "pyadamw" / "_native" / "cdef.py")
_cdef = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_cdef)
ffi = _cdef.ffi

HOST, FILE, PINNED, MANAGED = range(4)  # adamw_place
COUNT = 5000  # elements of a tensor
ROW, GRADIENT, STATISTICS = map(ffi.sizeof, ("adamw_tensor", "adamw_gradient", "adamw_pager_statistics"))
DEVICE_FAILS, DEVICE_FULL = 719, 2  # CUDA's numbers


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
        self.childs_error = None

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

    def norm(self, count=3, **options):
        table = self.make("adamw_gradient[]", max(count, 1))
        for row in table:
            row.grad, row.numel = self.make("float[]", COUNT), COUNT
        options = self.options("norm", **{"device": self.device, **options})
        return self.lib.adamw_norm(options, table, GRADIENT, count, self.make("double *"))

    def clip_factor(self, count=1, **options):
        options = self.options("clip", **{"device": self.device, **options})
        squares, norm, factor = self.make("double[]", 1), self.make("float *"), self.make("float *")
        return self.lib.adamw_clip_factor(options, squares, count, norm, factor)

    def quantize(self, function="quantize", **options):
        values = {"device": self.device, "moment": 1, "numel": 256, "row_length": 256, **options}
        floats, codes = self.make("float[]", 256), self.make("uint8_t[]", 256)
        scale, floor = (self.make("float[]", 1) for _ in range(2))
        order = (floats, codes, scale, floor) if function == "quantize" else (codes, scale, floor, floats)
        return getattr(self.lib, f"adamw_{function}")(self.options("quantize", **values), *order)

    def split(self, function="split_weights", **options):
        values = {"device": self.device, "numel": 256, **options}
        weights, param, remainder = self.make("float[]", 256), self.make("uint16_t[]", 256), self.make("int16_t[]", 256)
        order = (weights, param, remainder) if function == "split_weights" else (param, remainder, weights)
        return getattr(self.lib, f"adamw_{function}")(self.options("split", **values), *order)

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
        """The first status but ADAMW_OK of call(*prepare()) in which one allocation of the library's fails: the first,
        the second, ..."""
        for number in range(1, 100):
            status, failed = self._without_one(number, call, prepare())
            if status or not failed:
                return status
        return 0

    def _without_one(self, number, call, arguments):
        self.system.refuse_allocation(number)
        status = call(*arguments)
        return status, self.system.refuse_allocation(0) == 0

    def without_memory_beside_child(self, prepare, call):
        """The same while a child lives that was forked before each call."""
        for number in range(1, 100):
            arguments = prepare()
            status, failed = self.beside_child(functools.partial(self._without_one, number, call, arguments))
            if status or not failed:
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
        ours, childs = os.pipe()
        child = os.fork()
        if child == 0:
            status = call()
            os.write(childs, self.error().encode())
            os._exit(status)
        os.close(childs)
        with os.fdopen(ours) as said:
            self.childs_error = said.read()
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
