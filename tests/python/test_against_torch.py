"""Owns the law: AdamW32bit in float32 is torch.optim.AdamW to within float32 rounding."""

import pytest
import torch
from harness import clones, give_gradients, parameters

import pyadamw

STEPS, ELEMENTS = 100, 100_003


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_float32_equals_torch(amsgrad, maximize, weight_decay):
    """After 100 steps on 100,003 elements the relative error is at most 1e-6.

    Relative error here: the largest |ours - torch's| over the largest |torch's|, for the parameters; and the same for
    the sum of all updates, which hides nothing behind a large parameter. Each step rounds the parameter once (half a
    unit in the last place, 6e-8 of its size, independent in sign), so 100 steps drift apart by about 6e-8 * sqrt(100)
    of one unit.
    """
    ours = parameters([(ELEMENTS,)])
    theirs, start = clones(ours), ours[0].detach().clone()
    options = {"lr": 1e-2, "weight_decay": weight_decay, "amsgrad": amsgrad, "maximize": maximize}
    mine, torchs = pyadamw.AdamW32bit(ours, **options), torch.optim.AdamW(theirs, **options)
    for step in range(STEPS):
        give_gradients(ours, step)
        theirs[0].grad = ours[0].grad.clone()
        mine.step()
        torchs.step()
    error = (ours[0] - theirs[0]).abs().max()
    assert error / theirs[0].abs().max() <= 1e-6
    assert error / (theirs[0] - start).abs().max() <= 1e-5  # the way is a tenth of the largest parameter, or more


def test_state_equals_torch():
    """The moments are torch's, to within the rounding of 20 steps (20 * 6e-8 of the largest)."""
    ours = parameters()
    theirs = clones(ours)
    mine, torchs = pyadamw.AdamW32bit(ours, amsgrad=True), torch.optim.AdamW(theirs, amsgrad=True)
    for step in range(20):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        mine.step()
        torchs.step()
    for p, q in zip(ours, theirs, strict=True):
        assert set(mine.state[p]) == set(torchs.state[q])
        assert torch.equal(mine.state[p]["step"], torchs.state[q]["step"])
        for key in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            expected = torchs.state[q][key]
            assert (mine.state[p][key] - expected).abs().max() <= 20 * 6e-8 * expected.abs().max()
