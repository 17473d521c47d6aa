"""Owns the law: max_grad_norm is torch.nn.utils.clip_grad_norm_() and then the step, without touching the gradients.

(test_clipping_options.py: the options in groups, copies and checkpoints; test_clipping_sharded.py: several processes.)
"""

import pytest
import torch
from harness import CLASSES, bits, clones, give_gradients, parameters, state_bits

import pyadamw

INFINITY, NAN = float("inf"), float("nan")
SHAPES = ((50, 300), (7,), (5000,), (3, 700), (), (0, 4))
# Single precision: torch computes the norm, the coefficient and the clipped gradient in float32, each within 2^-24 or a
# few of them; a step moves a parameter by about lr, and 20 steps by 20 of these.
TIGHT = 1e-6


def clip(params, max_norm, **options):
    return torch.nn.utils.clip_grad_norm_(params, max_norm, **options)


def assert_close(params, others, tolerance=TIGHT):
    for p, q in zip(params, others, strict=True):
        if p.numel():
            assert (p - q).detach().abs().max() <= tolerance * q.detach().abs().max()


def test_it_is_clip_grad_norm_and_then_the_step():
    """20 steps with norms above and below the limit, in float32: parameters and norms to 1e-6 of torch's."""
    params = parameters(SHAPES)
    others = clones(params)
    inside, outside = pyadamw.AdamW32bit(params, lr=1e-2, max_grad_norm=1.0), pyadamw.AdamW32bit(others, lr=1e-2)
    assert inside.grad_norm is None
    above = 0
    for step in range(20):
        for these in (params, others):
            give_gradients(these, step, scale=0.1 if step % 3 else 1e-3)
        before = [bits(p.grad) for p in params]
        norm = clip(others, 1.0)
        inside.step()
        outside.step()
        above += norm > 1
        assert (inside.grad_norm.dtype, inside.grad_norm.shape, inside.grad_norm.device) == (
            torch.float32,
            (),
            params[0].device,
        )
        assert abs(inside.grad_norm / norm - 1) <= 1e-6
        assert [bits(p.grad) for p in params] == before
    assert 0 < above < 20
    assert_close(params, others)


def test_below_the_limit_nothing_changes():
    """With a factor of 1 a step has the bits of one without clipping; so has an infinite limit, which only measures."""
    made = []
    for limit in (None, INFINITY, 1e6):
        params = parameters(SHAPES)
        optimizer = pyadamw.AdamW8bit(params, max_grad_norm=limit, min_8bit_size=100)
        give_gradients(params, 0)
        optimizer.step()
        made.append([state_bits(optimizer, p) for p in params] + [bits(p) for p in params])
        assert (optimizer.grad_norm is None) == (limit is None)
    assert made[0] == made[1] == made[2]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("options", [{}, {"percentile_clipping": 30}, {"args": {"max_unorm": 0.01}}, {"amsgrad": True}])
def test_every_class_and_option(cls, options):
    """The bits of a step on gradients that were clipped by a power of two before, whose products are exact."""
    params = parameters(SHAPES)
    others = clones(params)
    inside, outside = (cls(these, min_8bit_size=1000, **options) for these in (params, others))
    for step in range(3):
        give_gradients(params, step)
        norm = torch.stack([p.grad.double().square().sum() for p in params]).sum().sqrt()
        limit = float(norm + 1e-6) / 4  # a factor that is nearly 1/4 in double, and exactly in single precision
        for group in inside.param_groups:
            group["max_grad_norm"] = limit
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad * 0.25
        inside.step()
        outside.step()
        assert abs(inside.grad_norm / norm - 1) <= 2**-23
    for p, q in zip(params, others, strict=True):
        assert bits(p) == bits(q)
        assert state_bits(inside, p) == state_bits(outside, q)


def test_one_norm_of_groups_and_dtypes():
    """Gradients of all groups and dtypes, those that are views, negated or missing: the norm of the float64 numbers,
    rounded once. bfloat16 gradients are not rounded in between."""
    made = parameters([(50, 30), (5000,), (300,), (70, 20), (40,), (9, 11)])
    params = [made[0], torch.nn.Parameter(made[1].detach().bfloat16()), torch.nn.Parameter(made[2].detach().half())]
    params += made[3:]
    optimizer = pyadamw.AdamW8bit(
        [{"params": params[:2]}, {"params": params[2:], "lr": 1e-2, "optim_bits": 32}], max_grad_norm=2.0
    )
    wide = clones([p.detach().float() for p in params])
    reference = pyadamw.AdamW8bit([{"params": wide[:2]}, {"params": wide[2:], "lr": 1e-2, "optim_bits": 32}])
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        for i, p in enumerate(params):
            p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
            if i == 3:
                p.grad = torch.randn(20, 70, generator=generator).t()
            if i == 5:
                p.grad = torch.randn(9, 11, dtype=torch.complex64, generator=generator).conj().imag
        params[4].grad = None if step % 2 else params[4].grad
        squares = sum(p.grad.double().square().sum() for p in params if p.grad is not None)
        optimizer.step()
        assert optimizer.grad_norm == squares.sqrt().float()
        factor = (2.0 / (squares.sqrt() + 1e-6)).float()
        for p, q in zip(params, wide, strict=True):
            q.grad = None if p.grad is None else p.grad.float() * factor
        reference.step()
    for p, q in zip((params[0], *params[3:]), (wide[0], *wide[3:]), strict=True):
        assert bits(p) == bits(q)  # float32 parameters: the clipped gradient is the same float32 number
    # A bfloat16 parameter rounds each step by 2^-9 of itself; its gradient is clipped in float32.
    assert_close([params[1].float()], [wide[1]], 4 * 2**-8)


