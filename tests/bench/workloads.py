"""Owns what is stepped: shapes, random numbers, the contestants, whether they agree. Must not know how time passes."""

import math

import torch

LR = 1e-3


def gpt2_shapes(split):
    """GPT-2 small: 124,439,808 parameters, as the 148 tensors of the published model or, if `split`, as 304.

    The 304 are the same parameters, cut as tensor-parallel code keeps them: c_attn as separate q, k and v, the
    feed-forward layers as 4 shards (c_fc: 4 weights and 4 biases; c_proj: 4 weights and one bias). That is 25 tensors a
    layer instead of 12, in 12 layers, with 2 embeddings and the 2 tensors of the last norm.
    """
    width, norm = 768, [(768,), (768,)]
    if split:
        attention = [(width, width), (width,)] * 3
        feed_forward = [(width, width), (width,)] * 4 + [(width, width)] * 4 + [(width,)]
    else:
        attention = [(3 * width, width), (3 * width,)]
        feed_forward = [(4 * width, width), (4 * width,), (width, 4 * width), (width,)]
    layer = norm + attention + [(width, width), (width,)] + norm + feed_forward
    return [(50257, width), (1024, width)] + layer * 12 + norm


class Side:
    """One contestant: its own parameters, its own gradients, its optimizer. Two sides of one seed get the same numbers.

    Gradients are views into a bank of random numbers; each fresh_gradients() takes other numbers at other addresses, as
    zero_grad(set_to_none=True) followed by backward() gives, unless `keep` asks for the same tensors each step.
    """

    SLACK = 1 << 20  # numbers in the bank beyond those of one step
    STRIDE = 4096 + 64  # elements that the view moves on each step; keeps the alignment

    def __init__(self, make, shapes, dtype, keep=False, seed=0):
        torch.manual_seed(seed)
        sizes = list(map(math.prod, shapes))
        self.params = [torch.nn.Parameter((torch.randn(shape) * 0.02).to(dtype)) for shape in shapes]
        self.bank = torch.randn(sum(-(-size // 16) * 16 for size in sizes) + self.SLACK).to(dtype)
        self.shapes, self.sizes, self.keep, self.turn = shapes, sizes, keep, 0
        self.optimizer = make(self.params)

    def fresh_gradients(self):
        if self.keep and self.turn:
            return
        start = self.turn * self.STRIDE % self.SLACK
        for param, shape, size in zip(self.params, self.shapes, self.sizes, strict=True):
            param.grad = self.bank[start : start + size].view(shape)
            start += -(-size // 16) * 16
        self.turn += 1

    def step(self):
        self.optimizer.step()


def torch_fused(params):
    return torch.optim.AdamW(params, lr=LR, weight_decay=1e-2, fused=True)


LARGE_NORM = 1e9


class TorchClipping(torch.optim.AdamW):
    """clip_grad_norm_() and then the fused step, as a training loop has them."""

    def __init__(self, params, lr):
        super().__init__(params, lr=lr, weight_decay=1e-2, fused=True)

    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], LARGE_NORM)
        return super().step(closure)


class WrongResultError(Exception):
    pass


def check(ours, theirs, before, steps, tolerance):
    """After `steps` steps of both on equal numbers: both moved, and to the same place. Returns how far apart they are.

    The unit is the path that torch has gone: `tolerance` is how much of it the two may be apart, on average.
    """
    elements = sum(param.numel() for param in before)
    path = (
        sum((a.detach().float() - b.float()).abs().sum().item() for a, b in zip(theirs, before, strict=True)) / elements
    )
    apart, largest = 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        distance = (a.detach().float() - b.detach().float()).abs()
        apart, largest = apart + distance.sum().item() / elements, max(largest, distance.max().item())
    if not path > 0.2 * LR:
        raise WrongResultError(f"torch moved by {path:.3g} on average in {steps} steps of lr {LR}")
    if not apart < tolerance * path:
        raise WrongResultError(
            f"after {steps} steps ours is {apart:.3g} from torch on average, more than {tolerance} of {path:.3g}"
        )
    return {"steps": steps, "path": path, "mean_distance": apart, "largest_distance": largest}
