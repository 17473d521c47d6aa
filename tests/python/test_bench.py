"""Owns the law that the benchmark runs: its figures are correct before they are timed, and are written as JSON."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_quick_benchmark_runs(tmp_path):
    """A quick run of one figure ends well and records a ratio for it."""
    out = tmp_path / "results.json"
    command = [sys.executable, ROOT / "tests" / "bench", "--quick", "--only", "small", "--json", out]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=600)
    text = out.read_text(encoding="utf-8")
    assert json.loads(text)["format"] == 1
    assert "ratio" in text
