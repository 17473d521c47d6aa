"""Owns one comparison: what the rounding of 8-bit state costs in noise, here and elsewhere. Knows nothing of speed.

    python tests/bench/noise.py [STEPS]

Parameters move for 1000 steps at lr 1e-5, along gradients that are noise with a drift of 0.3 of it. Printed is how far
each optimizer ends from torch.optim.AdamW, as a share of the way: with gradients of one size, and with lognormal sizes
side by side. bitsandbytes and torchao run if they are installed; FlashOptim needs a GPU, so its published rule runs
here.
"""

import os
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # torchao's optimizer compiles itself; it computes the same without

import torch

import pyadamw

ELEMENTS = 20_480  # torchao keeps tensors of other lengths than multiples of 256 in 32 bits


class FlashOptim:
    """FlashAdamW 0.1.4's state: groups of 32 with float16 scales, everything rounded to the nearest code."""

    def __init__(self, params, lr, weight_decay):
        assert weight_decay == 0.0
        (self.param,), self.lr, self.steps = params, lr, 0
        self.moments = torch.zeros(2, self.param.numel() // 32, 32)

    def step(self):
        self.steps += 1
        g, (m, v) = self.param.grad.view(-1, 32), self.moments
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = m / (1 - 0.9**self.steps) / ((v / (1 - 0.999**self.steps)).sqrt() + 1e-8)
        with torch.no_grad():
            self.param -= self.lr * update.flatten()
        self.moments = torch.stack([self.kept_exp_avg(m), self.kept_exp_avg_sq(v)])

    @staticmethod
    def scale_of(x):
        return x.abs().amax(1, keepdim=True).clamp(min=1e-12).half().float()

    def kept_exp_avg(self, m):
        scale = self.scale_of(m)
        z = (m / scale).clamp(-1, 1)
        y = (2 * z / (1 + z.abs()) * 127).round() / 127
        return y / (2 - y.abs()) * scale

    def kept_exp_avg_sq(self, v):
        scale = self.scale_of(v.sqrt())
        return ((v.sqrt() / scale * 255).clamp(0, 255).round() / 255 * scale) ** 2


def contestants():
    yield "pyadamw", pyadamw.AdamW8bit
    yield "FlashOptim's rule", FlashOptim
    try:
        from bitsandbytes.optim import AdamW8bit

        yield "bitsandbytes", AdamW8bit
    except ImportError:
        print("bitsandbytes is not installed", file=sys.stderr)
    try:
        from torchao.optim import AdamW8bit

        yield "torchao", AdamW8bit
    except ImportError:
        print("torchao is not installed", file=sys.stderr)


def error(optimizer_class, spread, steps):
    torch.manual_seed(0)
    start, size = 0.02 * torch.randn(ELEMENTS), torch.exp(spread * torch.randn(ELEMENTS))
    drift = 0.3 * torch.randn(ELEMENTS)
    narrow, wide = (torch.nn.Parameter(start.clone()) for _ in range(2))
    options = {"lr": 1e-5, "weight_decay": 0.0}
    optimizers = optimizer_class([narrow], **options), torch.optim.AdamW([wide], **options)
    for _ in range(steps):
        narrow.grad = (torch.randn(ELEMENTS) + drift) * size
        wide.grad = narrow.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    return ((narrow - wide).norm() / (wide - start).norm()).item()


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    torch.set_num_threads(1)
    print("| | gradients of one size | of lognormal sizes |\n|---|---|---|")
    for name, optimizer_class in contestants():
        print(
            f"| {name} | {error(optimizer_class, 0.0, steps):.4f} | {error(optimizer_class, 1.0, steps):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
