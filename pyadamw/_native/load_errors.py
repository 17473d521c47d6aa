"""Owns why a file cannot be loaded as a library, in words that say what to do. Must not know where it lay."""

from __future__ import annotations

import os
import platform
import stat
import struct
from typing import Any

from .._checks import kind_of_file

# e_machine of the ELF header (elf.h), by platform.machine()'s names
_MACHINES = {
    3: "i686",
    8: "mips",
    21: "ppc64le",
    22: "s390x",
    40: "armv7l",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
}


def before(path: Any) -> Any:
    """What can be seen of `path`, which exists, without loading it; None if nothing is wrong.

    A library that was cut off must be found here: the system's loader would die of SIGBUS, and the process with it.
    """
    if os.path.isdir(path):
        return "it is a folder: give the path of the file in it"
    if not os.path.exists(path):
        return f"it is a link to {os.path.realpath(path)}, which does not exist"
    if not os.access(path, os.R_OK, effective_ids=True):
        return f"you have no permission to read it: chmod a+r {path}"
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            return f"it is {kind_of_file(mode)}: give the path of a shared library"
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            return _of_file(file, os.fstat(file.fileno()).st_size)
    except OSError as error:  # as of files that are none, in /proc
        return f"it cannot be read ({error.strerror}): give the path of a shared library"


def _of_file(file: Any, length: int) -> Any:
    header = file.read(64)
    if header[:4] != b"\x7fELF" or len(header) < 64:
        return "it is not a shared library (no ELF header): install pyadamw again, or give another path"
    order = "<" if header[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", header, 18)
    built_for = _MACHINES.get(machine, f"another machine (ELF machine {machine})")
    if built_for != platform.machine():
        return (
            f"it is built for {built_for}, and this machine is {platform.machine()}: install pyadamw for this machine"
        )
    if header[4] == 2 and length < _needed(file, header, order):  # of a library of 32 bits, the loader says so
        return "it is incomplete (a copy or a download that was interrupted?): install pyadamw again"
    return None


def _needed(file: Any, header: Any, order: Any) -> Any:
    """The bytes that a library of 64 bits must have: up to the end of its tables, and of all that the loader maps."""
    segments, sections = struct.unpack_from(order + "QQ", header, 32)
    segment_size, segment_count, section_size, section_count = struct.unpack_from(order + "HHHH", header, 54)
    needed = max(segments + segment_size * segment_count, sections + section_size * section_count)
    for number in range(segment_count):
        file.seek(min(segments + segment_size * number, 2**62))
        segment = file.read(56)
        if len(segment) < 56:
            break
        offset, _, _, size = struct.unpack_from(order + "QQQQ", segment, 8)
        needed = max(needed, offset + size)
    return needed


def after(error: BaseException) -> str:
    """What the system's loader's refusal means."""
    if "GLIBC_" in str(error):
        return (
            f"it is built for a newer system (here: {' '.join(platform.libc_ver())}): install a pyadamw that is built "
            f"for this one, or build it here with `pip install .`: {error}"
        )
    # musl's loader takes libc.so.6 for itself. It has no ld-linux-*, and not all of glibc's functions.
    if "ld-linux" in str(error) or str(error).startswith("Error relocating"):
        return (
            f"it is built for glibc, and this system has another C library (Alpine: musl): build pyadamw here with "
            f"`pip install .`: {error}"
        )
    return f"{error}: install pyadamw again, or give another path"
