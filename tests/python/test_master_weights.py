"""Owns the laws of master weights: a run on bfloat16 parameters is one on float32 parameters, and state with remainders
loads, converts and is refused as it must. How it goes in and out as float32 is in test_fp32_state_dict.py.
"""

import copy
import itertools

import pytest
import torch
from harness import SHAPES, assert_same_bits, bits, clones, give_gradients, parameters, state_bits, train
from reference import half_away

import pyadamw
from pyadamw.functional import join_weights

RUNS = {
    "32": (pyadamw.AdamW32bit, {}),
    "32 amsgrad, maximize": (pyadamw.AdamW32bit, {"amsgrad": True, "maximize": True}),
    "32 clipped, max_unorm": (pyadamw.AdamW32bit, {"percentile_clipping": 40, "args": {"max_unorm": 0.01}}),
    "32 skip_zeros": (pyadamw.AdamW32bit, {"args": {"skip_zeros": True}}),
    "16": (pyadamw.AdamW16bit, {}),
    "16 amsgrad, paged": (pyadamw.PagedAdamW16bit, {"amsgrad": True, "pages": "file"}),
    "8": (pyadamw.AdamW8bit, {"min_8bit_size": 1000}),
    "8 amsgrad, paged": (pyadamw.PagedAdamW8bit, {"min_8bit_size": 0, "amsgrad": True, "pages": "host"}),
    "8 tensor-wise": (pyadamw.AdamW8bit, {"min_8bit_size": 0, "block_wise": False}),
}


def optimizer_of(name, params, **more):
    cls, options = RUNS[name]
    options = {"lr": 1e-3, "weight_decay": 0.1, **options, **more}
    if "pages" in options:
        options["page_manager"] = pyadamw.PageManager(options.pop("pages"), min_numel=300)
    return cls(params, **options)


def masters(optimizer, params):
    return [join_weights(p.detach(), optimizer.state[p]["param_remainder"]) for p in params]


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_that_of_float32_parameters(name, dense):
    """The same gradients: the masters, and all other state, have the bits of a run on float32 parameters; the parameter
    is the master, rounded."""
    start = [p.detach() for p in parameters(SHAPES, torch.bfloat16)]
    if not dense:
        start = [t.repeat_interleave(2, -1)[..., ::2] if t.dim() else t for t in start]
    ours = [torch.nn.Parameter(t.clone(memory_format=torch.preserve_format) if dense else t) for t in start]
    theirs = [torch.nn.Parameter(t.float().contiguous()) for t in start]
    optimizer, reference = optimizer_of(name, ours, master_weight_bits=32), optimizer_of(name, theirs)
    for step in range(6):
        give_gradients(ours, step)
        if "zeros" in name:
            for p in ours[2:]:
                p.grad[p.grad.abs() < 0.5] = 0
        for p, q in zip(ours, theirs, strict=True):
            q.grad = p.grad.float()
        optimizer.step()
        reference.step()
        for p, q, w in zip(ours, theirs, masters(optimizer, ours), strict=True):
            assert bits(w) == bits(q)
            assert bits(p) == bits(half_away(q))
            other = state_bits(optimizer, p)
            assert other.pop("param_remainder") is not None
            assert other == state_bits(reference, q)


def test_24_bits_are_unbiased_where_bfloat16_stands_still():
    """Updates of a 300th of a unit in the last place: bfloat16 does not move, 24 bits arrive on average (the mean of
    100,000 roundings to 2^-15 of the weight is off by less than 4 standard deviations of it)."""
    n, steps, lr = 100_000, 20, 2.0**-16
    moved = {}
    for bits_ in (None, 24, 32):
        p = torch.nn.Parameter(torch.ones(n, dtype=torch.bfloat16))
        optimizer = pyadamw.AdamW32bit([p], lr=lr, weight_decay=0.0, eps=0.0, master_weight_bits=bits_)
        for _ in range(steps):
            p.grad = -torch.ones_like(p)
            optimizer.step()
        moved[bits_] = (optimizer.fp32_weights()[0].double() - 1).mean().item()
    assert moved[None] == 0
    assert moved[32] == pytest.approx(steps * lr, rel=1e-2)
    deviation = 2.0**-15 / 2 * (steps / n) ** 0.5
    assert abs(moved[24] - moved[32]) < 4 * deviation


def test_stochastic_rounding_has_no_effect():
    runs = []
    for rounded, bits_ in itertools.product((False, True), (24, 32)):
        params = parameters(SHAPES, torch.bfloat16)
        optimizer = pyadamw.AdamW8bit(params, lr=1e-3, stochastic_rounding=rounded, master_weight_bits=bits_)
        train(optimizer, params, 3)
        runs.append((optimizer, params))
    assert_same_bits(runs[0], runs[2])
    assert_same_bits(runs[1], runs[3])


# ---- whose master weights --------------------------------------------------------------------------------------------


