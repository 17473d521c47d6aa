"""Owns the law: GradScaler works as with torch.optim.AdamW, and an overflow changes neither parameters nor step counts.

With capturable=True step() unscales and tests itself, as torch's fused class does; else GradScaler does it.
"""

import pytest
import torch
from harness import bits, clones, parameters, state_bits

import pyadamw


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("masters", [None, 24, 32])
def test_scaled_training_equals_unscaled(masters, capturable):
    """With a power-of-two scale, training through GradScaler has the bits of training without it."""
    params = parameters([(5000,), (300,)], torch.bfloat16 if masters else torch.float32)
    others = clones(params)
    options = {"master_weight_bits": masters, "capturable": capturable}
    scaled, plain = (pyadamw.AdamW8bit(these, **options) for these in (params, others))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for _ in range(3):
        for these, optimizer in ((params, scaled), (others, plain)):
            optimizer.zero_grad()
            loss = sum((p * p).sum() for p in these)
            if optimizer is scaled:
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
            else:
                loss.backward()
                optimizer.step()
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_unscaling_first_is_the_same():
    """scaler.unscale_() before the step, as for gradient clipping, has the same effect."""
    params = parameters([(5000,)])
    others = clones(params)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**12) for _ in range(2)]
    for these, scaler in zip((params, others), scalers, strict=True):
        optimizer = pyadamw.AdamW32bit(these)
        scaler.scale((these[0] ** 3).sum()).backward()
        if these is others:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
    assert bits(params[0]) == bits(others[0])


def test_overflow_changes_nothing():
    """With an infinite gradient the step does nothing, the scale falls, and the next step is the first."""
    params = parameters([(5000,), (300,)])
    for cls in (pyadamw.AdamW8bit, pyadamw.AdamW32bit):
        these = clones(params)
        optimizer = cls(these)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        counts = []
        for overflow in (True, False, True, False):
            optimizer.zero_grad()
            scaler.scale(sum((p * p).sum() for p in these)).backward()
            if overflow:
                these[1].grad[0] = float("inf")
            before = [(bits(p), state_bits(optimizer, p) if p in optimizer.state else None) for p in these]
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            after = [(bits(p), state_bits(optimizer, p) if p in optimizer.state else None) for p in these]
            assert (before == after) is overflow
            assert (scaler.get_scale() < scale) is overflow
            counts.append([int(optimizer.state[p]["step"]) if optimizer.state.get(p) else 0 for p in these])
        assert counts == [[0, 0], [1, 1], [1, 1], [2, 2]]
        assert optimizer.skipped_elements == 0


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize("cls", [torch.optim.AdamW, pyadamw.AdamW32bit, pyadamw.AdamW8bit])
def test_gradients_are_unscaled_after_the_step(cls, unscaled, capturable):
    """Whoever looks at them then sees those of a run without a scaler; with two groups and a missing gradient."""
    params = parameters([(5000,), (300,), (7,)])
    ours = cls is not torch.optim.AdamW
    options = {"capturable": capturable} if ours else {"fused": capturable}
    optimizer = cls([{"params": params[:1]}, {"params": params[1:], "lr": 1e-2}], **options)
    if ours:
        assert optimizer._step_supports_amp_scaling is capturable
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(sum((p * p).sum() for p in params[:2])).backward()
        wanted = [p.grad / scaler.get_scale() for p in params[:2]]
        if unscaled:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(params, wanted, strict=False))
