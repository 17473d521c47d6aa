"""Owns the law: every documented argument works, and a wrong value is a ValueError of the constructor that names it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import CLASSES, bits, clones, moment_of, parameters, train

import pyadamw

NAN, INFINITY = float("nan"), float("inf")
WRONG = {
    "lr": (-1e-3, NAN, INFINITY, "0.1", None, True, torch.tensor([1.0, 2.0]), torch.tensor(NAN), torch.tensor(-1.0)),
    "betas": ((1.0, 0.9), (0.9, 1.0), (-0.1, 0.9), (0.9, NAN), (0.9,), 0.9, None, (0.9, 0.9, 0.9), (True, 0.9)),
    "eps": (-1e-8, NAN, INFINITY, "1e-8", None, False),
    "weight_decay": (-0.1, NAN, INFINITY, "0", None, True),
    "amsgrad": (1, None, "yes"),
    "optim_bits": (24, 4, 8.0, "8", None, True),
    "args": (5, "optim_bits", [8], True),
    "min_8bit_size": (-1, 4096.0, "4096", None, True, NAN),
    "percentile_clipping": (0, 101, 5.0, -1, None, True, NAN),
    "block_wise": (1, None),
    "maximize": (1, None),
    "stochastic_rounding": (1, None),
    "master_weight_bits": (8, 16, 0, 32.0, True, "32"),
    "seed": (-1, 2**64, 1.0, None, True),
    "max_grad_norm": (-1.0, NAN, -INFINITY, "1", True, (1.0,), torch.tensor(1.0)),
    "error_if_nonfinite": (1, None, "yes"),
}


def one():
    return [torch.nn.Parameter(torch.zeros(3))]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused(cls, name):
    """A ValueError from the constructor names the argument and its value."""
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"{name} = ") as caught:
            cls(one(), **{name: value})
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"args"}))
def test_wrong_values_are_refused_in_groups(name):
    """The same for a group's own value, in the constructor and in add_param_group, which then adds nothing."""
    for value in WRONG[name]:
        with pytest.raises(ValueError, match=rf"{name} = "):
            pyadamw.AdamW([{"params": one(), name: value}])
        optimizer = pyadamw.AdamW(one())
        with pytest.raises(ValueError, match=rf"{name} = "):
            optimizer.add_param_group({"params": one(), name: value})
        assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("name", sorted(set(WRONG) - {"args"}))
def test_wrong_values_are_refused_in_a_step(name):
    """A wrong value that appears in a group later is a ValueError of step(), before any group is stepped."""
    for value in WRONG[name]:
        params = parameters([(300,), (20,)])
        optimizer = pyadamw.AdamW([{"params": params[:1]}, {"params": params[1:]}])
        train(optimizer, params, 1)
        before = [bits(p) for p in params]
        if isinstance(value, (int, float)) and value == optimizer.param_groups[1][name]:
            continue  # 1 for True and 4096.0 for 4096 change nothing
        optimizer.param_groups[1][name] = value
        with pytest.raises(ValueError, match=rf"{name} = "):
            train(optimizer, params, 1)
        assert [bits(p) for p in params] == before
        assert all(float(optimizer.state[p]["step"]) == 1 for p in params)


def test_is_paged_must_be_a_flag():
    """is_paged belongs to the unpaged classes, and is True or False."""
    with pytest.raises(ValueError, match="is_paged = 1"):
        pyadamw.AdamW(one(), is_paged=1)
    with pytest.raises(TypeError):
        pyadamw.PagedAdamW(one(), is_paged=True)


@pytest.mark.parametrize(
    ("cls", "accepted"),
    [
        (pyadamw.AdamW, {8: 8, 16: 16, 32: 32}),
        (pyadamw.PagedAdamW, {8: 8, 16: 16, 32: 32}),
        (pyadamw.AdamW8bit, {8: 8, 32: 8}),
        (pyadamw.PagedAdamW8bit, {8: 8, 32: 8}),
        (pyadamw.AdamW16bit, {16: 16, 32: 16}),
        (pyadamw.PagedAdamW16bit, {16: 16, 32: 16}),
        (pyadamw.AdamW32bit, {32: 32}),
        (pyadamw.PagedAdamW32bit, {32: 32}),
    ],
)
def test_optim_bits(cls, accepted):
    """optim_bits decides in AdamW; the other classes accept 32 and their own width, and have their own."""
    for bits_wanted in (8, 16, 32):
        if bits_wanted not in accepted:
            with pytest.raises(ValueError, match=f"optim_bits = {bits_wanted}.*{cls.__name__}"):
                cls(one(), optim_bits=bits_wanted)
            continue
        params = parameters([(5000,)])
        optimizer = cls(params, optim_bits=bits_wanted)
        train(optimizer, params, 1)
        expected = {8: torch.uint8, 16: torch.bfloat16, 32: torch.float32}[accepted[bits_wanted]]
        assert moment_of(optimizer.state[params[0]]).dtype == expected


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_args_wins(kind):
    """`args` is a mapping or an object; what it carries replaces the argument, what it lacks does not."""
    params = parameters([(5000,)])
    args = kind(optim_bits=8, percentile_clipping=30, max_unorm=0.5, skip_zeros=True, learning_rate=3)
    optimizer = pyadamw.AdamW(
        params, optim_bits=32, args=args, min_8bit_size=100, percentile_clipping=100, block_wise=False
    )
    group = optimizer.param_groups[0]
    found = {name: group[name] for name in ("optim_bits", "percentile_clipping", "max_unorm", "skip_zeros")}
    assert found == {"optim_bits": 8, "percentile_clipping": 30, "max_unorm": 0.5, "skip_zeros": True}
    assert (group["min_8bit_size"], group["block_wise"]) == (100, False)
    assert "learning_rate" not in group
    train(optimizer, params, 1)
    assert optimizer.state[params[0]]["exp_avg_absmax"].shape == (1,)
    everything = kind(
        optim_bits=8, min_8bit_size=9, percentile_clipping=7, block_wise=True, max_unorm=1, skip_zeros=False
    )
    group = pyadamw.AdamW8bit(one(), args=everything).param_groups[0]
    assert (group["min_8bit_size"], group["percentile_clipping"], group["block_wise"]) == (9, 7, True)


