"""Owns the law: a step on a CUDA device, as Python drives it, gives the CPU's bits. Without a GPU tests/simt plays the
device; on a machine with one, tests/gpu does the same with the real one.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "release" / "tests" / "libadamw_simt.so"


def test_steps_on_a_device_that_the_cpu_plays():
    """Every option, capturable, GradScaler's tensors and lr as a tensor: parameters and state are equal bit for bit."""
    if not LIBRARY.exists():
        pytest.skip("needs ci/cpp release --build-only (make test does that first)")
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("device_script.py")],
        env={**os.environ, "PYADAMW_LIBRARY": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same bits" in done.stdout
    assert "DIFFERENT" not in done.stdout
