"""Owns the law that an optimizer from Lightning's configure_optimizers trains, and resumes as if never interrupted."""

import warnings

import pytest
import torch
from harness import Late, bits
from versions import older

import pyadamw

lightning, fabric = Late("pytorch_lightning"), Late("lightning_fabric")
WEIGHTS_ONLY = {} if older("pytorch-lightning", "2.6") else {"weights_only": True}


@pytest.fixture(scope="module")
def Module():
    class Module(lightning.LightningModule):
        def __init__(self, cls):
            super().__init__()
            torch.manual_seed(0)
            self.cls, self.net = (
                cls,
                torch.nn.Sequential(torch.nn.Linear(30, 200), torch.nn.Tanh(), torch.nn.Linear(200, 3)),
            )

        def training_step(self, batch, _index):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            optimizer = self.cls(self.parameters(), lr=1e-2, min_8bit_size=100)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    return Module


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit, pyadamw.AdamW32bit])
def test_lightning_trains_and_resumes(Module, cls, tmp_path):
    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(12, 30, generator=torch.Generator().manual_seed(1))), batch_size=4
    )

    def fit(epochs, resume=None):
        module = Module(cls)
        trainer = lightning.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, data, ckpt_path=resume, **(WEIGHTS_ONLY if resume else {}))
        return trainer, [bits(p) for p in module.parameters()]

    half, _ = fit(2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    _, whole = fit(4)
    _, resumed = fit(4, tmp_path / "half.ckpt")
    assert resumed == whole
    assert whole != [bits(p) for p in Module(cls).parameters()]


def plugins_of(precision):
    """Lightning has no float16 on the CPU of its own: a GradScaler for it is what it lacks."""
    if precision != "16-mixed":
        return {"precision": precision}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    return {"plugins": [lightning.plugins.precision.MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize(
    "clipping", [{}, {"gradient_clip_val": 0.5}, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}]
)
@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("cls", [torch.optim.AdamW, pyadamw.AdamW8bit, pyadamw.AdamW32bit])
def test_every_precision_with_clipping(Module, cls, precision, clipping):
    """As torch.optim.AdamW, it trains in each combination: Lightning refuses to clip for optimizers that unscale."""

    class Plain(Module):
        def configure_optimizers(self):
            return self.cls(self.parameters(), lr=1e-2)

    module = Plain(cls)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(12, 30)), batch_size=4)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning.Trainer(max_steps=3, accelerator="cpu", **quiet, **plugins_of(precision), **clipping).fit(
            module, data
        )
    assert [bits(p) for p in module.parameters()] != [bits(p) for p in Plain(cls).parameters()]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("cls", [torch.optim.AdamW, pyadamw.AdamW8bit])
def test_fabric_clips(cls, precision):
    device = fabric.Fabric(accelerator="cpu", devices=1, precision=precision)
    net = torch.nn.Linear(64, 100)
    before = bits(net.weight)
    net, optimizer = device.setup(net, cls(net.parameters(), lr=1e-2))
    device.backward(net(torch.randn(4, 64)).square().mean())
    device.clip_gradients(net, optimizer, max_norm=0.1)
    optimizer.step()
    assert bits(net.weight) != before


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("capturable", [False, True])
def test_clipping_in_the_step(Module, precision, capturable):
    """Without gradient_clip_val, max_grad_norm does what Lightning would do, in every precision, and with a GradScaler
    also for an optimizer that unscales, for which Lightning refuses to clip."""

    class Clipped(Module):
        def __init__(self, limit):
            super().__init__(pyadamw.AdamW32bit)
            self.limit, self.norms = limit, []

        def configure_optimizers(self):
            # Without weight decay, the same update of a bfloat16 weight is rounded in the same way.
            options = {"max_grad_norm": self.limit, "capturable": capturable and self.limit is not None}
            return self.cls(self.parameters(), lr=1e-2, weight_decay=0.0, **options)

        def on_before_zero_grad(self, optimizer):
            self.norms += [] if optimizer.grad_norm is None else [float(optimizer.grad_norm)]

    data = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(12, 30, generator=torch.Generator().manual_seed(1))), batch_size=4
    )
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    made = []
    for limit, clipping in ((0.05, {}), (None, {"gradient_clip_val": 0.05})):
        module = Clipped(limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lightning.Trainer(max_steps=3, accelerator="cpu", **quiet, **plugins_of(precision), **clipping).fit(
                module, data
            )
        made.append(module)
    one, other = made
    assert len(one.norms) >= 2 and max(one.norms) > 0.05
    # 3 steps of 1e-2 each; bfloat16 gradients are rounded by clip_grad_norm_() (2^-9 of each), and not in the step.
    bound = 3e-2 * (2**-7 if "bf16" in precision else 1e-3)
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert (p - q).float().abs().mean() <= bound
