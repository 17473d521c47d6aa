"""Owns the law: parameters, groups, gradients and state may come, go and be replaced between steps."""

import gc
import weakref

import pytest
import torch
from harness import assert_same_bits, bits, clones, give_gradients, moment_of, parameters, state_bits, train

import pyadamw


def test_groups_equal_separate_optimizers():
    """Groups with their own options do what one optimizer per group would do."""
    params = parameters([(5000,), (300,), (40, 300), (7,)])
    others = clones(params)
    groups = [
        {"params": params[:1], "lr": 0.1},
        {"params": params[1:2], "weight_decay": 0.5, "betas": (0.5, 0.6)},
        {"params": params[2:], "optim_bits": 32, "amsgrad": True, "eps": 1e-3, "maximize": True},
    ]
    together = pyadamw.AdamW8bit(groups)
    apart = [
        pyadamw.AdamW8bit(others[:1], lr=0.1),
        pyadamw.AdamW8bit(others[1:2], weight_decay=0.5, betas=(0.5, 0.6)),
        pyadamw.AdamW32bit(others[2:], amsgrad=True, eps=1e-3, maximize=True),
    ]
    for step in range(3):
        give_gradients(params, step)
        give_gradients(others, step)
        together.step()
        for optimizer in apart:
            optimizer.step()
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_group_overrides_of_the_width():
    """A group may override optim_bits and min_8bit_size, in every class."""
    params = parameters([(5000,), (5000,), (300,)])
    optimizer = pyadamw.AdamW32bit(
        [{"params": params[:1]}, {"params": params[1:], "optim_bits": 8, "min_8bit_size": 200}]
    )
    train(optimizer, params, 1)
    widths = [moment_of(optimizer.state[p]).dtype for p in params]
    assert widths == [torch.float32, torch.uint8, torch.uint8]


def test_batching_changes_no_bit():
    """One call over many tensors of all dtypes and widths = one optimizer per tensor."""
    params = [q for dtype in (torch.float32, torch.bfloat16, torch.float16) for q in parameters(dtype=dtype)]
    others = clones(params)
    together = pyadamw.AdamW8bit(params, min_8bit_size=1000, stochastic_rounding=True)
    apart = [pyadamw.AdamW8bit([p], min_8bit_size=1000, stochastic_rounding=True) for p in others]
    for step in range(3):
        give_gradients(params, step)
        give_gradients(others, step)
        together.step()
        for optimizer in apart:
            optimizer.step()
    assert [bits(p) for p in params] == [bits(p) for p in others]


def test_parameters_without_gradients_stand_still():
    """A parameter whose gradient is None in a step keeps its bits, its state and its step count; the others are stepped
    as if it were not there.
    """
    params = parameters()
    others = clones(params)
    mixed = pyadamw.AdamW8bit(params, min_8bit_size=1000)
    apart = [pyadamw.AdamW8bit([p], min_8bit_size=1000) for p in others]
    generator = torch.Generator().manual_seed(5)
    counts = [0] * len(params)
    for step in range(12):
        give_gradients(params, step)
        give_gradients(others, step)
        for i, (p, q) in enumerate(zip(params, others, strict=True)):
            if torch.rand(1, generator=generator) < 0.5:
                p.grad = q.grad = None
            counts[i] += p.grad is not None
        before = {p: (bits(p), state_bits(mixed, p)) for p in params if p.grad is None and p in mixed.state}
        mixed.step()
        assert all((bits(p), state_bits(mixed, p)) == kept for p, kept in before.items())
        for q, optimizer in zip(others, apart, strict=True):
            if q.grad is not None:
                optimizer.step()
    assert [int(mixed.state[p]["step"]) for p in params] == counts
    for p, q, optimizer in zip(params, others, apart, strict=True):
        assert_same_bits((mixed, [p]), (optimizer, [q]))


