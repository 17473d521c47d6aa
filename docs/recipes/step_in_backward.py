"""Steps each parameter as soon as backward() has its gradient, and drops the gradient: the gradients never all exist at
once. Shows a scheduler, accumulation, and a checkpoint from which the plain class continues with the same bits.

Install: pyadamw. Run: python step_in_backward.py
"""

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, SAVE_AT = 40, 20
CHECKPOINT = "step_in_backward.pt"


def new_model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(128, 256), *(nn.Linear(256, 256) for _ in range(4)), nn.Linear(256, 16)]
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.GELU())][:-1]).to(DEVICE)


def loss_of(model: nn.Module, number: int) -> torch.Tensor:
    x = torch.randn(128, 128, generator=torch.Generator().manual_seed(number)).to(DEVICE)
    return F.mse_loss(model(x), x[:, :16].sin())


class GradientBytes:
    """The largest number of bytes that gradients took at once: looks each time when one is ready."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters, self.largest = list(model.parameters()), 0
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self.look)

    def look(self, _: torch.Tensor) -> None:
        self.largest = max(self.largest, sum(p.grad.nbytes for p in self.parameters if p.grad is not None))


model = new_model()
gradients = GradientBytes(model)
optimizer = pyadamw.StepInBackward(model.parameters(), pyadamw.AdamW8bit, lr=2e-3)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)

for step in range(STEPS):
    if step == SAVE_AT:
        parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, CHECKPOINT)
    loss = loss_of(model, step)
    loss.backward()  # this was the step
    optimizer.step()  # steps what no backward() has reached, here nothing, and lets the scheduler know
    scheduler.step()
    if (step + 1) % 10 == 0:
        print(f"step {step + 1}: loss {loss.item():.4f}")
print(f"gradients: at most {gradients.largest:,} of {sum(p.nbytes for p in model.parameters()):,} bytes at once")

# The plain class goes on from the checkpoint. It works in the other direction, too.
plain = new_model()
optimizer_of_plain = pyadamw.AdamW8bit(plain.parameters(), lr=2e-3)
scheduler_of_plain = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer_of_plain, STEPS)
saved = torch.load(CHECKPOINT, map_location=DEVICE, weights_only=True)
plain.load_state_dict(saved["model"])
optimizer_of_plain.load_state_dict(saved["optimizer"])
scheduler_of_plain.load_state_dict(saved["scheduler"])
for step in range(SAVE_AT, STEPS):
    loss_of(plain, step).backward()
    optimizer_of_plain.step()
    optimizer_of_plain.zero_grad()
    scheduler_of_plain.step()
same = all(torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True))
print(f"the plain class goes on with the same bits: {same}")

# Accumulation: backward() keeps its gradients within accumulate(), and the next one outside steps their sum. While
# gradients are kept, all of them exist.
before = int(optimizer.state[model[0].weight]["step"])
with optimizer.accumulate():
    (loss_of(model, STEPS) / 2).backward()
(loss_of(model, STEPS + 1) / 2).backward()
print(f"two backward passes, {int(optimizer.state[model[0].weight]['step']) - before} step")