def test_float32_parameters_need_none():
    params = parameters()
    others = clones(params)
    one, other = pyadamw.AdamW8bit(params, master_weight_bits=32), pyadamw.AdamW8bit(others)
    train(one, params, 3)
    train(other, others, 3)
    assert_same_bits((one, params), (other, others))


@pytest.mark.parametrize("bits_", [24, 32])
def test_float16_parameters_are_refused_by_name(bits_):
    """In a step and at loading, before anything is written; beside them, others may have master weights."""
    weight, half = torch.nn.Parameter(torch.ones(30).bfloat16()), torch.nn.Parameter(torch.ones(30).half())
    optimizer = pyadamw.AdamW([("weight", weight), ("half", half)], master_weight_bits=bits_)
    weight.grad, half.grad = torch.ones_like(weight), torch.ones_like(half)
    with pytest.raises(ValueError, match=rf"'half'.*float16.*master_weight_bits = {bits_}.*bfloat16"):
        optimizer.step()
    with pytest.raises(ValueError, match=r"'half'.*float16"):
        optimizer.memory_report()
    other = pyadamw.AdamW([("weight", weight), ("half", half)])
    other.step()
    with pytest.raises(ValueError, match=r"'half'.*float16"):
        optimizer.load_state_dict(other.state_dict())
    with torch.no_grad():
        weight.fill_(1)
    assert not optimizer.state
    assert bits(weight) == bits(torch.ones(30).bfloat16())
    optimizer = pyadamw.AdamW(
        [{"params": [weight], "master_weight_bits": bits_}, {"params": [half], "master_weight_bits": None}]
    )
    optimizer.step()
    assert ["param_remainder" in optimizer.state[p] for p in (weight, half)] == [True, False]


def test_groups_and_overrides_decide(manager):
    params = parameters([(40, 100)] * 4, torch.bfloat16)
    manager.override_config(params[1], "master_weight_bits", 24)
    manager.override_config(params[3], "master_weight_bits", None)
    groups = [{"params": params[:2]}, {"params": params[2:], "master_weight_bits": 32}]
    optimizer = pyadamw.AdamW8bit(groups)
    train(optimizer, params, 2)
    found = [optimizer.state[p].get("param_remainder") for p in params]
    assert [None if t is None else t.dtype for t in found] == [None, torch.int8, torch.int16, None]
    report = optimizer.memory_report()
    assert [entry.master_weight_bits for entry in report.entries] == [None, 24, 32, None]
    sizes = [entry.bytes for entry in report.entries]
    assert [size - sizes[0] for size in sizes] == [0, 4000, 8000, 0]
    assert "24" in str(report)


def test_it_may_be_switched_on_and_off():
    """On: the parameters are the masters from then on. Off: the remainders are gone. Narrower or wider: converted."""
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = pyadamw.AdamW8bit(params, lr=1e-3)
    train(optimizer, params, 2)
    copies = clones(params)
    other = pyadamw.AdamW8bit(copies, lr=1e-3, master_weight_bits=32)
    other.load_state_dict(optimizer.state_dict())
    for value, dtype in ((32, torch.int16), (24, torch.int8), (32, torch.int16), (None, None)):
        optimizer.param_groups[0]["master_weight_bits"] = value
        train(optimizer, params, 2, first=2)
        if value == 32 and other is not None:
            train(other, copies, 2, first=2)
            assert_same_bits((optimizer, params), (other, copies))
            other = None
        found = {getattr(optimizer.state[p].get("param_remainder"), "dtype", None) for p in params}
        assert found == {dtype}


def test_a_model_that_moves():
    """Parameters that become float32 need no master weights any more, and bfloat16 ones get some again."""
    net = torch.nn.Linear(40, 100).bfloat16()
    optimizer = pyadamw.AdamW8bit(net.parameters(), master_weight_bits=32)
    for move, there in ((net.bfloat16, True), (net.float, False), (net.bfloat16, True)):
        move()
        train(optimizer, list(net.parameters()), 2)
        assert {"param_remainder" in state for state in optimizer.state.values()} == {there}


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def run(bits_, dtype=torch.bfloat16, cls=pyadamw.AdamW8bit):
    params = parameters(SHAPES, dtype)
    named = [(f"p{i}", p) for i, p in enumerate(params)]
    optimizer = cls(named, lr=1e-3, min_8bit_size=1000, master_weight_bits=bits_)
    train(optimizer, params, 3)
    return optimizer, params


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("saved", [None, 24, 32])
@pytest.mark.parametrize("wanted", [24, 32])
def test_one_width_loads_into_the_other(saved, wanted, paged):
    """The parameter stays; the master is the nearest that there is for it; of none, the master is the parameter."""
    optimizer, params = run(saved)
    copies = clones(params)
    pages = {"page_manager": pyadamw.PageManager("file", min_numel=300)} if paged else {}
    other = (pyadamw.PagedAdamW8bit if paged else pyadamw.AdamW8bit)(
        copies, min_8bit_size=1000, master_weight_bits=wanted, **pages
    )
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for p, q in zip(params, copies, strict=True):
        old, new = optimizer.state[p].get("param_remainder", torch.zeros(p.shape)), other.state[q]["param_remainder"]
        expected = old.double() * {24: 256, 32: 1, None: 0}[saved]
        if wanted == 24:
            expected = torch.floor(expected / 256 + 0.5).clamp(max=127)
        assert new.dtype == (torch.int8 if wanted == 24 else torch.int16)
        assert torch.equal(new.double(), expected)
        assert bits(p) == bits(q)
    assert ("file" in other.memory_report().places) == paged
    train(other, copies, 1)


