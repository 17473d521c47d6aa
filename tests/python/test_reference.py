"""Owns the law: parameters are updated as in float64 and rounded once to their own dtype."""

import pytest
import torch
from harness import give_gradients, parameters, ulps
from reference import Reference

import pyadamw


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("grad_dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_16_bit_parameters_equal_a_reference_rounded_once(dtype, amsgrad, grad_dtype):
    """In every step more than 99.9% of the elements have the reference's bits, and none is further than 1 ulp away.

    float32 arithmetic is off by about 1e-7 of a number; a 16-bit float keeps 8 or 11 bits, so the two disagree only
    where the exact result lies within 1e-7 of a rounding boundary: about 1e-7 / 2^-11 = 2 of 10,000 elements, and then
    by 1 ulp.
    """
    params = parameters([(20_001,)], dtype)
    options = {"lr": 1e-2, "weight_decay": 0.1, "amsgrad": amsgrad}
    optimizer = pyadamw.AdamW32bit(params, **options)
    reference = Reference(params[0], **options)
    for step in range(10):
        give_gradients(params, step, dtype=grad_dtype)
        reference.param = params[0].detach().clone()  # a deviation counts once, not in every later step
        expected = reference.step(params[0].grad)
        optimizer.step()
        distance = (ulps(params[0]) - ulps(expected)).abs()
        assert (distance != 0).float().mean() < 1e-3
        assert distance.max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stochastic_rounding_keeps_small_updates(dtype):
    """Updates far below half an ulp are lost with rounding to nearest, and kept on average with stochastic rounding.

    lr = 1e-5 against an ulp of 2^-7 (bfloat16) or 2^-10 (float16) at 1.0. The mean of n = 100,000 parameters moves by
    steps * lr; each parameter's rounding has a variance of at most ulp * moved, so the mean is within 5 * sqrt(ulp *
    moved / n).
    """
    steps, lr, n = 50, 1e-5, 100_000
    for stochastic in (False, True):
        param = torch.nn.Parameter(torch.full((n,), 1.5, dtype=dtype))
        optimizer = pyadamw.AdamW32bit([param], lr=lr, weight_decay=0.0, stochastic_rounding=stochastic, seed=3)
        for _ in range(steps):
            param.grad = torch.ones_like(param)
            optimizer.step()
        moved = 1.5 - param.double().mean().item()
        ulp = torch.finfo(dtype).eps
        if stochastic:
            assert abs(moved - steps * lr) <= 5 * (ulp * steps * lr / n) ** 0.5
        else:
            assert moved == 0


def test_seed_decides_the_rounding():
    """Equal seeds give equal bits, different seeds different ones."""

    def run(seed):
        params = parameters([(1000,)], torch.bfloat16)
        optimizer = pyadamw.AdamW32bit(params, stochastic_rounding=True, seed=seed)
        for step in range(5):
            give_gradients(params, step)
            optimizer.step()
        return params[0]

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
