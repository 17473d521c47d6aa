"""Owns the laws on percentile_clipping, max_unorm and skip_zeros: they do what the references written from
bitsandbytes' documentation do.
"""

import pytest
import torch
from harness import bits, give_gradients, parameters, train
from reference import Reference

import pyadamw

# 32-bit moments against float64: a norm over n elements is off by a few float32 units (6e-8), and so is each of the
# steps.
TOLERANCE = 2e-6


def follow(steps, scales=None, shape=(5000,), dtype=torch.float32, grad_dtype=None, cls=pyadamw.AdamW32bit, **options):
    """Runs AdamW and the reference side by side; returns (parameter, reference's parameter, optimizer)."""
    params = parameters([shape], dtype)
    reference = Reference(params[0].detach().float(), **options)
    special = {name: options.pop(name) for name in ("max_unorm", "skip_zeros") if name in options}
    optimizer = cls(params, args=special, **options)
    for step in range(steps):
        scale = 1.0 if scales is None else scales[step]
        give_gradients(params, step, scale=scale, dtype=grad_dtype)
        if special.get("skip_zeros"):
            params[0].grad[::3] = 0
        reference.step(params[0].grad.float())
        optimizer.step()
    return params[0].detach(), reference.param, optimizer


def assert_close(param, expected, tolerance=TOLERANCE):
    assert (param - expected).abs().max() <= tolerance * expected.abs().max()


def bursts(steps):
    """Gradient scales with a hundredfold outlier now and then."""
    return [100.0 if step % 7 == 3 else 1.0 + 0.3 * (step % 5) for step in range(steps)]


@pytest.mark.parametrize("percentile", [1, 5, 50, 99])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_clipping_is_the_references(percentile, amsgrad):
    """130 steps with bursts: more than the 100 entries of the history, so that entries are replaced."""
    param, expected, optimizer = follow(
        130, bursts(130), percentile_clipping=percentile, amsgrad=amsgrad, lr=1e-2, shape=(1000,)
    )
    assert_close(param, expected, 1e-5)  # 130 steps at lr 1e-2: ten times as far as in the tests below
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["gnorm_history"].shape == (100,)


def test_clipping_clips():
    """The same bursts without clipping lead elsewhere: the test above can fail."""
    clipped, _, _ = follow(30, bursts(30), percentile_clipping=5, lr=1e-2)
    free, _, _ = follow(30, bursts(30), lr=1e-2)
    assert (clipped - free).abs().max() > 1e-3


@pytest.mark.parametrize("percentile", [5, 60])
def test_clipping_with_8_bit_state(percentile):
    """8-bit state clips alike: within the distance of 8-bit from 32-bit state (5e-4 in 10 steps at lr 1e-3,
    test_accuracy8).
    """
    param, expected, _ = follow(10, bursts(10), percentile_clipping=percentile, cls=pyadamw.AdamW8bit)
    assert (param - expected).abs().max() <= 5e-4


def test_history_holds_squared_norms():
    """The history holds the squared norms: the first step's everywhere, then one entry a step."""
    params = parameters([(5000,)])
    optimizer = pyadamw.AdamW8bit(params, percentile_clipping=50)
    norms = []
    for step in range(3):
        give_gradients(params, step)
        norms.append(params[0].grad.double().square().sum().item())
        optimizer.step()
    history = optimizer.state[params[0]]["gnorm_history"].double()
    expected = torch.full((100,), norms[0], dtype=torch.float64)
    expected[2], expected[3] = norms[1], norms[2]
    assert torch.allclose(history, expected, rtol=1e-6, atol=0)


def test_history_that_begins_late():
    """Clipping that is switched on in the middle of a run begins with the norm of that step, like a run that starts
    there.
    """
    params = parameters([(300,)])
    optimizer = pyadamw.AdamW32bit(params)
    train(optimizer, params, 3)
    optimizer.param_groups[0]["percentile_clipping"] = 20
    train(optimizer, params, 1, first=3)
    norm = params[0].grad.square().sum()
    history = optimizer.state[params[0]]["gnorm_history"]
    assert torch.allclose(history, norm.expand(100), rtol=1e-6, atol=0)
    before = params[0].detach().clone()
    train(
        optimizer, params, 1, first=4, scale=1e6
    )  # without clipping, a step of m / sqrt(v) = 0.1 / sqrt(0.001) = 3 lr
    assert (params[0] - before).abs().max() < 2e-3


@pytest.mark.parametrize("max_unorm", [1e-3, 0.02, 10.0])
@pytest.mark.parametrize("shape", [(5000,), (70, 300)])
def test_max_unorm_is_the_references(max_unorm, shape):
    """The update of a tensor is at most max_unorm times its norm, and unchanged where it is smaller."""
    param, expected, _ = follow(10, max_unorm=max_unorm, lr=1e-2, shape=shape)
    assert_close(param, expected)


def test_max_unorm_of_zeros_stays():
    """A tensor of zeros never moves with max_unorm, as in bitsandbytes."""
    param = torch.nn.Parameter(torch.zeros(300))
    optimizer = pyadamw.AdamW32bit([param], args={"max_unorm": 1.0})
    train(optimizer, [param], 3)
    assert not param.any()


def test_skip_zeros_is_the_references():
    """Elements whose gradient is exactly zero keep parameter and moments, decay included."""
    param, expected, _ = follow(10, skip_zeros=True, weight_decay=0.1, lr=1e-2)
    assert_close(param, expected)
    start = parameters([(5000,)])[0].detach()
    assert bits(param[::3]) == bits(start[::3])


def test_everything_at_once():
    """Clipping, max_unorm, skip_zeros, amsgrad and maximize together are the reference's."""
    options = {"percentile_clipping": 30, "max_unorm": 0.01, "skip_zeros": True, "amsgrad": True, "maximize": True}
    param, expected, _ = follow(40, bursts(40), lr=1e-2, **options)
    assert_close(param, expected, 5e-6)
