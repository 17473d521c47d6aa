"""Owns building ceiling.c with the system's compiler, running it on an optimizer's tensors. Must not know figures."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import cffi
import torch

SOURCE = Path(__file__).with_name("ceiling.c")
BLOCK = 256
DECLARATIONS = """
typedef struct stream { unsigned char *data; int64_t width; int32_t per_block; int32_t written; } stream;
uint64_t ceiling_run(const stream *streams, const int64_t *elements, const int64_t *first_block, int64_t rows,
                     int64_t streams_per_row, int32_t threads, uint64_t key);
"""
NATIVE = "-mcpu=native" if os.uname().machine == "aarch64" else "-march=native"

ffi = cffi.FFI()
ffi.cdef(DECLARATIONS)


class NoCompilerError(Exception):
    pass


def build():
    """The compiled kernel, or NoCompilerError with what the compiler said."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None or not shutil.which(compiler.split()[0]):
        raise NoCompilerError(f"no C compiler ({compiler or 'cc, gcc, clang'}): install one, or name it with CC")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "ceiling.so"
        command = [*compiler.split(), "-O3", NATIVE, "-fopenmp", "-fPIC", "-shared", "-o", target, SOURCE]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if result.returncode:
            raise NoCompilerError(f"{compiler} cannot build {SOURCE.name}: {result.stderr.strip()}")
        return ffi.dlopen(str(target), ffi.RTLD_NOW | ffi.RTLD_NODELETE)


class Ceiling:
    """One pass over everything that a step of `optimizer` reads and writes, in place, without changing a byte of it."""

    def __init__(self, library, optimizer, threads):
        params = [param for group in optimizer.param_groups for param in group["params"]]
        state = optimizer.__getstate__()["state"]  # optimizer.state would make our later steps look for edits
        rows = [_streams(param, state[param]) for param in params]
        self.bytes = sum(tensor.nbytes * (1 + written) for row in rows for tensor, _, written in row)
        # One call for all rows of one layout, as the library has it.
        layouts = [tuple((tensor.dtype, per_block) for tensor, per_block, _ in row) for row in rows]
        self._calls, self._gradients = [], []
        for layout in dict.fromkeys(layouts):
            mine = [i for i, other in enumerate(layouts) if other == layout]
            self._calls.append(_call([rows[i] for i in mine], [params[i] for i in mine], self._gradients))
        self._run, self._threads = library.ceiling_run, threads

    def point_to_gradients(self):
        """Takes the addresses of the gradients as they are now."""
        for stream, param in self._gradients:
            stream.data = ffi.cast("unsigned char *", param.grad.data_ptr())

    def __call__(self):
        for arguments in self._calls:
            self._run(*arguments, self._threads, 0)


def _streams(param, state):
    """(tensor, whether it has one number a block, whether it is written) of a parameter and its state."""
    moments = [(key, value) for key, value in state.items() if isinstance(value, torch.Tensor) and value.dim()]
    return [
        (param.grad, False, False),
        (param.detach(), False, True),
        *((value, key.endswith(("_absmax", "_floor")), True) for key, value in moments),
    ]


def _call(rows, params, gradients):
    """The arguments of ceiling_run for rows of one layout; the streams of their gradients are added to `gradients`."""
    streams = ffi.new("stream[]", sum(map(len, rows)))
    elements, first_block = [param.numel() for param in params], [0]
    number = 0
    for row, param, count in zip(rows, params, elements, strict=True):
        blocks = -(-count // BLOCK)
        first_block.append(first_block[-1] + blocks)
        gradients.append((streams[number], param))
        for tensor, per_block, written in row:
            if not tensor.is_contiguous() or tensor.numel() != (blocks if per_block else count):
                raise ValueError(
                    "the ceiling needs contiguous tensors and flat blocks (rows of less than 64 or n * 256)"
                )
            stream, number = streams[number], number + 1
            stream.data = ffi.cast("unsigned char *", tensor.data_ptr())
            stream.width, stream.per_block, stream.written = tensor.element_size(), per_block, written
    arrays = ffi.new("int64_t[]", elements), ffi.new("int64_t[]", first_block)
    return streams, *arrays, len(rows), len(rows[0])
