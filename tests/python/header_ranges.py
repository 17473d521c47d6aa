"""Owns asking the library for the ranges of adamw.h: a call for each, with a value in its place and all else right. No
call of these does more than check. Must not know what the header says.
"""

import functools

from pyadamw._native.library import ffi, library, new_options, text

NUMEL, CHUNK, LEAST_PAGED = 512, 65536, 4 * 65536
NAMES = {"numel": NUMEL, "chunk_bytes": CHUNK}  # what ends of ranges refer to
HOST, FILE = 0, 1  # adamw_place
INVALID_ARGUMENT, VERSION = 1, 2
LARGEST = 4096 + 8  # more bytes than any struct may have


def verdict(call, name, value):
    """Whether `value` is in the range of `name`: False if call(value) refuses it for that; None if C cannot hold it."""
    try:
        status, said = call(value)
    except OverflowError:
        return None
    refused = VERSION if name.endswith("size") else INVALID_ARGUMENT
    return not (status == refused and (f"{name} = " in said or f"{name}[0] = " in said))


def _said(status):
    return int(status), text(library().lib.adamw_last_error())


def _step(rows=None, count=0, **options):
    values = new_options("adamw_step_options")
    for name, value in options.items():
        setattr(values, name, value)
    table = ffi.NULL if rows is None else rows
    return _said(library().lib.adamw_step(values, table, ffi.sizeof("adamw_tensor"), count))


def _in_row(field, value):
    """A row without memory: what is right is refused after its numbers, for that."""
    row = ffi.new("adamw_tensor *", {"numel": NUMEL, "row_length": NUMEL, "step": 1})
    row.run_stride = NUMEL if field == "run_length" and value else 0
    setattr(row, field, value)
    return _step(row, 1)


def _behind_pointer(call, kind="float *"):
    """call(value) with a pointer to the value instead of it."""
    return lambda value: call(ffi.new(kind, value))


def _sized(kind, call):
    """call(options) with options of `value` bytes, of which those beyond the known fields are 0."""

    def with_size(value):
        memory, known = ffi.new("char[]", LARGEST), new_options(kind)
        ffi.memmove(memory, known, ffi.sizeof(kind))
        options = ffi.cast(f"{kind} *", memory)
        options.size = value
        return _said(call(options))

    return with_size


def _sized_step(options):
    return library().lib.adamw_step(options, ffi.NULL, ffi.sizeof("adamw_tensor"), 0)


def _sized_norm(options):
    return library().lib.adamw_norm(options, ffi.NULL, ffi.sizeof("adamw_gradient"), 0, ffi.new("double *"))


def _sized_clip(options):
    return library().lib.adamw_clip_factor(options, ffi.new("double *"), 1, ffi.NULL, ffi.new("float *"))


def _sized_quantize(options):
    return library().lib.adamw_quantize(options, ffi.NULL, ffi.NULL, ffi.NULL, ffi.NULL)


def _sized_dequantize(options):
    return library().lib.adamw_dequantize(options, ffi.NULL, ffi.NULL, ffi.NULL, ffi.NULL)


def _sized_split(options):
    return library().lib.adamw_split_weights(options, ffi.NULL, ffi.NULL, ffi.NULL)


def _sized_join(options):
    return library().lib.adamw_join_weights(options, ffi.NULL, ffi.NULL, ffi.NULL)


def _sized_create(options):
    pager = ffi.new("adamw_pager **")
    status = library().lib.adamw_pager_create(options, pager)
    assert status or not library().lib.adamw_pager_destroy(pager[0])
    return status


def _sized_init(kind):
    memory = ffi.new("char[]", LARGEST)
    init = getattr(library().lib, f"{kind}_init")
    return lambda value: _said(init(ffi.cast(f"{kind} *", memory), value))


def _sized_rows(value):
    return _said(library().lib.adamw_step(new_options("adamw_step_options"), ffi.NULL, value, 0))


def _sized_gradients(value):
    options = new_options("adamw_norm_options")
    return _said(library().lib.adamw_norm(options, ffi.NULL, value, 0, ffi.new("double *")))


