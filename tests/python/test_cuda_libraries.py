"""Owns the law of the libraries of ci/cuda, which runs this: to Python they are the CPU's, without a driver."""

import forked
import pytest
from harness import ROOT

BUILT = ROOT / "build" / "cuda"
CPU = ROOT / "pyadamw" / "lib" / "libadamw_cpu.so"


@pytest.mark.parametrize("major", (12, 13))
def test_by_path(major):
    """The CUDA libraries are chosen by path, load without a driver, and step tensors on the CPU to the same bits."""
    path = BUILT / f"libadamw_cuda{major}.so"
    if not path.exists():
        pytest.skip(f"{path.name} is not built: make cuda")
    script = """
import hashlib, torch, pyadamw
torch.manual_seed(0)
p = torch.nn.Parameter(torch.randn(5000))
optimizer = pyadamw.AdamW8bit([p])
for _ in range(3):
    p.grad = torch.randn(5000)
    optimizer.step()
print(pyadamw._native.library.library().cuda, hashlib.sha256(p.detach().numpy().tobytes()).hexdigest())
"""
    done = forked.run(script, PYADAMW_LIBRARY=str(path))
    assert done.returncode == 0, done.stderr
    expected = forked.run(script, PYADAMW_LIBRARY=str(CPU)).stdout
    assert done.stdout == expected.replace("None", str(major))
