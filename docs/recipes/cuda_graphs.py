"""Captures a whole training step (forward, backward, optimizer) in a CUDA graph and replays it. With capturable=True,
step counts and the learning rate are in GPU memory. Without a GPU, the same steps run without a graph.

Install: pyadamw. Run: python cuda_graphs.py
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

STEPS, WARMUP = 60, 3
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 16)).to(DEVICE)
# A learning rate in a tensor is read at each replay. Schedulers write into it.
lr = torch.tensor(3e-3, device=DEVICE)
optimizer = pyadamw.AdamW8bit(model.parameters(), lr=lr, capturable=True)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

x = torch.zeros(256, 64, device=DEVICE)  # a graph reads its input from the same memory each time


def train_step() -> torch.Tensor:
    optimizer.zero_grad()
    loss = F.mse_loss(model(x), x[:, :16].sin())
    loss.backward()
    optimizer.step()
    return loss.detach()


def captured() -> Callable[[], torch.Tensor]:
    """Steps on a side stream first, so that state and libraries exist, and then captures."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARMUP):
            train_step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad()  # so that the gradients are made in the memory of the graph
    with torch.cuda.graph(graph):
        loss = train_step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay


x.normal_()
if ON_GPU:
    step_once = captured()
else:
    print("There is no CUDA device: the same steps run without a graph.")
    step_once = train_step

for step in range(STEPS):
    x.normal_()
    loss = step_once()
    scheduler.step()
    if (step + 1) % 20 == 0:
        print(f"step {step + 1}: loss {loss.item():.4f}, lr {optimizer.param_groups[0]['lr'].item():.5f}")
print(f"steps counted by the optimizer: {int(optimizer.state[model[0].weight]['step'])}")