def _sized_stats(value):
    memory = ffi.new("char[]", LARGEST)

    def body(lib, pager, buffer):
        return _said(lib.adamw_pager_stats(pager, ffi.cast("adamw_pager_statistics *", memory), value))

    return _with_pager(HOST, body)


def _quantize(function, field, value):
    options = new_options("adamw_quantize_options")
    options.numel = options.row_length = 0 if field == "num_threads" else NUMEL
    setattr(options, field, value)
    return _said(getattr(library().lib, f"adamw_{function}")(options, *[ffi.NULL] * 4))


def _norm(count=0, gradients=ffi.NULL, **options):
    values = new_options("adamw_norm_options")
    for name, value in options.items():
        setattr(values, name, value)
    size = ffi.sizeof("adamw_gradient")
    return _said(library().lib.adamw_norm(values, gradients, size, count, ffi.new("double *")))


def _of_gradient(value):
    """A gradient without memory: what is right is refused after its number, for that."""
    return _norm(1, ffi.new("adamw_gradient *", {"numel": value}))


def _clip(count=1, **options):
    """Of one sum, or without any: what is right is refused after the count, for that."""
    values = new_options("adamw_clip_options")
    for name, value in options.items():
        setattr(values, name, value)
    squares = ffi.new("double *") if count == 1 else ffi.NULL
    return _said(library().lib.adamw_clip_factor(values, squares, count, ffi.NULL, ffi.new("float *")))


def _split(function, field, value):
    options = new_options("adamw_split_options")
    options.numel = 0 if field == "num_threads" else NUMEL
    setattr(options, field, value)
    return _said(getattr(library().lib, f"adamw_{function}")(options, *[ffi.NULL] * 3))


def create(**values):
    """adamw_pager_create(); what it makes is given back."""
    options, pager = new_options("adamw_pager_options"), ffi.new("adamw_pager **")
    nowhere = ffi.new("char[]", b"/no/such/directory")  # after all is right, it ends here
    for name, value in values.items():
        setattr(options, name, value)
    if options.backing == FILE:
        options.directory = nowhere
    result = _said(library().lib.adamw_pager_create(options, pager))
    library().check(library().lib.adamw_pager_destroy(pager[0]))
    return result


def _describe(value):
    options = new_options("adamw_describe_options")
    options.describe = ffi.callback("adamw_dlpack_function", lambda item, tensor: 1)
    options.item = ffi.callback("adamw_item_function", lambda sequence, index: ffi.NULL)
    options.count = value
    return _said(library().lib.adamw_describe_tensors(ffi.NULL, options))


def _set_num_threads(value):
    result = _said(library().lib.adamw_set_num_threads(value))
    library().lib.adamw_set_num_threads(0)
    return result


def _layout(numel=NUMEL, row_length=None):
    layout = ffi.new("adamw_state_layout *")
    row_length = max(numel, 1) if row_length is None else row_length
    return _said(library().lib.adamw_get_state_layout(1, numel, row_length, 0, 0, layout))


def _with_pager(backing, body):
    options, pager, buffer = new_options("adamw_pager_options"), ffi.new("adamw_pager **"), ffi.new("void **")
    options.backing, options.chunk_bytes = backing, CHUNK
    lib = library()
    lib.check(lib.lib.adamw_pager_create(options, pager))
    try:
        return body(lib.lib, pager[0], buffer)
    finally:
        lib.check(lib.lib.adamw_pager_free(pager[0], buffer[0]))
        lib.check(lib.lib.adamw_pager_destroy(pager[0]))


def _alloc(value):
    return _with_pager(HOST, lambda lib, pager, buffer: _said(lib.adamw_pager_alloc(pager, value, buffer, ffi.NULL)))


def _acquire(value):
    def body(lib, pager, buffer):
        usable = ffi.new("void **")
        library().check(lib.adamw_pager_alloc(pager, 3 * CHUNK, buffer, ffi.NULL))
        result = _said(lib.adamw_pager_acquire(pager, buffer[0], value, ffi.NULL, usable))
        if usable[0]:
            library().check(lib.adamw_pager_release(pager, usable[0], 1, ffi.NULL))
        return result

    return _with_pager(FILE, body)


