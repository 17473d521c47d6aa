"""Trains bfloat16 weights with Lightning (precision="bf16-true"). The optimizer keeps what they lack of float32 master
weights and clips inside the step. A second fit resumes from a checkpoint and ends with the same bits.

Install: pyadamw, pytorch-lightning. Run: python lightning_module.py
"""

import pytorch_lightning as L  # or, from the package lightning: import lightning as L
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pyadamw

EPOCHS, SAVE_AFTER = 4, 2


class Regression(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 16))

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        x, y = batch
        loss = F.mse_loss(self.net(x), y)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict:
        # Lightning's own clipping (gradient_clip_val) stays off: max_grad_norm is in its place.
        optimizer = pyadamw.AdamW8bit(self.parameters(), lr=3e-3, master_weight_bits=32, max_grad_norm=1.0)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)}


def data() -> DataLoader:
    x = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(x, x[:, :16].sin() * x[:, 16:32]), batch_size=128)


def fit(epochs: int, resume_from: str | None = None) -> tuple[L.Trainer, dict[str, torch.Tensor], float]:
    """The trainer, the float32 master weights, and the loss of the last batch."""
    L.seed_everything(0)
    module = Regression()
    trainer = L.Trainer(
        max_epochs=epochs,
        precision="bf16-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data(), ckpt_path=resume_from)
    weights = pyadamw.fp32_state_dict(module, trainer.optimizers[0])
    return trainer, weights, float(trainer.callback_metrics["loss"])


half, _, early = fit(SAVE_AFTER)
half.save_checkpoint("lightning_module.ckpt")

_, expected, late = fit(EPOCHS)
_, found, _ = fit(EPOCHS, resume_from="lightning_module.ckpt")
print(f"loss after {SAVE_AFTER} epochs {early:.4f}, after {EPOCHS} epochs {late:.4f}")
same = all(torch.equal(weight, expected[name]) for name, weight in found.items())
print(f"the resumed fit ends with the same bits: {same}")
print(half.optimizers[0].memory_report())
