"""Owns pyadamw/_native/cdef.py: the C declarations of adamw.h and of the private adamw_python.h, as cffi reads them.

cffi wants plain C: no comments, no preprocessor. Its out-of-line ABI mode parses that here, once, and not at every
import. Constants and the struct sizes that the header asserts are written as Python numbers, so that the package can
compare them with what it loads. `--check` fails if the file is stale. It must not know what a step is.
"""

import contextlib
import re
import sys
import tempfile
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (ROOT / "include" / "adamw.h", ROOT / "libadamw" / "python" / "adamw_python.h")
TARGET = ROOT / "pyadamw" / "_native" / "cdef.py"


def without_comments(text):
    return re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.S))


def numbers(text):
    """Every `#define ADAMW_X <integer>`, without the prefix."""
    return {name: int(value) for name, value in re.findall(r"^#define ADAMW_(\w+) (\d+)\s*$", text, flags=re.M)}


def asserted(text):
    """The sizes and offsets that the header asserts: {struct: bytes} and {(struct, field): bytes}."""
    sizes = {name: int(size) for name, size in re.findall(r"sizeof\((adamw_\w+)\) == (\d+)", text)}
    offsets = {(s, field): int(at) for s, field, at in re.findall(r"offsetof\((adamw_\w+), (\w+)\) == (\d+)", text)}
    return sizes, offsets


def declarations(text):
    """The typedefs and prototypes alone."""
    text = text.replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(line for line in lines if not line.startswith(("ADAMW_ASSERT_", "static_assert(")))
    text = text.replace('extern "C" {', "").replace("ADAMW_API ", "")
    text = re.sub(r"^}\s*$", "", text, flags=re.M)  # the end of extern "C": a lone brace, unlike that of a typedef
    text = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def generate():
    text = "\n".join(without_comments(source.read_text(encoding="utf-8")) for source in SOURCES)
    constants, (sizes, offsets) = numbers(text), asserted(text)
    lines = [
        '"""The C interface of libadamw, from adamw.h and adamw_python.h by ci/generate_cdef.py: do not edit."""',
        "",
        *(f"{name} = {value}" for name, value in constants.items()),
        "",
        "SIZES = {",
        *(f'    "{name}": {size},' for name, size in sizes.items()),
        "}",
        "OFFSETS = {",
        *(f'    ("{name}", "{field}"): {at},' for (name, field), at in offsets.items()),
        "}",
        "",
    ]
    return "\n".join(lines) + "\n" + parsed(declarations(text))


def parsed(declarations):
    """The Python code that makes `ffi`, as cffi writes it."""
    builder = cffi.FFI()
    builder.cdef(declarations)
    builder.set_source("pyadamw._native.cdef", None)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ffi.py"
        with contextlib.redirect_stdout(None):  # it says where it writes
            builder.emit_python_code(str(path))
        return path.read_text(encoding="utf-8")


def main():
    text = generate()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            names = " and ".join(str(source.relative_to(ROOT)) for source in SOURCES)
            sys.exit(f"{TARGET.relative_to(ROOT)} does not match {names}: run python ci/generate_cdef.py")
    else:
        TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