_FIELDS = ("numel", "row_length", "step", "global_offset", "run_length")
_OPTIONS = ("lr", "beta1", "beta2", "eps", "weight_decay", "max_unorm", "percentile_clipping", "num_threads")
_QUANTIZED = ("num_threads", "numel", "row_length", "step", "global_offset")
# {(struct or function, field or parameter): the calls that ask for it}
CALLS = {
    **{("adamw_tensor", name): [functools.partial(_in_row, name)] for name in _FIELDS},
    ("adamw_tensor", "step_tensor"): [_behind_pointer(functools.partial(_in_row, "step_tensor"))],
    **{("adamw_step_options", name): [lambda value, name=name: _step(**{name: value})] for name in _OPTIONS},
    **{
        ("adamw_step_options", name): [_behind_pointer(lambda value, name=name: _step(**{name: value}))]
        for name in ("grad_scale", "lr_tensor", "grad_factor")
    },
    ("adamw_norm_options", "num_threads"): [lambda value: _norm(num_threads=value)],
    ("adamw_gradient", "numel"): [_of_gradient],
    ("adamw_clip_options", "max_norm"): [lambda value: _clip(max_norm=value)],
    **{
        ("adamw_quantize_options", name): [functools.partial(_quantize, f, name) for f in ("quantize", "dequantize")]
        for name in _QUANTIZED
    },
    **{
        ("adamw_split_options", name): [functools.partial(_split, f, name) for f in ("split_weights", "join_weights")]
        for name in ("num_threads", "numel", "step", "global_offset")
    },
    ("adamw_pager_options", "resident_bytes"): [lambda value: create(resident_bytes=value)],
    ("adamw_pager_options", "chunk_bytes"): [
        lambda value: create(chunk_bytes=value),
        lambda value: create(chunk_bytes=value, backing=FILE),
    ],
    ("adamw_pager_options", "reserve_bytes"): [lambda value: create(reserve_bytes=value, backing=FILE)],
    ("adamw_describe_options", "count"): [_describe],
    ("adamw_step_options", "size"): [_sized("adamw_step_options", _sized_step)],
    ("adamw_norm_options", "size"): [_sized("adamw_norm_options", _sized_norm)],
    ("adamw_clip_options", "size"): [_sized("adamw_clip_options", _sized_clip)],
    ("adamw_quantize_options", "size"): [
        _sized("adamw_quantize_options", call) for call in (_sized_quantize, _sized_dequantize)
    ],
    ("adamw_split_options", "size"): [_sized("adamw_split_options", call) for call in (_sized_split, _sized_join)],
    ("adamw_pager_options", "size"): [_sized("adamw_pager_options", _sized_create)],
    **{
        (f"adamw_{kind}_options_init", "size"): [_sized_init(f"adamw_{kind}_options")]
        for kind in ("step", "norm", "clip", "quantize", "split", "pager")
    },
    ("adamw_step", "tensor_size"): [_sized_rows],
    ("adamw_pager_stats", "size"): [_sized_stats],
    ("adamw_step", "count"): [lambda value: _step(count=value)],
    ("adamw_norm", "gradient_size"): [_sized_gradients],
    ("adamw_norm", "count"): [lambda value: _norm(count=value)],
    ("adamw_clip_factor", "count"): [_clip],
    ("adamw_set_num_threads", "num_threads"): [_set_num_threads],
    ("adamw_get_state_layout", "numel"): [_layout],
    ("adamw_get_state_layout", "row_length"): [lambda value: _layout(row_length=value)],
    ("adamw_pager_alloc", "bytes"): [_alloc],
    ("adamw_pager_acquire", "bytes"): [_acquire],
}
# Those of which C has a single or a double.
SINGLES = ("step_tensor", "grad_scale", "lr_tensor", "grad_factor")
DOUBLES = ("lr", "beta1", "beta2", "eps", "weight_decay", "max_unorm", "max_norm")
