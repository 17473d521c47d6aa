"""Owns independent references in plain torch operations, written from the papers and from bitsandbytes' documented
behaviour. Must not use pyadamw.
"""

import numpy as np
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


# ---- the codes of 8-bit state ----------------------------------------------------------------------------------------

SMALLEST_SCALE = 2.0**-126
LARGEST_FLOOR = 255 / 256
ROOT_OF_ZERO = 1.125 * 2.0**-16  # the eighth root, as root() takes it
ONE = 0x3F800000  # the bits of 1.0


def root(values, halvings):
    """The root of magnitudes in [0, 1], nearly the 2^halvings-th: the exponent is divided, and so is what follows."""
    bits = values.contiguous().view(torch.int32) >> halvings
    return (bits + (ONE - (ONE >> halvings))).view(torch.float32)


def power(roots, halvings):
    """The inverse of root(), but for the last bits of a number; what is not above the root of zero is 0."""
    bits = roots.contiguous().view(torch.int32) - (ONE - (ONE >> halvings))
    return (bits.clamp_min(0) << halvings).view(torch.float32)


def _once(values):
    """float64 rounded to float32: of one product and one sum of float32 numbers this is a fused multiply-add."""
    return values.to(torch.float32)


class RootCodes:
    """The definition of the codes of a moment, with the words and the order of operations of adamw.h: positions between
    codes, and the values of codes. `absmax` and `floor` (of exp_avg_sq) are those of one block, or of each element.
    """

    def __init__(self, moment, absmax=1.0, floor=0.0):
        self.squared = moment != "exp_avg"
        self.absmax, self.floor = (torch.as_tensor(number, dtype=torch.float32) for number in (absmax, floor))

    @classmethod
    def of(cls, moment, block):
        """With the scale and floor of a block."""
        largest = block.abs().max()
        if largest < SMALLEST_SCALE:
            return cls(moment, 0.0, ROOT_OF_ZERO)
        smallest = root((block.abs().min() * (1 / largest.double()).float())[None], 3)
        return cls(moment, float(largest), min(float(smallest), LARGEST_FLOOR))

    def decode(self, codes):
        codes = codes.double()
        if self.squared:
            floor = torch.where((self.floor >= ROOT_OF_ZERO) & (self.floor <= 1), self.floor, 0.0)
            slope = (1 - floor) * _once(torch.tensor(1 / 255).double())
            return power(_once(codes * slope.double() + floor.double()), 3) * self.absmax
        roots = _once(codes * float(torch.tensor(1 / 127)) + float(torch.tensor(-128 / 127)))
        return power(roots.abs(), 2) * roots.sign() * self.absmax

    def positions(self, values):
        """Where numbers lie among the codes: 3.25 is a quarter of the way from code 3 to code 4. Known to 2^-15."""
        scaled = torch.where(self.absmax > 0, values * (1 / self.absmax.double()).float(), 0.0)
        if not self.squared:
            roots = root(scaled.abs(), 2).copysign(values)
            return _once(roots.double() * 127 + 384.5) - 256.5
        per_code = torch.tensor(255 - 2.0**-16) / (1 - self.floor)
        start = 511.5 - per_code
        found = _once(root(scaled, 3).double() * per_code.double() + start.double()) - 256.5
        has_zeros = self.floor <= ROOT_OF_ZERO
        return torch.where(scaled > 0, torch.maximum(found, has_zeros.float()), 0.0)

    def nearest(self, values):
        return (self.positions(values) + 0.5).floor().to(torch.uint8)


def codes_away(state, moment, values):
    """How many codes lie between what the state of a parameter stores and `values`: at most 0.5 where the nearest codes
    are stored.
    """
    codes, absmax, floor = (state.get(f"{moment}_{part}") for part in ("codes", "absmax", "floor"))
    number = blocks(codes.shape) if absmax.numel() > 1 else torch.zeros(codes.numel(), dtype=torch.long)
    of_elements = [torch.zeros(()) if of is None else of.reshape(-1)[number] for of in (absmax, floor)]
    positions = RootCodes(moment, *of_elements).positions(values.reshape(-1).float())
    return (positions - codes.reshape(-1)).abs()


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


def half_away(weights):
    """float32 weights rounded to the nearest bfloat16, half a unit away from zero, by the definition of the header."""
    raw = weights.detach().reshape(-1).numpy().view(np.uint32).astype(np.uint64)
    upper = (((raw + 0x8000) >> 16) & 0xFFFF).astype(np.uint16)
    return torch.from_numpy(upper.view(np.int16).copy()).view(torch.bfloat16).view(weights.shape)