def test_a_step_without_gradients_does_nothing():
    """With no gradient at all, no state is made and nothing changes."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(params)
    before = [bits(p) for p in params]
    optimizer.step()
    assert not optimizer.state
    train(optimizer, params, 1)
    optimizer.zero_grad()
    before = [bits(p) for p in params]
    optimizer.step()
    assert [bits(p) for p in params] == before


def test_groups_can_be_added():
    """A group that is added later begins at step 1, as in an optimizer of its own."""
    params = parameters([(5000,), (300,)])
    others = clones(params)
    grown = pyadamw.AdamW8bit(params[:1])
    train(grown, params, 2)
    grown.add_param_group({"params": params[1:], "lr": 0.5})
    train(grown, params, 2, first=2)
    train(pyadamw.AdamW8bit(others[:1]), others, 4)
    late = pyadamw.AdamW8bit(others[1:], lr=0.5)
    train(late, others, 2, first=2)
    assert [bits(p) for p in params] == [bits(p) for p in others]
    assert [int(grown.state[p]["step"]) for p in params] == [4, 2]


def swap_data(p, optimizer):
    p.data = p.data.clone()


def swap_data_twice(p, optimizer):
    p.data = p.data.double()
    p.data = p.data.float()


def replace_state(p, optimizer):
    optimizer.state[p] = {key: value.clone() for key, value in optimizer.state[p].items()}


def replace_tensors(p, optimizer):
    for key, value in optimizer.state[p].items():
        optimizer.state[p][key] = value.clone()


def swap_state_data(p, optimizer):
    for value in optimizer.state[p].values():  # as a well-known recipe to move an optimizer to another device does
        value.data = value.data.clone()


def replace_everything(p, optimizer):
    fresh = type(optimizer.state)(dict)
    for q, state in optimizer.state.items():
        fresh[q] = {key: value.clone() for key, value in state.items()}
    optimizer.state = fresh


def resize_and_refill(p, optimizer):
    value = moment_of(optimizer.state[p])
    saved = value.clone()
    value.untyped_storage().resize_(0)
    value.untyped_storage().resize_(saved.untyped_storage().nbytes())
    value.copy_(saved)


def step_as_a_number(p, optimizer):
    optimizer.state[p]["step"] = float(optimizer.state[p]["step"])


def to_numbers_of_another_width(p, optimizer):
    if moment_of(optimizer.state[p]).dtype == torch.float32:
        optimizer.state[p]["exp_avg"] = moment_of(optimizer.state[p]).double()


CHANGES = (
    swap_data,
    swap_data_twice,
    replace_state,
    replace_tensors,
    swap_state_data,
    replace_everything,
    resize_and_refill,
    step_as_a_number,
    to_numbers_of_another_width,
)


@pytest.mark.parametrize("change", CHANGES)
def test_memory_may_be_replaced(change):
    """Parameters and state may get other memory with the same numbers at any time, once or in every step: no bit
    changes, and the old memory is not written.
    """
    params = parameters()
    others = clones(params)
    changed, left = pyadamw.AdamW8bit(params, min_8bit_size=1000), pyadamw.AdamW8bit(others, min_8bit_size=1000)
    train(left, others, 5)
    train(changed, params, 2)
    for step in range(2, 5):
        held = [(p.data, moment_of(changed.state[p]).detach()) for p in params]
        for p in params:
            change(p, changed)
        kept = [(bits(one), bits(two)) for one, two in held]
        give_gradients(params, step)
        changed.step()
        if change in (swap_data, swap_data_twice):
            assert [bits(one) for one, _ in held] == [one for one, _ in kept]
        if change in (replace_state, replace_tensors, swap_state_data, replace_everything):
            assert [bits(two) for _, two in held] == [two for _, two in kept]
    assert_same_bits((changed, params), (left, others))


def test_layout_may_change_in_place():
    """A parameter whose `.data` becomes its own transposed view, at the same address, is stepped in its new layout."""
    params, others = parameters([(70, 70)]), parameters([(70, 70)])
    one, other = pyadamw.AdamW8bit(params), pyadamw.AdamW8bit(others)
    train(one, params, 1)
    train(other, others, 1)
    for step in range(1, 4):
        params[0].data = params[0].data.t()
        others[0].data = others[0].data.t().contiguous()
        train(one, params, 1, first=step)
        train(other, others, 1, first=step)
    assert_same_bits((one, params), (other, others))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtype_may_change_during_a_run(dtype):
    """model.half() or .bfloat16() in the middle of a run keeps the state, and the next step is in the new dtype."""
    model = torch.nn.Linear(100, 70)
    optimizer = pyadamw.AdamW8bit(model.parameters())
    train(optimizer, list(model.parameters()), 2)
    before = bits(moment_of(optimizer.state[model.weight]))
    model.to(dtype)
    assert bits(moment_of(optimizer.state[model.weight])) == before
    train(optimizer, list(model.parameters()), 1)
    assert model.weight.dtype == dtype
    assert int(optimizer.state[model.weight]["step"]) == 3
    assert model.weight.isfinite().all()


def test_replaced_parameters_start_anew():
    """A parameter put in the place of another in its group is stepped from then on, with state of its own."""
    params = parameters([(300,), (5000,)])
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 2)
    old, new = params[1], parameters([(5000,)], seed=3)[0]
    optimizer.param_groups[0]["params"][1] = new
    before = bits(old)
    train(optimizer, [params[0], new], 1)
    assert bits(old) == before
    assert int(optimizer.state[new]["step"]) == 1
    assert int(optimizer.state[params[0]]["step"]) == 3


def test_wrong_state_is_refused_before_anything_is_written():
    """State that was replaced by something of the wrong shape is a ValueError that names the parameter."""
    params = parameters([(300,), (40, 10)])
    optimizer = pyadamw.AdamW32bit([("a", params[0]), ("b", params[1])])
    train(optimizer, params, 1)
    optimizer.state[params[1]]["exp_avg"] = torch.zeros(400)
    before = [bits(p) for p in params]
    with pytest.raises(ValueError, match=r"'b'.*exp_avg has shape \(400,\)"):
        optimizer.step()
    assert [bits(p) for p in params] == before


def test_width_may_change_during_a_run():
    """Changing optim_bits of a group converts its state at the next step; amsgrad and clipping may be switched on."""
    params = parameters([(5000,)])
    optimizer = pyadamw.AdamW(params)
    train(optimizer, params, 2)
    optimizer.param_groups[0]["optim_bits"] = 8
    train(optimizer, params, 1)
    assert moment_of(optimizer.state[params[0]]).dtype == torch.uint8
    optimizer.param_groups[0].update(amsgrad=True, percentile_clipping=10)
    train(optimizer, params, 1)
    optimizer.param_groups[0]["optim_bits"] = 32
    train(optimizer, params, 1)
    state = optimizer.state[params[0]]
    assert int(state["step"]) == 5
    assert set(state) == {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "gnorm_history"}
    assert params[0].isfinite().all()


def test_optimizers_and_parameters_are_freed():
    """Nothing keeps an optimizer, its state or its gradients alive."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 2)
    grad, state = weakref.ref(params[1].grad), weakref.ref(moment_of(optimizer.state[params[1]]))
    optimizer.zero_grad()
    assert grad() is None
    gone = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert gone() is None
    assert state() is None