@pytest.mark.parametrize(
    "args",
    [
        {"optim_bits": 24},
        {"min_8bit_size": -1},
        {"percentile_clipping": 0},
        {"block_wise": 2},
        {"max_unorm": -1.0},
        {"skip_zeros": 0},
    ],
)
def test_wrong_args_are_refused(args):
    """A wrong value that `args` carries is refused like an argument."""
    name = next(iter(args))
    with pytest.raises(ValueError, match=f"{name} = "):
        pyadamw.AdamW(one(), args=args)
    with pytest.raises(ValueError, match=f"{name} = "):
        pyadamw.PagedAdamW8bit(one(), args=SimpleNamespace(**args))


@pytest.mark.parametrize(("numel", "dtype"), [(4095, torch.float32), (4096, torch.uint8), (4097, torch.uint8)])
def test_min_8bit_size_is_a_lower_bound(numel, dtype):
    """4095 elements keep float32 state; 4096 have 8 bits."""
    params = parameters([(numel,)])
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 1)
    assert moment_of(optimizer.state[params[0]]).dtype == dtype


def test_block_wise_false_has_one_scale():
    """block_wise=False keeps one scale per tensor, the largest magnitude of the tensor."""
    params = parameters([(40, 300)])
    optimizer = pyadamw.AdamW8bit(params, block_wise=False)
    train(optimizer, params, 1)
    scale = optimizer.state[params[0]]["exp_avg_absmax"]
    assert scale.shape == (1,)
    assert scale == (params[0].grad * torch.tensor(1 - 0.9, dtype=torch.float64).float()).abs().max()


def test_learning_rate_may_be_a_tensor():
    """lr as a one-element tensor equals lr as a float, also when it is changed in place."""
    params = parameters()
    others = clones(params)
    rate = torch.tensor(0.5, dtype=torch.float64)
    tensor, number = pyadamw.AdamW8bit(params, lr=rate), pyadamw.AdamW8bit(others, lr=0.5)
    train(tensor, params, 2)
    train(number, others, 2)
    rate.fill_(0.25)
    number.param_groups[0]["lr"] = 0.25
    train(tensor, params, 2, first=2)
    train(number, others, 2, first=2)
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_numpy_numbers_are_numbers():
    """Numbers of numpy are accepted where numbers are."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(
        params,
        lr=np.float32(1e-3),
        betas=(np.float64(0.9), np.float32(0.99)),
        min_8bit_size=np.int64(100),
        percentile_clipping=np.int32(9),
        seed=np.uint64(2**63),
    )
    train(optimizer, params, 2)


def test_maximize_is_minimize_of_the_negative():
    """maximize=True with gradient g has the bits of maximize=False with -g."""
    params = parameters()
    others = clones(params)
    train(pyadamw.AdamW8bit(params, maximize=True), params, 3)
    train(pyadamw.AdamW8bit(others), others, 3, scale=-1.0)
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_schedulers_change_the_next_step():
    """A scheduler that cycles lr and betas has the effect of setting them by hand."""
    params = parameters()
    others = clones(params)
    cycled, manual = pyadamw.AdamW8bit(params), pyadamw.AdamW8bit(others)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(cycled, max_lr=0.1, total_steps=10)
    for step in range(5):
        manual.param_groups[0]["lr"] = cycled.param_groups[0]["lr"]
        manual.param_groups[0]["betas"] = cycled.param_groups[0]["betas"]
        train(cycled, params, 1, first=step)
        train(manual, others, 1, first=step)
        scheduler.step()
    assert [bits(p) for p in params] == [bits(p) for p in others]
    assert manual.param_groups[0]["lr"] != 1e-3
