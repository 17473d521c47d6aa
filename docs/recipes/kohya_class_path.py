"""Shows how trainers that import an optimizer by the path of its class, such as kohya's sd-scripts, take pyadamw. It
reads the same two arguments in the same way and trains LoRA matrices. Give sd-scripts the same two arguments.

Install: pyadamw. Run: python kohya_class_path.py --optimizer_type pyadamw.AdamW --optimizer_args optim_bits=8 eps=1e-7
"""

import argparse
import ast
import importlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS = 40


def new_optimizer(path: str, arguments: list[str], groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """What sd-scripts do: NAME=VALUE, where VALUE is a literal of Python, and the class from its module."""
    keywords = {}
    for argument in arguments:
        name, value = argument.split("=")
        keywords[name] = ast.literal_eval(value)
    if path.lower().endswith("8bit"):
        # They import bitsandbytes for any such name, and then do not use it. pyadamw.AdamW with optim_bits=8 is the
        # same optimizer as pyadamw.AdamW8bit, but its name needs no bitsandbytes. The same holds for PagedAdamW.
        import bitsandbytes  # noqa: F401
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return cls(groups, lr=lr, **keywords)


class LoRA(nn.Module):
    def __init__(self, frozen: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.lora_down = nn.Linear(frozen.in_features, rank, bias=False)
        self.lora_up = nn.Linear(rank, frozen.out_features, bias=False)
        nn.init.zeros_(self.lora_up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + self.lora_up(self.lora_down(x))


parser = argparse.ArgumentParser()
parser.add_argument("--optimizer_type", default="pyadamw.AdamW")
parser.add_argument("--optimizer_args", nargs="*", default=["optim_bits=8"])
parser.add_argument("--learning_rate", type=float, default=2e-3)
args = parser.parse_args()

torch.manual_seed(0)
model = nn.Sequential(LoRA(nn.Linear(320, 640)), nn.GELU(), LoRA(nn.Linear(640, 320))).to(DEVICE)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = new_optimizer(args.optimizer_type, args.optimizer_args, [{"params": trained}], args.learning_rate)

x = torch.randn(256, 320, device=DEVICE)
for step in range(STEPS):
    loss = F.mse_loss(model(x), x)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if (step + 1) % 10 == 0:
        print(f"step {step + 1}: loss {loss.item():.4f}")
print(f"{type(optimizer).__module__}.{type(optimizer).__name__}, {args.optimizer_args}")
print(optimizer.memory_report())
