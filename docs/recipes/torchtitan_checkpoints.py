"""Saves optimizer state as torchtitan does, in one flat dictionary with keys like
"state.layers.0.weight.exp_avg_codes". The model of the run that saves is in two parts, as with pipeline stages. The run
that resumes has it in one.

Install: pyadamw. Run: python torchtitan_checkpoints.py
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.stateful import Stateful

import pyadamw

STEPS = 20
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLAT = StateDictOptions(flatten_optimizer_state_dict=True)


class Part(nn.Module):
    """Some of the layers, under the names that they have in the whole model."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


class Models(Stateful):
    def __init__(self, parts: list[nn.Module]) -> None:
        self.parts = parts

    def state_dict(self) -> dict[str, Any]:
        return {name: value for part in self.parts for name, value in get_model_state_dict(part).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part in self.parts:
            set_model_state_dict(part, state_dict, options=StateDictOptions(strict=False))


class Optimizers(Stateful):
    """An optimizer for each part. Their flat state dicts have no key in common, so that one dictionary holds all."""

    def __init__(self, parts: list[nn.Module], cls: type[torch.optim.Optimizer], **options: Any) -> None:
        self.parts = parts
        self.optimizers = [cls(part.parameters(), **options) for part in parts]

    def step(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        pairs = zip(self.parts, self.optimizers, strict=True)
        return {key: value for pair in pairs for key, value in get_optimizer_state_dict(*pair, options=FLAT).items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, optimizer in zip(self.parts, self.optimizers, strict=True):
            set_optimizer_state_dict(part, optimizer, state_dict, options=FLAT)


def new_parts(stages: Iterable[Iterable[str]]) -> list[nn.Module]:
    torch.manual_seed(0)
    layers = {"0": nn.Linear(64, 512), "1": nn.GELU(), "2": nn.Linear(512, 256), "3": nn.Linear(256, 16)}
    return [Part({name: layers[name] for name in stage}).to(DEVICE) for stage in stages]


def train(parts: list[nn.Module], optimizers: Optimizers, first: int, last: int) -> float:
    for step in range(first, last):
        x = torch.randn(256, 64, generator=torch.Generator().manual_seed(step)).to(DEVICE)
        y = x
        for part in parts:
            y = part(y)
        loss = F.mse_loss(y, x[:, :16].sin())
        loss.backward()
        optimizers.step()
    return loss.item()


two = new_parts([("0", "1"), ("2", "3")])
optimizers = Optimizers(two, pyadamw.AdamW8bit, lr=3e-3)
early = train(two, optimizers, 0, STEPS)
dcp.save({"model": Models(two), "optimizer": optimizers}, checkpoint_id="torchtitan_checkpoints")
late = train(two, optimizers, STEPS, 2 * STEPS)
print(f"loss {early:.4f} -> {late:.4f}")
for key, value in optimizers.state_dict().items():
    if key.startswith("state.layers.0.weight.") and torch.is_tensor(value):
        print(f"{key}: {value.dtype}, shape {tuple(value.shape)}")

one = new_parts([("0", "1", "2", "3")])
resumed = Optimizers(one, pyadamw.AdamW8bit, lr=3e-3)
dcp.load({"model": Models(one), "optimizer": resumed}, checkpoint_id="torchtitan_checkpoints")
train(one, resumed, STEPS, 2 * STEPS)

expected = Models(two).state_dict()
same = all(torch.equal(value, expected[name]) for name, value in Models(one).state_dict().items())
print(f"resumed in one part, it ends with the same bits: {same}")
