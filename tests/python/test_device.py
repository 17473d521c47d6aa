"""Owns the law: a step on a CUDA device, as Python drives it, gives the CPU's bits. Without a GPU tests/simt plays the
device; on a machine with one, tests/gpu does the same with the real one.
"""

from pathlib import Path

from harness import run_played


def test_steps_on_a_device_that_the_cpu_plays():
    """Every option, capturable, GradScaler's tensors and lr as a tensor: parameters and state are equal bit for bit."""
    said = run_played(Path(__file__).with_name("device_script.py"))
    assert "the same bits" in said
    assert "DIFFERENT" not in said
