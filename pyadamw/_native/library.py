"""Owns finding, loading and checking libadamw, and turning its statuses into exceptions. Must not know what a step is.

torch is imported before the library is opened, so that both use one OpenMP thread pool. A process opens one library.
Each library has the CPU kernels; a library for CUDA needs a driver only when a tensor is on a GPU. Nothing here calls
CUDA.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

from ..errors import (
    InternalError,
    InvalidArgumentError,
    LibraryNotFoundError,
    UnsupportedError,
    VersionError,
)
from . import cdef, load_errors, openmp
from .constants import BY_STATUS, DTYPE_NAMES, DTYPES
from .messages import in_python

ENVIRONMENT = "PYADAMW_LIBRARY"
PACKAGED = Path(__file__).resolve().parents[1] / "lib"
INSTALLED = Path(sys.prefix) / "lib" / "libadamw.so.1"  # a separate package, as in conda; for the CPU or for one CUDA
CUDA_MAJORS = ("12", "13")

ffi = cdef.ffi


def _check_declarations() -> None:
    """Checks that the structs have the same layout in cffi as in the assertions of the header."""
    for name, size in cdef.SIZES.items():
        if ffi.sizeof(name) != size:
            raise VersionError(f"pyadamw: sizeof({name}) is {ffi.sizeof(name)} here, but {size} in adamw.h")
    for (name, field), offset in cdef.OFFSETS.items():
        if ffi.offsetof(name, field) != offset:
            raise VersionError(
                f"pyadamw: {name}.{field} is at {ffi.offsetof(name, field)} here, but at {offset} in adamw.h"
            )


def cuda_major() -> str | None:
    """The CUDA major that torch was built for, as text; None if it was built without CUDA."""
    return torch.version.cuda.split(".")[0] if torch.version.cuda else None


def candidates() -> list[Path]:
    """The possible paths of the library, in order: inside of pyadamw, then in the environment of this Python.

    If the environment variable PYADAMW_LIBRARY is set, only its path counts.
    """
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return [Path(chosen)]
    names = [f"libadamw_cuda{cuda_major()}.so"] if cuda_major() else []
    return [*(PACKAGED / name for name in [*names, "libadamw_cpu.so"]), INSTALLED]


def _open() -> Any:
    paths = candidates()
    path = next((p for p in paths if os.path.lexists(p)), None)
    if path is None:
        looked = " or ".join(str(p) for p in paths)
        if os.environ.get(ENVIRONMENT):
            raise LibraryNotFoundError(f"{ENVIRONMENT} = {looked}: no such file, or you have no permission to see it")
        raise LibraryNotFoundError(
            f"libadamw is not at {looked}: install pyadamw again, or set {ENVIRONMENT} to a libadamw.so"
        )
    where = f"{ENVIRONMENT} = {path}" if os.environ.get(ENVIRONMENT) else str(path)
    problem = load_errors.before(path)
    if problem is not None:
        raise LibraryNotFoundError(f"{where} cannot be loaded: {problem}")
    torch_folder = Path(torch.__file__).resolve().parent
    openmp.share(torch_folder, torch_folder.with_name("torch.libs"))
    try:
        # ctypes opens it, because cffi refuses paths that the locale cannot encode. An absolute path prevents a search.
        return path, ffi.dlopen(ffi.cast("void *", ctypes.CDLL(os.path.abspath(path))._handle))
    except OSError as error:
        raise LibraryNotFoundError(f"{where} cannot be loaded: {load_errors.after(error)}") from error


def _check_versions(path: Any, lib: Any) -> None:
    try:
        abi = lib.adamw_abi_version()
        version = lib.adamw_version()
    except (AttributeError, ffi.error) as error:
        raise VersionError(
            f"{path} is not libadamw: it has no adamw_abi_version() and adamw_version(). Install pyadamw again, or set "
            f"{ENVIRONMENT} to a libadamw.so"
        ) from error
    if abi != cdef.ABI_VERSION:
        raise VersionError(
            f"{path} has ABI version {abi}, but this pyadamw needs {cdef.ABI_VERSION}: "
            "install a pyadamw and a libadamw that belong together"
        )
    # A newer minor version only adds functions; an older one lacks functions that are declared here.
    needed = (cdef.VERSION_MAJOR, cdef.VERSION_MINOR)
    if (version // 10000, version // 100 % 100) < needed:
        raise VersionError(
            f"{path} is libadamw {version_text(version)}, but this pyadamw needs {needed[0]}.{needed[1]} or newer: "
            "install a newer libadamw"
        )


def _private_function(lib: Any) -> Any:
    """adamw_describe_tensors() if `lib` has it in the form that is declared here, else None: adamw_python.h is no
    promise, and a step does without it."""
    try:
        same = lib.adamw_python_version() == cdef.PYTHON_VERSION
        return lib.adamw_describe_tensors if same and lib.adamw_describe_options_init else None
    except (AttributeError, ffi.error):
        return None


def version_text(number: int) -> str:
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


class Library:
    """The loaded library. `lib` has the C functions, `path` is the path of the file; `describe_tensors` is a private
    function of it, or None."""

    def __init__(self) -> None:
        _check_declarations()
        self.path, self.lib = _open()
        _check_versions(self.path, self.lib)
        self.describe_tensors = _private_function(self.lib)
        cuda = re.search(r"\bbackend cuda(\d+)\b", self.build_info())
        self.cuda = int(cuda[1]) if cuda else None  # the CUDA major that it is built for

    def check(self, status: int, names: Any = None) -> None:
        """Raises the exception of a status other than ADAMW_OK, with the library's message in the words of Python.

        `names`: as of in_python(). Errors that only a developer can correct keep the words of C.
        """
        if status:
            message = text(self.lib.adamw_last_error()) or text(self.lib.adamw_status_string(status))
            kind = BY_STATUS.get(int(status), InternalError)
            raise kind(message if kind in (InternalError, VersionError) else in_python(message, names))

    def version(self) -> str:
        return version_text(self.lib.adamw_version())

    def build_info(self) -> str:
        """One line: version, backend, CUDA version and architectures, CPU kernels built in and in use."""
        return text(self.lib.adamw_build_info())

    def cpu_kernel(self) -> str:
        """The name of the CPU kernel in use. Raises UnsupportedError if ADAMW_CPU names one that cannot run here."""
        name = ffi.new("const char **")
        self.check(self.lib.adamw_cpu_kernel(name))
        return text(name[0])

    def device_number(self, device: torch.device, what: str) -> int:
        """adamw_step_options.device of a torch device; `what` begins the error if the library has none for it."""
        if device.type == "cpu":
            return -1
        if device.type != "cuda":
            raise UnsupportedError(f"{what} is on {device}: must be on a CPU or a CUDA device")
        if self.cuda is None:
            raise UnsupportedError(f"{what} is on {device}, but {self.path} is for the CPU only. {self._no_cuda()}")
        return torch.cuda.current_device() if device.index is None else device.index

    def _no_cuda(self) -> str:
        """Why the loaded library is not one for CUDA, and what to do."""
        if os.environ.get(ENVIRONMENT):
            return f"The environment variable {ENVIRONMENT} chose it: unset it, or set it to a libadamw for CUDA"
        major = cuda_major()
        if major is None:
            return "To use a GPU, install a torch that is built for CUDA: this one is not"
        places = " and ".join(map(str, candidates()))
        tried = f"This torch is for CUDA {torch.version.cuda}, and pyadamw loads the first file that exists of {places}"
        if major not in CUDA_MAJORS:
            return f"{tried}. Install a torch for CUDA {' or '.join(CUDA_MAJORS)}: libadamw exists for these"
        if self.path == INSTALLED:
            return f"{tried}. Install the libadamw for CUDA {major}: `conda install 'libadamw=*=cuda{major}*'`"
        return (
            f"{tried}. Install a pyadamw with CUDA {major}, build one with `ADAMW_CUDA={major} pip install .` "
            f"or set {ENVIRONMENT} to a libadamw_cuda{major}.so"
        )


def text(pointer: Any) -> str:
    return ffi.string(pointer).decode("utf-8", "replace")


@functools.cache
def library() -> Library:
    """The library, loaded at the first call."""
    return Library()


def new_options(kind: Any) -> Any:
    """An options struct of adamw.h, with the library's defaults."""
    options = ffi.new(f"{kind} *")
    library().check(getattr(library().lib, f"{kind}_init")(options, ffi.sizeof(kind)))
    return options


def dtype_number(dtype: torch.dtype, what: str) -> int:
    """adamw_dtype of a torch dtype; `what` begins the error message if there is none."""
    number = DTYPES.get(dtype)
    if number is None:
        raise InvalidArgumentError(f"{what} has dtype {str(dtype).removeprefix('torch.')}: must be {DTYPE_NAMES}")
    return number
