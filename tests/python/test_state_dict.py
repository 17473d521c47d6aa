"""Owns the law: continuing from a checkpoint or a copy is the same as never having stopped, bit for bit."""

import copy
import io
import pickle

import pytest
import torch
from harness import (
    CONFIGURATIONS,
    assert_same_bits,
    bits,
    clones,
    give_gradients,
    moment_of,
    parameters,
    state_bits,
    train,
)
from reference import codes_away

import pyadamw

WIDTHS = [(pyadamw.AdamW32bit, pyadamw.AdamW8bit), (pyadamw.AdamW8bit, pyadamw.AdamW32bit)]


def by_state_dict(optimizer, params, make):
    copies = clones(params)
    other = make(copies)
    other.load_state_dict(optimizer.state_dict())
    return other, copies


def by_file(optimizer, params, make):
    """torch.save and torch.load(weights_only=True), which unpickles tensors and plain containers alone."""
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    copies = clones(params)
    other = make(copies)
    other.load_state_dict(torch.load(file, weights_only=True))
    return other, copies


def by_deepcopy(optimizer, params, make):
    other = copy.deepcopy(optimizer)
    return other, [p for group in other.param_groups for p in group["params"]]


def by_pickle(optimizer, params, make):
    other = pickle.loads(pickle.dumps(optimizer))
    return other, [p for group in other.param_groups for p in group["params"]]


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.parametrize("copied", [by_state_dict, by_file, by_deepcopy, by_pickle])
def test_resume_equals_uninterrupted(name, copied):
    """3 steps, a copy, 3 more of both: parameters and state have the same bits, and the copy shares no memory."""
    cls, options = CONFIGURATIONS[name]
    dtype = torch.bfloat16 if "bf16" in name else torch.float32

    def make(params):
        return cls(params, lr=1e-2, **options)

    params = parameters(dtype=dtype)
    optimizer = make(params)
    train(optimizer, params, 3)
    resumed, copies = copied(optimizer, params, make)
    train(optimizer, params, 3, first=3)
    before = [state_bits(optimizer, p) for p in params]
    train(resumed, copies, 3, first=3)
    assert_same_bits((optimizer, params), (resumed, copies))
    assert [state_bits(optimizer, p) for p in params] == before
    assert all(float(optimizer.state[p]["step"]) == 6 for p in params)


def test_state_is_plain():
    """state_dict() holds tensors and plain numbers in torch's own layout, in the parameter's shape."""
    params = parameters([(70, 100), (5000,), (10,)])
    optimizer = pyadamw.AdamW8bit(params, percentile_clipping=50)
    train(optimizer, params, 2)
    saved = optimizer.state_dict()
    assert set(saved) == {"state", "param_groups"}
    two_dimensional, flat, small = (saved["state"][i] for i in range(3))
    # Where torch has numbers and this has codes, there is something that nobody takes for either.
    assert [two_dimensional.pop(key) for key in ("exp_avg", "exp_avg_sq")] == [3, 3]
    assert {key: (tuple(value.shape), value.dtype) for key, value in two_dimensional.items()} == {
        "step": ((), torch.float32),
        "exp_avg_codes": ((70, 100), torch.uint8),
        "exp_avg_sq_codes": ((70, 100), torch.uint8),
        "exp_avg_absmax": ((70, 1), torch.float32),
        "exp_avg_sq_absmax": ((70, 1), torch.float32),
        "exp_avg_sq_floor": ((70, 1), torch.float32),
        "gnorm_history": ((100,), torch.float32),
    }
    assert tuple(flat["exp_avg_absmax"].shape) == (20,)
    assert small["exp_avg"].dtype == torch.float32
    assert "exp_avg_absmax" not in small
    assert all(type(value) is torch.Tensor for entry in (two_dimensional, small) for value in entry.values())


def test_torch_checkpoint_simply_works():
    """torch.optim.AdamW's state dict continues in AdamW32bit as in torch (tolerance: the rounding of 3 steps)."""
    ours = parameters()
    theirs = clones(ours)
    torchs = torch.optim.AdamW(theirs, lr=1e-2, amsgrad=True)
    train(torchs, theirs, 3)
    mine = pyadamw.AdamW32bit(ours, min_8bit_size=5)
    for p, q in zip(ours, theirs, strict=True):
        p.data.copy_(q)
    mine.load_state_dict(torchs.state_dict())
    assert mine.param_groups[0]["amsgrad"] is True
    assert mine.param_groups[0]["min_8bit_size"] == 5
    train(torchs, theirs, 3, first=3)
    train(mine, ours, 3, first=3)
    for p, q in zip(ours, theirs, strict=True):
        assert (p - q).abs().max() <= 3 * 6e-8 * q.abs().max()


def test_torch_reads_32_bit_state():
    """torch.optim.AdamW loads the state dict of AdamW32bit."""
    params = parameters()
    optimizer = pyadamw.AdamW32bit(params)
    train(optimizer, params, 2)
    torchs = torch.optim.AdamW(params)
    torchs.load_state_dict(optimizer.state_dict())
    assert torch.equal(moment_of(torchs.state[params[1]]), moment_of(optimizer.state[params[1]]))


