"""Owns the laws of split_weights() and join_weights(), by the definition in adamw.h."""

import pytest
import torch
from harness import bits
from reference import half_away

from pyadamw.functional import join_weights, split_weights


def patterns():
    """float32 numbers of all kinds: every upper half, with lower halves at and beside every rounding."""
    upper = torch.arange(2**16, dtype=torch.int64)[:, None] << 16
    lower = torch.tensor([0, 1, 0x7F, 0x80, 0x81, 0x7FFF, 0x8000, 0x8001, 0xFF7F, 0xFF80, 0xFFFF])
    raw = (upper + lower).reshape(-1)
    return torch.where(raw >= 2**31, raw - 2**32, raw).to(torch.int32).view(torch.float32)


def test_what_is_split_is_joined():
    """All float32 numbers but NaNs come back from 32 bits, and those of 24 bits from 24."""
    weights = patterns()
    known = ~weights.isnan()
    param, remainder = split_weights(weights)
    assert (param.dtype, remainder.dtype) == (torch.bfloat16, torch.int16)
    joined = join_weights(param, remainder)
    assert bits(joined[known]) == bits(weights[known])
    assert joined[~known].isnan().all()
    assert bits(param[known]) == bits(half_away(weights)[known])
    upper = (weights.view(torch.int32) & ~0xFF).view(torch.float32)
    param, remainder = split_weights(upper, 24)
    assert remainder.dtype == torch.int8
    known = ~upper.isnan()
    assert bits(join_weights(param, remainder)[known]) == bits(upper[known])


def test_24_bits_are_the_nearest():
    """To half a unit of the 24th bit; 32 random bits below are as often above as below."""
    weights = torch.randn(10_000)
    unit = 2.0 ** (torch.frexp(weights)[1] - 1 - 15).double()
    joined = join_weights(*split_weights(weights, 24))
    assert ((joined.double() - weights.double()).abs() <= unit / 2).all()
    stochastic = [join_weights(*split_weights(weights, 24, rounding="stochastic", seed=seed)) for seed in range(200)]
    errors = torch.stack(stochastic).double() - weights
    assert (errors.abs() < unit).all()
    assert (errors / unit).mean().abs() < 4 * 0.5 / (200 * 10_000) ** 0.5
    assert not torch.equal(stochastic[0], stochastic[1])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5, 7), (300,)])
def test_shapes_are_kept(shape):
    weights = torch.randn(shape)
    param, remainder = split_weights(weights, 32)
    assert param.shape == remainder.shape == weights.shape
    assert torch.equal(join_weights(param, remainder), weights)
    if weights.dim() == 2:
        assert torch.equal(join_weights(*split_weights(weights.T)), weights.T)


def test_wrong_arguments_are_refused():
    weights = torch.randn(30)
    param, remainder = split_weights(weights)
    for call, message in (
        (lambda: split_weights(weights, 16), "master_weight_bits = 16: must be 24 or 32"),
        (lambda: split_weights(weights, rounding="up"), "rounding = 'up'"),
        (lambda: split_weights(weights.to(torch.complex64)), "complex64: must be real"),
        (lambda: split_weights([1.0]), "weights is list"),
        (lambda: split_weights(weights, step=-1), "step = -1: must be an integer"),
        (lambda: split_weights(weights, seed=2**64), "seed = 18446744073709551616: must be an integer"),
        (lambda: join_weights(weights, remainder), "param has dtype float32: must be bfloat16"),
        (lambda: join_weights(param, remainder.int()), "remainder is torch.int32.*int8 or int16"),
        (lambda: join_weights(param, remainder[:-1]), r"shape \(29,\)"),
        (lambda: join_weights(param, 3), "remainder is int"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