@pytest.mark.parametrize(
    ("target", "dtype", "advice"),
    [
        (None, torch.bfloat16, "master_weight_bits=None here.*pass master_weight_bits=32 to this optimizer, or save"),
        (32, torch.float32, "the parameter here is float32.*To keep the weights, save pyadamw.fp32_state_dict"),
        (None, torch.float16, "the parameter here is float16"),
    ],
)
def test_masters_are_not_lost_in_silence(target, dtype, advice):
    """A state with remainders for parameters without is refused, until somebody removes the key."""
    saved = run(32)[0].state_dict()
    optimizer, params = run(target, dtype)
    before = [state_bits(optimizer, p) for p in params]
    with pytest.raises(ValueError, match=rf"'p0'.*param_remainder.*{advice}"):
        optimizer.load_state_dict(saved)
    assert [state_bits(optimizer, p) for p in params] == before
    for entry in saved["state"].values():
        del entry["param_remainder"]
    optimizer.load_state_dict(saved)
    train(optimizer, params, 1)


def test_a_state_dict_has_bytes():
    """Two of each int16, in the same memory, because torch's collectives have no int16; and the integers load, too."""
    for bits_, tail in ((24, ()), (32, (2,))):
        optimizer, params = run(bits_)
        saved = optimizer.state_dict()
        for p, entry in zip(params, saved["state"].values(), strict=True):
            stored = optimizer.state[p]["param_remainder"]
            assert (entry["param_remainder"].shape, entry["param_remainder"].dtype) == ((*p.shape, *tail), torch.int8)
            assert entry["param_remainder"].data_ptr() == stored.data_ptr()
            assert bits(entry["param_remainder"]) == bits(stored)
        copies = clones(params)
        other = pyadamw.AdamW8bit(copies, min_8bit_size=1000, master_weight_bits=bits_)
        for p, entry in zip(params, saved["state"].values(), strict=True):
            entry["param_remainder"] = optimizer.state[p]["param_remainder"]
        other.load_state_dict(saved)
        assert_same_bits((optimizer, params), (other, copies))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.reshape(-1)[:-1], "has shape"),
        (lambda t: t[:-1], "has shape"),
        (lambda t: t.to(torch.int32), "has dtype int32: must be int8 or int16"),
        (lambda t: t.float(), "has dtype float32: must be int8 or int16"),
        (lambda t: t.to_sparse(), "dense"),
        (lambda t: 5, "int"),
    ],
)
def test_damaged_remainders_are_refused(change, message):
    optimizer, params = run(32)
    saved, before = copy.deepcopy(optimizer.state_dict()), [state_bits(optimizer, p) for p in params]
    saved["state"][1]["param_remainder"] = change(saved["state"][1]["param_remainder"])
    with pytest.raises(ValueError, match=rf"'p1'.*param_remainder.*{message}"):
        optimizer.load_state_dict(saved)
    assert [state_bits(optimizer, p) for p in params] == before


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.AdamW16bit, pyadamw.AdamW32bit])
def test_what_is_exported(cls):
    """Neither torch nor bitsandbytes gets remainders; our own format keeps them and the width of the moments."""
    from pyadamw._state.export import converted

    optimizer, params = run(32, cls=cls)
    for found in (optimizer.to_torch_state_dict(), optimizer.to_bitsandbytes_state_dict()):
        assert not any("param_remainder" in key for entry in found["state"].values() for key in entry)
    other, copies = run(32, cls=cls)
    train(other, copies, 1)
    with torch.no_grad():
        for p, q in zip(copies, params, strict=True):
            p.copy_(q)
    other.load_state_dict(converted(optimizer.state_dict(), "pyadamw"))
    assert_same_bits((optimizer, params), (other, copies))


def test_the_parameter_may_be_set_at_any_time():
    """Whatever a program does to a parameter between steps: the parameter is the master, rounded."""
    params = parameters(SHAPES, torch.bfloat16)
    optimizer = pyadamw.AdamW8bit(params, lr=1e-3, master_weight_bits=32)
    train(optimizer, params, 2)
    with torch.no_grad():
        for p in params:
            p.clamp_(-0.5, 0.5).mul_(3)
    for p, w in zip(params, optimizer.fp32_weights().values(), strict=True):
        assert torch.equal(p, half_away(w))
    train(optimizer, params, 2)