@pytest.mark.parametrize(("source", "target"), WIDTHS)
def test_width_is_converted(source, target):
    """State of the other width is converted: each moment within half the distance of two codes."""
    params = parameters([(5000,), (40, 300), (100,)])
    optimizer = source(params, amsgrad=True)
    train(optimizer, params, 3)
    other = target(clones(params), amsgrad=True)
    other.load_state_dict(optimizer.state_dict())
    wide, narrow = (optimizer, other) if source is pyadamw.AdamW32bit else (other, optimizer)
    for p, q in zip(wide.param_groups[0]["params"], narrow.param_groups[0]["params"], strict=True):
        one, eight = wide.state[p], narrow.state[q]
        assert one["step"] == eight["step"] == 3
        for moment in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
            value = one[moment]
            if moment in eight:  # below min_8bit_size
                assert bits(value) == bits(eight[moment])
                continue
            assert value.dtype == torch.float32
            assert codes_away(eight, moment, value).max() <= 0.5 + 2**-12  # and a rounding to float32
    train(other, other.param_groups[0]["params"], 1)


def test_loading_keeps_what_this_optimizer_decides():
    """Width, min_8bit_size, block_wise and is_paged stay; everything else comes from the checkpoint."""
    source = pyadamw.AdamW8bit(parameters(), lr=0.5, seed=9, block_wise=False, min_8bit_size=77)
    target = pyadamw.PagedAdamW32bit(parameters())
    target.load_state_dict(source.state_dict())
    group = target.param_groups[0]
    assert (group["lr"], group["seed"]) == (0.5, 9)
    assert (group["optim_bits"], group["min_8bit_size"], group["block_wise"], group["is_paged"]) == (
        32,
        4096,
        True,
        True,
    )


def test_hooks_see_tensors():
    """load_state_dict's pre hooks see the checkpoint's tensors, post hooks the optimizer's; state_dict hooks run."""
    params = parameters([(300,)])
    optimizer = pyadamw.AdamW32bit(params)
    train(optimizer, params, 1)
    seen = []
    optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append(type(s["state"][0]["exp_avg"])))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append(type(moment_of(o.state[params[0]]))))
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("pre"))
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append("post"))
    optimizer.load_state_dict(state_dict=optimizer.state_dict())
    assert seen == ["pre", "post", torch.Tensor, torch.Tensor]


def test_state_dict_is_a_view():
    """state_dict() shares memory with the optimizer, but replacing its tensors does not touch the optimizer."""
    params = parameters([(5000,)])
    others = clones(params)
    optimizer, other = pyadamw.AdamW8bit(params), pyadamw.AdamW8bit(others)
    train(optimizer, params, 1)
    saved = optimizer.state_dict()["state"][0]
    saved = {key: value for key, value in saved.items() if isinstance(value, torch.Tensor)}
    train(optimizer, params, 1, first=1)
    assert {key: bits(value) for key, value in saved.items()} == state_bits(optimizer, params[0])
    for key, value in list(saved.items()):
        value.data = value.data.clone().zero_()
        saved[key] = None
    train(optimizer, params, 1, first=2)
    train(other, others, 3)
    assert_same_bits((optimizer, params), (other, others))


def test_shallow_copies_share_their_state():
    """copy.copy gives an optimizer over the same parameters and state: stepping either continues the other."""
    params = parameters([(5000,)])
    others = clones(params)
    one, other = pyadamw.AdamW8bit(params), pyadamw.AdamW8bit(others)
    train(one, params, 2)
    two = copy.copy(one)
    for step in range(2, 6):
        train(one if step % 2 else two, params, 1, first=step)
    train(other, others, 6)
    assert_same_bits((one, params), (other, others))


def damage(key, value):
    def apply(entry):
        entry[key] = value(entry[key]) if callable(value) else value

    return apply


