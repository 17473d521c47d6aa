"""Owns independent references in plain torch operations, written from the papers and from bitsandbytes' documented
behaviour. Must not use pyadamw.
"""

import torch


class Reference:
    """AdamW of one tensor in float64: the parameter is rounded once per step, to its own dtype.

    Sources: Loshchilov & Hutter 2019 (AdamW), Reddi et al. 2018 (amsgrad), bitsandbytes (percentile_clipping,
    max_unorm, skip_zeros).
    """

    def __init__(
        self,
        param,
        lr=1e-3,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=1e-2,
        amsgrad=False,
        maximize=False,
        percentile_clipping=100,
        max_unorm=0.0,
        skip_zeros=False,
    ):
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.amsgrad, self.maximize, self.skip_zeros = amsgrad, maximize, skip_zeros
        self.percentile_clipping, self.max_unorm = percentile_clipping, max_unorm
        self.param = param.detach().clone()
        self.exp_avg, self.exp_avg_sq, self.max_exp_avg_sq = (torch.zeros(param.shape).double() for _ in range(3))
        self.history = None
        self.step_count = 0

    def clip(self, grad):
        """percentile_clipping: the first squared norm above zero fills the history, the t-th replaces entry t % 100."""
        squared = grad.square().sum()
        if self.history is None or not self.history.any():
            self.history = torch.full((100,), squared.item()).double()
        else:
            self.history[self.step_count % 100] = squared
        limit = self.history.sort().values[self.percentile_clipping].sqrt()
        norm = squared.sqrt()
        return grad * (limit / norm) if norm > limit else grad

    def step(self, grad):
        """One step; returns the new parameter."""
        grad = grad.double() * (-1 if self.maximize else 1)
        self.step_count += 1
        if self.percentile_clipping < 100:
            grad = self.clip(grad)
        beta1, beta2 = self.betas
        param = self.param.double()
        exp_avg = beta1 * self.exp_avg + (1 - beta1) * grad
        exp_avg_sq = beta2 * self.exp_avg_sq + (1 - beta2) * grad * grad
        largest = torch.maximum(self.max_exp_avg_sq, exp_avg_sq)
        second = largest if self.amsgrad else exp_avg_sq
        m_hat = exp_avg / (1 - beta1**self.step_count)
        update = m_hat / ((second / (1 - beta2**self.step_count)).sqrt() + self.eps)
        if self.max_unorm > 0:
            size, limit = update.norm(), self.max_unorm * param.norm()
            if size > limit:
                update = update * (limit / size)
        new = param * (1 - self.lr * self.weight_decay) - self.lr * update
        if self.skip_zeros:
            kept = grad == 0
            new = torch.where(kept, param, new)
            exp_avg = torch.where(kept, self.exp_avg, exp_avg)
            exp_avg_sq = torch.where(kept, self.exp_avg_sq, exp_avg_sq)
            largest = torch.where(kept, self.max_exp_avg_sq, largest)
        self.exp_avg, self.exp_avg_sq, self.max_exp_avg_sq = exp_avg, exp_avg_sq, largest
        self.param = new.to(self.param.dtype)
        return self.param


def dynamic_map(signed):
    """The 256 values of bitsandbytes' dynamic map in float64, ascending: decades of midpoints, and 0 and 1."""
    values = [0.0, 1.0]
    for i in range(7):
        boundaries = torch.linspace(0.1, 1, 2 ** (i if signed else i + 1) + 1, dtype=torch.float64)
        middles = 10.0 ** (i - 6) * (boundaries[:-1] + boundaries[1:]) / 2
        values += middles.tolist()
        if signed:
            values += (-middles).tolist()
    return torch.tensor(sorted(values), dtype=torch.float64)


def blocks(shape, size=256, shortest_row=64):
    """The block number of every element of a tensor of `shape`, flat: a row of dimension 0 that has at least 64
    elements begins a new block; otherwise every 256 elements do.
    """
    numel = torch.Size(shape).numel()
    index = torch.arange(numel)
    row = numel // shape[0] if len(shape) > 1 and shape[0] else numel
    if len(shape) > 1 and row >= shortest_row:
        return index // row * (-(-row // size)) + index % row // size
    return index // size
