"""Owns the laws of ci/range and of what it promises: pyproject.toml and the docs name the versions that it runs, and no
more; a test that failed, or did not run, is no pass.
"""

import re
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "ci"))

import version_range  # noqa: E402

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
FLOOR = version_range.floors(PROJECT)
ROW = version_range.ROWS[0]
RECORDS = sorted((ROOT / "tests" / "bench" / "results").glob("*-range.md"))


def numbers(version):
    return tuple(map(int, re.findall(r"\d+", version)))


def test_every_python_of_the_range_has_a_row():
    """The classifiers are the Pythons of the rows, and the first of them is the oldest that pip accepts."""
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)
    assert classifiers == sorted({row.python.rstrip("t") for row in version_range.ROWS}, key=numbers)
    assert re.search(r'requires-python = ">=(.*)"', PROJECT)[1] == classifiers[0]


def test_both_ends_have_a_row():
    """The oldest and the newest torch, each with the oldest and the newest libraries; a floor is one release."""
    rows = version_range.ROWS
    assert {row.libraries for row in rows if row.torch == "oldest"} == {"oldest", "newest"}
    assert {row.libraries for row in rows if row.torch == "newest"} == {"oldest", "newest"}
    assert FLOOR.keys() >= {"torch", *version_range.LIBRARIES}
    for floor in version_range.requirements(rows[0], FLOOR):
        assert re.fullmatch(r"[\w-]+==[\d.]+", floor)
    for first in version_range.FIRST_FOR.values():
        assert all(numbers(version) > numbers(FLOOR[name]) for name, version in first.items())


def test_start_says_the_range():
    """docs/start.md names the floors of pyproject.toml."""
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    said = re.search(r"requires Python >= ([\d.]+), torch >= ([\d.]+), cffi >= ([\d.]+) and numpy >= ([\d.]+)\.", text)
    assert said.groups() == (ROW.python, FLOOR["torch"], FLOOR["cffi"], FLOOR["numpy"])


def test_the_record_has_every_row():
    """The last record names every row, with versions within the range, and no test that failed."""
    text = RECORDS[-1].read_text(encoding="utf-8")
    _, _, *lines = text[text.index("| row | python |") :].split("\n\n")[0].splitlines()
    cells = {name: values for name, *values in ([c.strip() for c in line.strip("|").split("|")] for line in lines)}
    assert cells.keys() == {row.name for row in version_range.ROWS}
    for row in version_range.ROWS:
        versions = dict(zip(version_range.COLUMNS, cells[row.name], strict=True))
        assert versions["python"].startswith(f"{row.python.rstrip('t')}.")
        missing = {name for name, version in versions.items() if version == "-"}
        assert missing == set(row.without)
        for name in versions.keys() - missing - {"python"}:
            assert numbers(versions[name]) >= numbers(FLOOR[name]), (row.name, name)
        if row.torch == "oldest":
            assert numbers(versions["torch"])[:2] == numbers(FLOOR["torch"])
    assert "not run" not in text and "- failed: " not in text


RESULTS = """<testsuites><testsuite>
<testcase classname="tests.python.test_lazy" name="test_a"/>
<testcase classname="tests.python.test_formats" name="test_b[8]">{b}</testcase>
<testcase classname="tests.python.test_convert" name="test_c"/>
<testcase classname="tests.python.test_torch_contract" name="test_d"/>
<testcase classname="tests.python.test_lightning" name="test_e"/>
{more}
</testsuite></testsuites>"""
SKIPPED = '<skipped message="needs a compiler"/>'


def outcome(folder, b="", more=""):
    (folder / "results.xml").write_text(RESULTS.format(b=b, more=more))
    return version_range.read_results(folder / "results.xml")


@pytest.mark.parametrize(
    ("b", "more", "failure"),
    [
        ("<failure/>", "", "test_formats.py::test_b[8]"),
        ("<error/>", "", "test_formats.py::test_b[8]"),
        ("", '<testcase classname="" name="tests.python.test_quantize"><error/></testcase>', "test_quantize.py"),
    ],
)
def test_a_failure_is_one(b, more, failure, tmp_path):
    """Also of a file that could not be imported; it is in the table by name."""
    found = outcome(tmp_path, b, more)
    assert not found.holds(ROW) and sum(counts["failed"] for counts in found.counts.values()) == 1
    assert any(failure in line for line in version_range.table({ROW: ({}, found)}))


def test_only_what_passed_holds(tmp_path):
    """A group in which all is skipped does not; without results there is no outcome."""
    assert outcome(tmp_path).holds(ROW)
    found = outcome(tmp_path, SKIPPED)
    assert found.skips == Counter({"needs a compiler": 1}) and not found.holds(ROW)
    assert version_range.read_results(tmp_path / "none.xml") is None


def test_every_file_is_there():
    """Each file of tests that the groups name, once."""
    names = [name for group in version_range.GROUPS.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert all((ROOT / "tests" / "python" / f"test_{name}.py").is_file() for name in names)