def test_other_gradient_dtypes():
    """Gradients of another dtype than the parameter's count with their own."""
    params = parameters([(300,), (20, 300)])
    optimizer = pyadamw.AdamW(params, max_grad_norm=1.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        optimizer.zero_grad()
        give_gradients(params, 1, dtype=dtype)
        expected = sum(p.grad.double().square().sum() for p in params).sqrt().float()
        optimizer.step()
        assert optimizer.grad_norm == expected


def test_no_gradient_at_all():
    params = parameters([(300,), (20,)])
    optimizer = pyadamw.AdamW(params, max_grad_norm=1.0)
    before = [bits(p) for p in params]
    optimizer.step()
    assert optimizer.grad_norm == 0
    assert [bits(p) for p in params] == before


def test_the_norm_is_a_copy():
    """What grad_norm has returned does not change with later steps."""
    params = parameters([(300,)])
    optimizer = pyadamw.AdamW(params, max_grad_norm=1.0)
    found = []
    for step in range(3):
        give_gradients(params, step)
        optimizer.step()
        found.append(optimizer.grad_norm)
    assert len({float(norm) for norm in found}) == 3


def test_in_inference_mode_and_outside():
    params = parameters([(300,)])
    optimizer = pyadamw.AdamW(params, max_grad_norm=1.0)
    for step in range(4):
        give_gradients(params, step)
        with torch.inference_mode(step % 2 == 0):
            optimizer.step()
            norm = optimizer.grad_norm
        assert abs(norm / params[0].grad.norm() - 1) <= 1e-6


# ---- numbers that are not finite -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [INFINITY, -INFINITY, NAN])
@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW16bit])
def test_not_finite_is_as_in_torch(cls, bad):
    """Infinity makes the factor 0, which turns infinite gradients into NaN and others into 0; NaN makes all NaN."""
    params = parameters(SHAPES)
    others = clones(params)
    inside, outside = cls(params, max_grad_norm=1.0), cls(others)
    for these in (params, others):
        give_gradients(these, 0)
        these[2].grad[17] = bad
    norm = clip(others, 1.0)
    inside.step()
    outside.step()
    assert torch.equal(inside.grad_norm, norm) or (norm.isnan() and inside.grad_norm.isnan())
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p.isnan(), q.isnan())
        assert torch.equal(p.nan_to_num(), q.nan_to_num())


@pytest.mark.parametrize(("bad", "skipped"), [(INFINITY, 1), (NAN, sum(torch.Size(s).numel() for s in SHAPES))])
def test_8_bits_skip_and_count(bad, skipped):
    """What is NaN after clipping is skipped and counted: with infinity that element, with NaN every one."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, max_grad_norm=1.0, min_8bit_size=0)
    give_gradients(params, 0)
    params[2].grad[17] = bad
    optimizer.step()
    assert optimizer.skipped_elements == skipped
    assert all(p.isfinite().all() for p in params)


@pytest.mark.parametrize("bad", [INFINITY, NAN])
def test_error_if_nonfinite(bad):
    """A RuntimeError before anything is stepped, as torch's; the next step is the first."""
    params = parameters(SHAPES)
    optimizer = pyadamw.AdamW8bit(params, max_grad_norm=1.0, error_if_nonfinite=True)
    give_gradients(params, 0)
    params[2].grad[17] = bad
    with pytest.raises(RuntimeError, match="non-finite"):
        clip(clones_with_gradients(params), 1.0, error_if_nonfinite=True)
    before = [bits(p) for p in params]
    with pytest.raises(RuntimeError, match=f"{bad}.*error_if_nonfinite=False"):
        optimizer.step()
    assert [bits(p) for p in params] == before
    give_gradients(params, 1)
    optimizer.step()
    assert {float(optimizer.state[p]["step"]) for p in params} == {1.0}


def clones_with_gradients(params):
    others = clones(params)
    for p, q in zip(params, others, strict=True):
        q.grad = p.grad.clone()
    return others


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("cls", [pyadamw.AdamW32bit, pyadamw.AdamW8bit])
def test_with_a_grad_scaler(cls, capturable):
    """The norm is that of unscaled gradients, whoever unscales; an overflow changes nothing, and raises nothing."""
    params = parameters([(5000,), (300,)])
    others = clones(params)
    inside = cls(params, lr=1e-2, max_grad_norm=0.5, capturable=capturable, error_if_nonfinite=True)
    outside = cls(others, lr=1e-2)
    scalers = [torch.amp.GradScaler("cpu", init_scale=2.0**10) for _ in range(2)]
    for step in range(5):
        for these, optimizer, scaler in zip((params, others), (inside, outside), scalers, strict=True):
            optimizer.zero_grad()
            scaler.scale(sum((p * p).mean() for p in these)).backward()
            if step == 2:
                these[1].grad[0] = INFINITY
            if optimizer is outside:
                scaler.unscale_(optimizer)
                norm = clip(these, 0.5)
            before = [bits(p) for p in these]
            scaler.step(optimizer)
            scaler.update()
            assert (before == [bits(p) for p in these]) is (step == 2)
        if step != 2:
            assert abs(inside.grad_norm / norm - 1) <= 1e-6
    assert_close(params, others, 1e-6 if cls is pyadamw.AdamW32bit else 1e-4)
    assert {float(inside.state[p]["step"]) for p in params} == {4.0}
