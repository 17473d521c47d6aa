"""Shows on one model what to do when memory runs out, in order: 8-bit state, bfloat16 weights with master weights,
stepping in backward(), and state in pages outside the device. Each line of its table has one measure more.

Install: pyadamw. Run: python out_of_memory.py
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 10


def new_model(dtype: torch.dtype) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(64, 384), *(nn.Linear(384, 384) for _ in range(5)), nn.Linear(384, 16)]
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.GELU())][:-1]).to(DEVICE, dtype)


def places(optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of state by place: a device of torch, or pages in "host", "file", "pinned", "managed" or "device"."""
    if hasattr(optimizer, "memory_report"):
        return optimizer.memory_report().places
    tensors = [value for state in optimizer.state.values() for key, value in state.items() if key != "step"]
    return {DEVICE: sum(tensor.nbytes for tensor in tensors)}


def measure(what: str, make: Callable[..., Any], dtype: torch.dtype = torch.float32, **options: Any) -> None:
    """Trains a little, and prints megabytes of weights, of gradients (the most at once) and of state."""
    model = new_model(dtype)
    parameters, gradients = list(model.parameters()), []
    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(
            lambda _: gradients.append(sum(p.grad.nbytes for p in parameters if p.grad is not None))
        )
    optimizer = make(model.parameters(), lr=1e-3, **options)
    for step in range(STEPS):
        x = torch.randn(64, 64, generator=torch.Generator().manual_seed(step)).to(DEVICE, dtype)
        loss = F.mse_loss(model(x).float(), x[:, :16].float().sin())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    state = places(optimizer)
    paged = {place: count for place, count in state.items() if not place.startswith((DEVICE, "device"))}
    here = [sum(p.nbytes for p in parameters), max(gradients), sum(state.values()) - sum(paged.values())]
    numbers = "".join(f"{count / 1e6:10.2f}" for count in (*here, sum(here)))
    elsewhere = ", ".join(f"{count / 1e6:.2f} ({place})" for place, count in paged.items())
    print(f"{what:<34}{numbers}{loss.item():8.3f}  {elsewhere}")


print(f"{f'megabytes on {DEVICE}':<34}   weights gradients     state       sum    loss  elsewhere")
measure("torch.optim.AdamW", torch.optim.AdamW)

# 1. 8-bit state: another import.
measure("pyadamw.AdamW8bit", pyadamw.AdamW8bit)

# 2. bfloat16 weights. They halve weights, gradients and activations. The optimizer keeps one more byte of each weight
#    (with 32: two), so that no update is lost.
half = {"dtype": torch.bfloat16, "master_weight_bits": 24}
measure("bfloat16, 24-bit master weights", pyadamw.AdamW8bit, **half)

# 3. Gradients that never all exist. This excludes clipping by the norm, GradScaler and DistributedDataParallel.
measure("the same, StepInBackward", pyadamw.StepInBackward, cls=pyadamw.AdamW8bit, **half)

# 4. State outside the device: in host memory for a GPU, in a file for a CPU. This costs time, so it comes last. Tensors
#    of min_numel elements or more are paged; at most resident_bytes of their state are on the device at a time.
manager = pyadamw.PageManager("pinned" if DEVICE == "cuda" else "file", resident_bytes=256 << 10)
measure("the same, paged", pyadamw.StepInBackward, cls=pyadamw.PagedAdamW8bit, page_manager=manager, **half)
print(f"through which {manager.stats()['resident_bytes'] / 1e6:.2f} megabytes on {DEVICE} at a time")
