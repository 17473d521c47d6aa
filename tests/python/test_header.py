"""Owns the law that adamw.h and adamw_python.h say what the functions do: every status that is listed is returned, no
other is, and every range that is given is the one that is checked, at both ends.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cffi
import header_ranges
import numpy as np
import pytest
from forked import changed_environment
from harness import PLAYED, ROOT
from header_reader import all_ranges, all_statuses, functions, named_functions, number

from pyadamw._native import cdef
from pyadamw._native.library import library

PUBLIC, PRIVATE = "include/adamw.h", "libadamw/python/adamw_python.h"
HEADER = "\n".join((ROOT / name).read_text(encoding="utf-8") for name in (PUBLIC, PRIVATE))
HERE = Path(__file__).parent


# ---- statuses --------------------------------------------------------------------------------------------------------


def returned(kind, path, refusals, **environment):
    """What the cases of one kind of process return: see header_cases_system.py."""
    done = subprocess.run(
        [sys.executable, HERE / "header_cases_system.py", kind, path, refusals],
        env=changed_environment({"LD_PRELOAD": str(refusals), **environment}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    if not PLAYED.exists():
        pytest.skip("needs ci/cpp release --build-only (make test does that first)")
    refusals = tmp_path_factory.mktemp("refusals") / "refusals.so"
    command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-o", refusals, HERE / "refusals.c", "-ldl"]
    subprocess.run(command, check=True)
    path = library().path
    return [
        *returned("cpu", path, refusals),
        *returned("kernel", path, refusals, ADAMW_CPU="mmx"),
        *returned("played", PLAYED, refusals),
    ]


def complaints(header, results):
    """What a header says of statuses that is not so."""
    listed, found = all_statuses(header), []
    for function, statuses in listed.items():
        if statuses is None:
            found.append(f"{function} lists no statuses")
            continue
        cases = {status for of, status, _, _ in results if of == function} - {"OK"}
        found += [f"{function}: {status} is listed, and no case returns it" for status in set(statuses) - cases]
        found += [f"{function}: {status} is returned, and not listed" for status in cases - set(statuses)]
    return found


def test_every_status_is_returned(results):
    """A case for each function and status returns that status, with a message, and nothing else does."""
    assert [result for result in results if result[1] != result[2]] == []
    assert [result for result in results if (result[2] == "OK") != (result[3] == "")] == []
    assert complaints(HEADER, results) == []


def test_wrong_lists_are_found(results):
    """The test above notices a status too many, one too few, and a function without a list."""

    def changed(pattern, by):
        header, times = re.subn(pattern, by, HEADER, count=1, flags=re.S)
        assert times == 1
        return complaints(header, results)

    assert changed(r"\n \*   DEVICE +the CUDA call that failed, by name(?=\n \*   STORAGE +a pager's)", "") == [
        "adamw_step: DEVICE is returned, and not listed"
    ]
    assert changed(r"(INVALID_ARGUMENT  num_threads is negative)", r"\1\n *   STORAGE  never") == [
        "adamw_set_num_threads: STORAGE is listed, and no case returns it"
    ]
    assert changed(r" \* Errors:\n( \*   INVALID_ARGUMENT  name is NULL)", r"\1") == [
        "adamw_cpu_kernel lists no statuses"
    ]


def test_the_last_error_is_of_the_last_call():
    """adamw_last_error() is empty after a call that returned ADAMW_OK, whatever failed before."""
    lib = library().lib
    assert lib.adamw_set_num_threads(-1) == 1
    assert b"num_threads" in cdef.ffi.string(lib.adamw_last_error())
    assert lib.adamw_set_num_threads(0) == 0
    assert cdef.ffi.string(lib.adamw_last_error()) == b""


# ---- ranges ----------------------------------------------------------------------------------------------------------


def neighbours(name, low, high):
    """The numbers just below and above each end: (below low, above low, below high, above high)."""
    if name in header_ranges.SINGLES + header_ranges.DOUBLES:
        kind = np.float32 if name in header_ranges.SINGLES else np.float64
        low, high, inf = kind(low), kind(high), kind(np.inf)
        return [float(np.nextafter(*pair)) for pair in ((low, -inf), (low, inf), (high, -inf), (high, inf))]
    return [low - 1, low + 1, high - 1, high + 1]


def wrong_ends(key, ends):
    """Where the call for a range does not do what its ends say: [(value, whether it is accepted)]."""
    name, (low, with_low, high, with_high) = key[1], ends
    low, high = number(low, header_ranges.NAMES), number(high, header_ranges.NAMES)
    below, after, before, above = neighbours(name, low, high)
    expected = [(low, with_low), (high, with_high)]
    expected += [(value, False) for value in (below, above) if value not in (low, high)]  # nothing is above infinity
    expected += [] if with_low else [(after, True)]
    expected += [] if with_high else [(before, True)]
    found = []
    for call in header_ranges.CALLS[key]:
        verdicts = [(value, inside, header_ranges.verdict(call, name, value)) for value, inside in expected]
        found += [(value, is_in) for value, inside, is_in in verdicts if is_in not in (inside, None)]
    return found


RANGES = all_ranges(HEADER)


def test_every_range_is_asked():
    """The header has the ranges that there are calls for, and no others."""
    assert RANGES.keys() == header_ranges.CALLS.keys()
    assert len(RANGES) > 30


@pytest.mark.parametrize("key", RANGES, ids=".".join)
def test_ranges_end_where_they_say(key):
    """Both ends of a range are accepted, or not, as it says, and their neighbours outside are refused."""
    assert wrong_ends(key, RANGES[key]) == []


def test_wrong_ends_are_found():
    """The test above notices an end that is one off, or open instead of closed."""
    assert wrong_ends(("adamw_tensor", "numel"), ("0", True, "2^59", True))
    assert wrong_ends(("adamw_tensor", "numel"), ("1", True, "2^58", True))
    assert wrong_ends(("adamw_step_options", "beta1"), ("0", False, "1", False))
    assert wrong_ends(("adamw_step_options", "lr_tensor"), ("0", False, "infinity", False))
    assert wrong_ends(("adamw_pager_acquire", "bytes"), ("1", True, "61440", True))


def test_what_else_is_said_of_windows():
    """chunk_bytes may be 0, a refusal names both of its ends; budgets with windows hold four of them, and say so."""
    create, file = header_ranges.create, header_ranges.FILE
    assert create(chunk_bytes=0)[0] == 0
    assert "in 65536 ... 2^40" in create(chunk_bytes=2**40 + 1)[1]
    least = header_ranges.LEAST_PAGED
    for chunk in (0, header_ranges.CHUNK):
        status, said = create(backing=file, chunk_bytes=chunk, resident_bytes=least - 1)
        assert status == header_ranges.INVALID_ARGUMENT
        assert f"at least {least}" in said
        assert "directory" in create(backing=file, chunk_bytes=chunk, resident_bytes=least)[1]


# ---- the header itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [PUBLIC, PRIVATE, "README.md", "CHANGELOG.md"])
def test_functions_that_are_named_exist(file):
    """What is written as a call of a function of the library is one."""
    assert named_functions((ROOT / file).read_text(encoding="utf-8")) - functions(HEADER).keys() == set()


def test_python_is_not_in_the_public_header():
    """What a C program includes names nothing that only pyadamw calls, and nothing of Python."""
    public = (ROOT / PUBLIC).read_text(encoding="utf-8")
    private = (ROOT / PRIVATE).read_text(encoding="utf-8")
    assert functions(private).keys() == {name for name in functions(HEADER) if name not in functions(public)}
    assert {"adamw_python_version", "adamw_describe_tensors"} <= functions(private).keys()
    assert not re.search(r"adamw_(describe|python)|Python|\bPy[A-Z]|dlpack", public, flags=re.I)


@pytest.mark.parametrize("file", [PUBLIC, PRIVATE])
def test_parsers_can_read_it(file):
    """With ADAMW_NO_ASSERTS the preprocessed header is plain declarations, of which cffi makes the same structs."""
    command = [os.environ.get("CC", "cc"), "-E", "-P", "-DADAMW_STATIC", "-DADAMW_NO_ASSERTS", ROOT / file]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    text = text[text.index("typedef enum adamw_status") :]
    ffi = cffi.FFI()
    ffi.cdef(text)
    private = ("adamw_tensor_form", "adamw_describe_options")
    sizes = {name: size for name, size in cdef.SIZES.items() if file == PRIVATE or name not in private}
    assert {name: ffi.sizeof(name) for name in sizes} == sizes
    lib = ffi.dlopen(str(library().path))
    options = ffi.new("adamw_step_options *")
    assert lib.adamw_step_options_init(options, ffi.sizeof("adamw_step_options")) == 0
    assert (options.beta2, options.percentile_clipping, options.device) == (0.999, 100, -1)
