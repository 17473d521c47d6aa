"""Compiles the model with torch.compile() and leaves the optimizer outside, because its step is one call of the library
already. If a compiled function calls step(), torch cuts the function there, and the step runs as it is.

Install: pyadamw, and a C++ compiler for torch.compile() on the CPU. Run: python compile.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 20


def new_run() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 16)).to(DEVICE)
    return model, pyadamw.AdamW8bit(model.parameters(), lr=3e-3, max_grad_norm=1.0)


def batch(step: int) -> torch.Tensor:
    return torch.randn(256, 64, generator=torch.Generator().manual_seed(step)).to(DEVICE)


# The usual way: forward and backward are compiled.
model, optimizer = new_run()
compiled = torch.compile(model)
losses = []
for step in range(STEPS):
    x = batch(step)
    loss = F.mse_loss(compiled(x), x[:, :16].sin())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}")

# The whole step in a compiled function. fullgraph=True would refuse it: a step cannot be part of a graph.
other, optimizer = new_run()


@torch.compile
def train_step(x: torch.Tensor) -> torch.Tensor:
    loss = F.mse_loss(other(x), x[:, :16].sin())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach()


for step in range(STEPS):
    loss = train_step(batch(step))
print(f"all in one function: loss {loss.item():.4f}")
