"""Owns the law that Python has no number of adamw.h by heart: what the header gains arrives by itself, and what Python
must add to it is asked for at import, or here.
"""

import importlib.util
import re
import shutil

import forked
import pytest
import torch
from harness import ROOT

from pyadamw._native import cdef, constants, inspect_tensors, layout
from pyadamw._options.options import OPTIONS
from pyadamw._state import formats
from pyadamw.paging import _BACKINGS

HEADER = (ROOT / "include" / "adamw.h").read_text(encoding="utf-8")
# What an editable installation finds would come before the folder.
FIRST = """
import os, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if isinstance(finder, type)]
folder = sys.argv.pop()
os.chdir(folder)
sys.path.insert(0, folder)
"""
PRINT = "from pyadamw._native import constants as c, cdef; print(eval(__import__('sys').argv[1]))"


def enumerators(enum):
    """{name: number} of an enum in the header, read in another way than by cffi."""
    body = re.search(rf"typedef enum {enum} \{{(.*?)\}}", HEADER, flags=re.S)[1]
    return {name: int(value) for name, value in re.findall(r"(ADAMW_\w+) = (\d+)", body)}


@pytest.mark.parametrize(
    ("enum", "prefix", "found"),
    [
        ("adamw_state_format", "ADAMW_STATE_", constants.STATE_FORMATS),
        ("adamw_step_flags", "ADAMW_STEP_", constants.FLAGS),
        ("adamw_moment", "ADAMW_MOMENT_", constants.MOMENTS),
        ("adamw_rounding", "ADAMW_ROUND_", constants.ROUNDINGS),
        ("adamw_place", "ADAMW_PLACE_", constants.PLACES),
        ("adamw_dtype", "ADAMW_", {str(key).split(".")[1]: value for key, value in constants.DTYPES.items()}),
        ("adamw_status", "ADAMW_ERROR_", {kind.__name__: number for number, kind in constants.BY_STATUS.items()}),
    ],
)
def test_numbers_are_those_of_the_header(enum, prefix, found):
    """All of them and no other, whatever is written in Python."""
    expected = {name.removeprefix(prefix): number for name, number in enumerators(enum).items() if prefix in name}
    if enum == "adamw_status":
        expected = {name.title().replace("_", "") + "Error": number for name, number in expected.items()}
    assert expected and {name.lower(): number for name, number in expected.items()} == {
        name.lower(): number for name, number in found.items()
    }


def test_what_python_must_know_of_each():
    """A flag is an option, a dtype has a form in DLPack, a backing is one that PageManager takes."""
    assert set(constants.FLAGS) <= set(OPTIONS)
    assert set(inspect_tensors._DTYPES) == set(constants.DTYPES)
    assert set(_BACKINGS) == set(constants.PLACES) - {"device"}
    assert all(isinstance(dtype, torch.dtype) for dtype in constants.DTYPES)


def test_every_pointer_to_state_has_a_part():
    """Where a row of the table points to is a parameter, a gradient, a step count, or a part of the state."""
    pointers = {name for name, field in cdef.ffi.typeof("adamw_tensor").fields if field.type.kind == "pointer"}
    assert set(formats.columns()) == pointers - {"param", "grad", "step_tensor"}
    assert set(constants.MOMENTS) == set(formats.CODING.values())


def test_kinds_are_those_of_the_formats():
    kinds = {name: layout.kind(number) for name, number in constants.STATE_FORMATS.items()}
    assert kinds == {
        "float32": (32, False, False, torch.float32),
        "bfloat16": (16, False, False, torch.bfloat16),
        "block8": (8, True, True, torch.uint8),
        "tensor8": (8, True, False, torch.uint8),
    }
    assert cdef.SHORTEST_BLOCK_ROW == 64


def with_header(folder, before, after):
    """Asks the package that a changed header makes: ask(expression)."""
    assert before in HEADER
    shutil.copytree(ROOT / "pyadamw", folder / "pyadamw", ignore=shutil.ignore_patterns("__pycache__", "lib"))
    source = folder / "adamw.h"
    source.write_text(HEADER.replace(before, after), encoding="utf-8")
    spec = importlib.util.spec_from_file_location("generate_cdef", ROOT / "ci" / "generate_cdef.py")
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    generator.SOURCES, generator.TARGET = (source, *generator.SOURCES[1:]), folder / "pyadamw" / "_native" / "cdef.py"
    generator.TARGET.write_text(generator.generate(), encoding="utf-8")

    def ask(expression):
        return forked.run(FIRST + PRINT, expression, folder)

    return ask


@pytest.mark.parametrize(
    ("before", "after", "expression", "expected"),
    [
        (
            "ADAMW_STATE_TENSOR8 = 2",
            "ADAMW_STATE_TENSOR8 = 2,\n  ADAMW_STATE_BLOCK4 = 7",
            "c.STATE_FORMATS['block4']",
            "7",
        ),
        ("ADAMW_STEP_SKIP_ZEROS = 8", "ADAMW_STEP_SKIP_ZEROS = 8, ADAMW_STEP_OTHER = 16", "c.FLAGS['other']", "16"),
        ("ADAMW_FLOAT16 = 2", "ADAMW_FLOAT16 = 2, ADAMW_FLOAT64 = 3", "c.DTYPE_NAMES", "bfloat16, float16 or float64"),
        ("ADAMW_FLOAT16 = 2", "ADAMW_FLOAT16 = 2, ADAMW_FLOAT8 = 3", "1", "ADAMW_FLOAT8, but torch.float8 is no dtype"),
        ("ADAMW_ERROR_STORAGE = 7", "ADAMW_ERROR_STORAGE = 7, ADAMW_ERROR_NET_WORK = 8", "1", "has no NetWorkError"),
        ("#define ADAMW_SHORTEST_BLOCK_ROW 64", "#define ADAMW_SHORTEST_BLOCK_ROW 32", "cdef.SHORTEST_BLOCK_ROW", "32"),
    ],
)
def test_what_a_header_gains_arrives(before, after, expression, expected, tmp_path):
    """A new number is there without an edit; what needs a row in Python says so when it is imported."""
    done = with_header(tmp_path, before, after)(expression)
    assert expected in done.stdout + done.stderr
    assert (done.returncode == 0) == (expression != "1"), done.stderr
