"""Trains bfloat16 weights with 8-bit state in plain PyTorch: parameter groups, a scheduler, clipping inside the step,
and gradient accumulation. A second run resumes from a checkpoint and ends with the same bits.

Install: pyadamw. Run: python plain_torch.py
"""

from pydoc_data.topics import topics

import torch
import torch.nn.functional as F
from torch import nn

import pyadamw

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, SAVE_AT, MICRO_BATCHES, CONTEXT = 60, 30, 2, 8
CHECKPOINT = "plain_torch.pt"
TEXT = torch.frombuffer(bytearray("\n".join(sorted(topics.values())).encode()), dtype=torch.uint8).long()


def new_model() -> nn.Module:
    """Predicts a byte from the eight bytes before it."""
    return nn.Sequential(
        nn.Embedding(256, 64),
        nn.Flatten(),
        nn.Linear(CONTEXT * 64, 512),
        nn.LayerNorm(512),
        nn.GELU(),
        nn.Linear(512, 256),
    )


def micro_batch(number: int, size: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """The same bytes for the same number, so that a resumed run sees what it would have seen."""
    starts = torch.randint(len(TEXT) - CONTEXT, (size,), generator=torch.Generator().manual_seed(number))
    windows = TEXT[starts[:, None] + torch.arange(CONTEXT + 1)].to(DEVICE)
    return windows[:, :-1], windows[:, -1]


def parameter_groups(model: nn.Module) -> list[dict]:
    """Matrices decay; biases, norms and embeddings do not. Embeddings keep 32-bit state."""
    matrices, vectors, embeddings = [], [], []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                embeddings.append(parameter)
            else:
                (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    return [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
        {"params": embeddings, "weight_decay": 0.0, "optim_bits": 32},
    ]


class Run:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = new_model().to(DEVICE, torch.bfloat16)
        self.optimizer = pyadamw.AdamW8bit(
            parameter_groups(self.model),
            lr=2e-3,
            master_weight_bits=24,  # the optimizer keeps one byte more of each bfloat16 weight: no update is lost
            max_grad_norm=1.0,  # in place of torch.nn.utils.clip_grad_norm_()
        )
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, STEPS)

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            for part in range(MICRO_BATCHES):
                inputs, targets = micro_batch(step * MICRO_BATCHES + part)
                loss = F.cross_entropy(self.model(inputs).float(), targets)
                (loss / MICRO_BATCHES).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.scheduler.step()
            if (step + 1) % 15 == 0:
                norm = self.optimizer.grad_norm.item()  # before clipping
                print(f"step {step + 1}: loss {loss.item():.3f}, norm of the gradients {norm:.2f}")

    def save(self) -> None:
        # The weights of a checkpoint are the model's and the optimizer's together: save both after the same step.
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": self.scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, CHECKPOINT)

    def load(self) -> None:
        saved = torch.load(CHECKPOINT, map_location=DEVICE, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])

    def weights(self) -> dict[str, torch.Tensor]:
        """The master weights, as float32."""
        return pyadamw.fp32_state_dict(self.model, self.optimizer)


whole = Run()
whole.train(0, SAVE_AT)
whole.save()
whole.train(SAVE_AT, STEPS)

resumed = Run()
resumed.load()
print(f"resumed from {CHECKPOINT}")
resumed.train(SAVE_AT, STEPS)

expected = whole.weights()
same = all(torch.equal(weight, expected[name]) for name, weight in resumed.weights().items())
print(f"the resumed run ends with the same bits: {same}")

count = sum(p.numel() for p in whole.model.parameters())
report = whole.optimizer.memory_report()
print(f"{2 + report.bytes / count:.2f} bytes a parameter for weights, master weights and state (float32 and torch: 12)")
print(report)
