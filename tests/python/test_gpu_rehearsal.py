"""Owns the law that `make gpu` is ready for a machine with a GPU: its tests, the program for compute-sanitizer and the
benchmark run to the end on a device that the CPU plays (tests/gpu/played.py).
"""

import json
import re

from harness import ROOT, run_played

GPU = ROOT / "tests" / "gpu"


def test_the_tests():
    said = run_played("-m", "pytest", "-q", "-p", "played", "-p", "no:cacheprovider", "tests/gpu", PYTHONPATH=str(GPU))
    passed, skipped = (int(re.search(rf"(\d+) {what}", said)[1]) for what in ("passed", "skipped"))
    assert passed > skipped > 0, said


def test_what_is_left_out_is_there():
    """A test that has another name now is no longer left out by mistake, nor one that is gone."""
    names = re.findall(r'^    "(test_\w+)":', (GPU / "played.py").read_text(encoding="utf-8"), flags=re.M)
    tests = "".join(path.read_text(encoding="utf-8") for path in GPU.glob("test_*.py"))
    assert names
    assert [name for name in names if f"def {name}(" not in tests] == []


def test_the_sanitized_program_and_the_benchmark(tmp_path):
    said = run_played("tests/gpu/played.py", tmp_path / "results.json")
    assert "ran" in said.splitlines()
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    ours = [entry for entry in results["gpu"]["steps"] if entry["who"] in ("8bit", "32bit")]
    assert len(ours) == 12
    assert [entry for entry in ours if entry["median"] is None] == []
    assert [bar["name"] for bar in results["bars"] if bar["value"] is None and "bitsandbytes" not in bar["name"]] == []
