"""Owns the law that the README's examples run as they stand there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyadamw._native.library

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_python_examples(tmp_path):
    """The Python examples run, one after the other: 8-bit state, master weights, float32, clipping, pages."""
    # The one before the last is a sketch: test_transformers.py has it whole.
    state, master, float32, clipping, in_backward, _, pages = blocks("python")
    check = "assert {t.dtype for s in optimizer.state.values() for t in s.values()} >= {torch.uint8}\n"
    both = "assert {t.dtype for t in weights.values()} == {torch.float32} != {model.weight.dtype}\n"
    paged = "assert 'file' in str(optimizer.memory_report())\n"
    (tmp_path / "example.py").write_text(
        state + check + master + float32 + both + clipping + in_backward + pages + paged
    )
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_c_example(tmp_path):
    """The C example compiles as strict C99 without a warning and moves its weights by lr a step, downhill."""
    (tmp_path / "example.c").write_text(blocks("c")[0])
    library = Path(pyadamw._native.library.library().path)
    for name in (library.name, "libadamw.so.1"):  # whichever its SONAME is
        shutil.copy(library, tmp_path / name)
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-I", ROOT / "include", f"-Wl,-rpath,{tmp_path}"]
    subprocess.run(["cc", *flags, "example.c", "libadamw.so.1", "-o", "example"], cwd=tmp_path, check=True)
    output = subprocess.run(["./example"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    first, second = map(float, re.search(r"weights after 10 steps: (\S+) (\S+)", output).groups())
    # A constant gradient of +-1 makes every update lr = 0.01. The decay of 1e-4 a step takes less than 0.1% of 0.1, and
    # the signed map ends at -0.993, so that a negative exp_avg is at most 0.7% short.
    assert first == pytest.approx(0.1, rel=8e-3)
    assert second == pytest.approx(-0.1, rel=8e-3)
