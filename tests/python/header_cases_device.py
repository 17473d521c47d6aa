"""Owns the cases for CUDA devices, which the CPU plays: a driver that fails. Must not know what the header says."""

from header_cases import case, cases
from header_world import MANAGED, PINNED


def on_device(status, failure):
    """The cases of a status that the driver causes."""

    def prepare(w, backing):
        pager = w.new_pager(backing)
        return pager, w.new_buffer(pager)

    @case("step", status, "played")
    def _(w):
        w.step()
        return w.failing(failure, lambda: None, lambda _: w.step())

    @cases(status, "norm", "clip_factor", kind="played")
    def _(w, function):
        getattr(w, function)()
        return w.failing(failure, lambda: None, lambda _: getattr(w, function)())

    @cases(status, "quantize", "dequantize", kind="played")
    def _(w, function):
        w.quantize(function)
        return w.failing(failure, lambda: None, lambda _: w.quantize(function))

    @cases(status, "split_weights", "join_weights", kind="played")
    def _(w, function):
        w.split(function)
        return w.failing(failure, lambda: None, lambda _: w.split(function))

    for backing in (PINNED, MANAGED):

        @case("pager_create", status, "played")
        def _(w, backing=backing):
            return w.failing(failure, w.step, lambda _: w.create(backing))

        @case("pager_alloc", status, "played")
        def _(w, backing=backing):
            return w.failing(failure, lambda: w.new_pager(backing), w.alloc)

        @case("pager_acquire", status, "played")
        def _(w, backing=backing):
            return w.failing(failure, lambda: prepare(w, backing), lambda prepared: w.acquire(*prepared))

        @case("pager_release", status, "played")
        def _(w, backing=backing):
            def lend():
                pager, buffer = prepare(w, backing)
                return pager, w.new_loan(pager, buffer)

            return w.failing(failure, lend, lambda prepared: w.release(*prepared))

    @case("pager_wait", status, "played")
    def _(w):
        return w.failing(failure, lambda: w.new_pager(PINNED), w.lib.adamw_pager_wait)

    @case("pager_prefetch", "OK", "played")
    def _(w):
        pager = w.new_pager(MANAGED)
        return w.failing(failure, lambda: w.new_buffer(pager), lambda buffer: w.prefetch(pager, buffer))

    @case("pager_free", "OK", "played")
    def _(w):
        pager = w.new_pager(PINNED)
        return w.failing(failure, lambda: w.new_buffer(pager), lambda buffer: w.lib.adamw_pager_free(pager, buffer))