DAMAGES = {
    "a missing moment": (lambda entry: entry.pop("exp_avg_sq_codes"), "exp_avg_sq_codes"),
    "a missing scale": (lambda entry: entry.pop("exp_avg_absmax"), "exp_avg_absmax"),
    "no step": (lambda entry: entry.pop("step"), "step"),
    "a truncated moment": (damage("exp_avg_codes", lambda t: t[:-1]), "exp_avg_codes"),
    "another shape": (damage("exp_avg_sq_codes", lambda t: t.reshape(-1)), "exp_avg_sq_codes"),
    "truncated scales": (damage("exp_avg_sq_absmax", lambda t: t[:-1]), "exp_avg_sq_absmax"),
    "a missing floor": (lambda entry: entry.pop("exp_avg_sq_floor"), "exp_avg_sq_floor"),
    "truncated floors": (damage("exp_avg_sq_floor", lambda t: t[:-1]), "exp_avg_sq_floor"),
    "a floor above 1": (damage("exp_avg_sq_floor", lambda t: t + 1), "exp_avg_sq_floor"),
    "a negative floor": (damage("exp_avg_sq_floor", lambda t: -t), "exp_avg_sq_floor"),
    "a floor that no block has": (damage("exp_avg_sq_floor", lambda t: t * 0 + 1e-6), "exp_avg_sq_floor"),
    "a floor of NaN": (damage("exp_avg_sq_floor", lambda t: t * float("nan")), "exp_avg_sq_floor"),
    "marks that differ": (damage("exp_avg_sq", 8), "exp_avg_sq = 8"),
    "integers": (damage("exp_avg_sq_codes", lambda t: t.long()), "exp_avg_sq_codes"),
    "floating codes": (damage("exp_avg_sq_codes", lambda t: t.float()), "exp_avg_sq_codes"),
    "complex numbers": (damage("exp_avg_absmax", lambda t: t.to(torch.complex64)), "exp_avg_absmax"),
    "NaN": (damage("exp_avg_absmax", lambda t: t * float("nan")), "exp_avg_absmax"),
    "infinity": (damage("exp_avg_sq_absmax", lambda t: t / 0), "exp_avg_sq_absmax"),
    "a negative scale": (damage("exp_avg_sq_absmax", lambda t: -t), "exp_avg_sq_absmax"),
    "no tensor": (damage("exp_avg_codes", [1.0]), "exp_avg_codes"),
    "a sparse tensor": (damage("exp_avg_absmax", lambda t: t.to_sparse()), "exp_avg_absmax"),
    "half a step": (damage("step", 1.5), "step"),
    "a negative step": (damage("step", -1), "step"),
    "a NaN step": (damage("step", torch.tensor(float("nan"))), "step"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoint_is_refused(name):
    """A ValueError names the parameter and the key, and the optimizer is as it was."""
    params = parameters([(70, 100)])
    optimizer = pyadamw.AdamW8bit([("layer.weight", params[0])])
    train(optimizer, params, 2)
    apply, key = DAMAGES[name]
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["lr"] = 0.123
    apply(saved["state"][0])
    before = state_bits(optimizer, params[0])
    with pytest.raises(ValueError, match=rf"(?s)layer\.weight.*\b{key}\b"):
        optimizer.load_state_dict(saved)
    assert state_bits(optimizer, params[0]) == before
    assert optimizer.param_groups[0]["lr"] == 1e-3
    train(optimizer, params, 1)


def test_checkpoint_of_other_parameters_is_refused():
    """Another number of groups or parameters, state for an unknown parameter, or a wrong option is a ValueError."""
    params = parameters([(300,), (5,)])
    optimizer = pyadamw.AdamW32bit(params)
    train(optimizer, params, 1)
    for change in (
        lambda s: s["param_groups"].append(s["param_groups"][0]),
        lambda s: s["param_groups"][0].update(params=[0]),
        lambda s: s["state"].update({99: s["state"][0]}),
        lambda s: s["state"].update({0: 3}),
        lambda s: s["param_groups"][0].update(lr=-1.0),
        lambda s: s["param_groups"][0].update(amsgrad=True),  # but there is no max_exp_avg_sq
    ):
        saved = copy.deepcopy(optimizer.state_dict())
        change(saved)
        before = state_bits(optimizer, params[0])
        with pytest.raises(ValueError):
            optimizer.load_state_dict(saved)
        assert state_bits(optimizer, params[0]) == before
        assert optimizer.param_groups[0]["lr"] == 1e-3


def test_state_before_the_first_step():
    """Nothing is allocated before the first step, and an empty state dict loads."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(params)
    assert not optimizer.state
    optimizer.load_state_dict(optimizer.state_dict())
    assert not optimizer.state
    train(optimizer, params, 1)
    assert len(optimizer.state) == len(params)


def test_step_counts_are_the_truth():
    """Writing into `step` in place changes the bias correction of the next step."""
    params = parameters([(300,), (20,)])
    optimizer = pyadamw.AdamW32bit(params, weight_decay=0.0)
    train(optimizer, params, 1)
    for p in params:
        optimizer.state[p]["step"].fill_(99)
    give_gradients(params, 1)
    optimizer.step()
    assert [float(optimizer.state[p]["step"]) for p in params] == [100, 100]
    state = optimizer.state[params[0]]
    start = parameters([(300,), (20,)])[0]
    first = torch.sign(torch.randn(300, generator=torch.Generator().manual_seed(1000))) * 1e-3  # lr * sign(g)
    second = 1e-3 * state["exp_avg"] / (1 - 0.9**100) / ((state["exp_avg_sq"] / (1 - 0.999**100)).sqrt() + 1e-8)
    assert torch.allclose(params[0], start - first - second, atol=1e-6, rtol=0)


def test_skipped_count_survives_copies():
    """deepcopy and pickle keep `skipped_elements`."""
    params = parameters([(5000,)])
    optimizer = pyadamw.AdamW8bit(params)
    give_gradients(params, 0)
    params[0].grad[7] = float("inf")
    optimizer.step()
    assert optimizer.skipped_elements == 1
    assert copy.deepcopy(optimizer).skipped_elements == 1
    assert pickle.loads(pickle.dumps(optimizer)).skipped_elements == 1
