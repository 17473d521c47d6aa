"""Owns the laws on how close 8-bit state stays to 32-bit state."""

import pytest
import torch
from harness import bits, clones, decoded, moment_of

import pyadamw

ELEMENTS = 10_007


def normal():
    return torch.randn(ELEMENTS)


def sparse():
    return torch.randn(ELEMENTS) * (torch.rand(ELEMENTS) < 0.3)


def heavy_tailed():
    return torch.randn(ELEMENTS) * torch.exp(3 * torch.randn(ELEMENTS))


def ten_steps(gradients, seed):
    """The largest difference between the parameters of an 8-bit and a 32-bit run."""
    torch.manual_seed(seed)
    wide = [torch.nn.Parameter(torch.randn(ELEMENTS))]
    narrow = clones(wide)
    optimizers = pyadamw.AdamW32bit(wide, lr=1e-3), pyadamw.AdamW8bit(narrow, lr=1e-3)
    for _ in range(10):
        wide[0].grad = gradients()
        narrow[0].grad = wide[0].grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert moment_of(optimizers[1].state[narrow[0]]).dtype == torch.uint8
    return (wide[0] - narrow[0]).abs().max().item()


# The figures of issue 2; peers reach 3.4e3 on the last. The error is the extreme of 10,007 elements, so it differs from
# seed to seed: the law is on its median, and no seed may exceed ten times the figure (a parameter cannot move further
# at lr 1e-3 than about lr a step).
@pytest.mark.parametrize(("gradients", "bound"), [(normal, 5e-4), (sparse, 2e-3), (heavy_tailed, 1e-2)])
def test_ten_steps(gradients, bound):
    """After 10 steps at lr 1e-3 no parameter differs from the 32-bit run's by more than the bound: the median of 9
    seeds.
    """
    errors = sorted(ten_steps(gradients, seed) for seed in range(9))
    assert 0 < errors[4] <= bound
    assert errors[-1] <= 10 * bound


def test_second_moment_follows_falling_gradients():
    """Where the gradients of half of each block fall tenfold, v8 / v32 of those elements is 0.9 to 1.1 (median) 3000
    steps later. Rounding to nearest stalls at 12.9: a step with beta2 = 0.999 moves v by less than half the distance of
    two codes.
    """
    n, beta2 = 8192, 0.999
    small = (torch.arange(n) % 2).bool()
    wide = [torch.nn.Parameter(torch.zeros(n))]
    narrow = clones(wide)
    optimizers = [
        pyadamw.AdamW32bit(wide, betas=(0.9, beta2)),
        pyadamw.AdamW8bit(narrow, betas=(0.9, beta2)),
    ]
    for step in range(4000):
        grad = torch.randn(n)
        if step >= 1000:
            grad[small] *= 0.1
        for param, optimizer in zip((wide[0], narrow[0]), optimizers, strict=True):
            param.grad = grad
            optimizer.step()
    state = optimizers[1].state[narrow[0]]
    v8 = decoded(state, "exp_avg_sq")
    v32 = optimizers[0].state[wide[0]]["exp_avg_sq"]
    assert 0.9 <= (v8 / v32)[small].median() <= 1.1
    assert 0.9 <= (v8 / v32)[~small].median() <= 1.1


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-3])
def test_momentum_dies_out(scale):
    """Elements whose gradients become exactly zero, while others of their block go on, come to rest where 32-bit state
    does.

    Their mean movement in 1000 more steps is within 5% of the 32-bit run's. Rounding exp_avg to nearest fails: its
    small codes are more than 20% apart, so that a decay of 10% is undone in every step, and at scale 1e-3 they move 9
    times as far.
    """
    n = 8192
    idle = (torch.arange(n) % 2).bool()
    wide = [torch.nn.Parameter(torch.zeros(n))]
    narrow = clones(wide)
    optimizers = pyadamw.AdamW32bit(wide, weight_decay=0.0), pyadamw.AdamW8bit(narrow, weight_decay=0.0)
    for step in range(1020):
        if step == 20:
            rest = [wide[0].detach().clone(), narrow[0].detach().clone()]
        grad = torch.randn(n)
        grad[idle] *= scale if step < 20 else 0
        wide[0].grad = narrow[0].grad = grad
        for optimizer in optimizers:
            optimizer.step()
    moved = [(p[0] - start).abs()[idle].mean().item() for p, start in zip((wide, narrow), rest, strict=True)]
    assert abs(moved[1] / moved[0] - 1) <= 0.05


@pytest.mark.parametrize("amsgrad", [False, True])
def test_zero_gradients_move_nothing(amsgrad):
    """With weight_decay 0, elements whose gradient is exactly zero keep their bits for 200 steps, whatever their block
    does.
    """
    param = torch.nn.Parameter(torch.randn(ELEMENTS))
    start, idle = param.detach().clone(), torch.rand(ELEMENTS) < 0.5
    optimizer = pyadamw.AdamW8bit([param], weight_decay=0.0, amsgrad=amsgrad)
    for _ in range(200):
        param.grad = torch.randn(ELEMENTS).masked_fill(idle, 0.0)
        optimizer.step()
    assert bits(param[idle]) == bits(start[idle])
    assert (param[~idle] != start[~idle]).all()


@pytest.mark.parametrize("block_wise", [True, False])
def test_one_step_comes_before_quantization(block_wise):
    """The step uses the moments before they are rounded: the first step of 8-bit state is that of 32-bit state but for
    float32 roundings, ten on the way to the change (of at most lr = 1e-3) and one of the parameter; a code's are 2^-8.
    """
    wide = [torch.nn.Parameter(torch.randn(3, 5000))]
    narrow = clones(wide)
    for params, optimizer in (
        (wide, pyadamw.AdamW32bit(wide)),
        (narrow, pyadamw.AdamW8bit(narrow, block_wise=block_wise)),
    ):
        params[0].grad = torch.full((3, 5000), 0.5).cos_().mul_(torch.linspace(-3, 3, 15000).view(3, 5000))
        optimizer.step()
    allowed = 10 * 2**-24 * 1e-3 + 2**-23 * wide[0].abs()
    assert ((wide[0] - narrow[0]).abs() <= allowed).all()
