"""Trains float32 weights under float16 autocast with a GradScaler. The optimizer clips the unscaled gradients. A step
whose gradients overflow is left out and not counted.

Install: pyadamw. Run: python mixed_precision.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 60

torch.manual_seed(0)
teacher = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 16)).to(DEVICE)
model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 16)).to(DEVICE)

# On a GPU, capturable=True lets the step itself unscale and test for overflow, without waiting for the GPU.
optimizer = pyadamw.AdamW8bit(model.parameters(), lr=3e-3, max_grad_norm=1.0, capturable=DEVICE == "cuda")
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)
scaler = torch.amp.GradScaler(DEVICE, init_scale=2.0**20, growth_interval=5)  # grows until gradients overflow

for step in range(STEPS):
    x = torch.randn(256, 64, device=DEVICE)
    with torch.no_grad():
        y = teacher(x)
    with torch.autocast(DEVICE, dtype=torch.float16):
        loss = F.mse_loss(model(x).float(), y)
    scaler.scale(loss).backward()
    # No scaler.unscale_() and no clip_grad_norm_() here: max_grad_norm clips in the step.
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    scheduler.step()
    if (step + 1) % 20 == 0:
        norm, scale = optimizer.grad_norm.item(), scaler.get_scale()
        print(f"step {step + 1}: loss {loss.item():.4f}, norm of the gradients {norm:.3f}, scale {scale:,.0f}")

taken = int(next(iter(optimizer.state.values()))["step"])
print(f"{taken} of {STEPS} steps were taken; the gradients of the others overflowed")