def test_closure_hooks_and_profiler():
    """A closure runs with gradients enabled and its loss is returned; step hooks run around the step."""
    param = torch.nn.Parameter(torch.ones(300))
    optimizer = pyadamw.AdamW32bit([param])
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))

    def closure():
        optimizer.zero_grad()
        calls.append("closure")
        loss = param.square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        assert optimizer.step(closure) == 300
    assert calls == ["pre", "closure", "post"]
    with torch.profiler.profile() as profile:
        optimizer.step()
    assert any("AdamW32bit.step" in event.name for event in profile.events())


def test_autograd_notices_the_step():
    """A backward pass through a graph that saved a parameter before a step is an error, not a wrong gradient."""
    for params in (parameters([(300,)]), [torch.nn.Parameter(torch.randn(20, 30).t())]):
        optimizer = pyadamw.AdamW32bit(params)
        loss = (params[0] * params[0]).sum()
        train(optimizer, params, 1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_gradients_are_not_modified():
    """A step reads gradients and leaves their bits alone, with clipping and maximize too."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(params, percentile_clipping=1, maximize=True)
    for step in range(3):
        give_gradients(params, step)
        before = [bits(p.grad) for p in params]
        optimizer.step()
        assert [bits(p.grad) for p in params] == before


def test_gradient_dtype_may_change():
    """float32 parameters take bfloat16 and float16 gradients, from one step to the next."""
    params = parameters()
    others = clones(params)
    mixed, wide = pyadamw.AdamW8bit(params), pyadamw.AdamW8bit(others)
    for step, dtype in enumerate([torch.float32, torch.bfloat16, torch.float16, torch.bfloat16]):
        give_gradients(params, step, dtype=dtype)
        for p, q in zip(params, others, strict=True):
            q.grad = p.grad.float()
        mixed.step()
        wide.step()
    assert [bits(p) for p in params] == [bits(p) for p in others]
