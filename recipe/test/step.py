"""The test of pyadamw: every class steps, with the environment's libadamw."""

import sys
from pathlib import Path

import torch

import pyadamw

assert Path(pyadamw.__file__).is_relative_to(sys.prefix), pyadamw.__file__
assert pyadamw.__version__ == sys.argv[1], pyadamw.__version__
CLASSES = ("AdamW", "AdamW8bit", "AdamW16bit", "AdamW32bit")
for name in (*CLASSES, *(f"Paged{name}" for name in CLASSES)):
    weight = torch.nn.Parameter(torch.ones(2, 100_000))  # large enough for pages
    optimizer = getattr(pyadamw, name)([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    # 1 * (1 - lr * weight_decay) - lr: a first step moves by lr, whatever the gradient.
    torch.testing.assert_close(weight.detach(), torch.full_like(weight, 0.899), rtol=0, atol=1e-4)
    print(f"{name}: {weight[0, 0].item():.6f}")
