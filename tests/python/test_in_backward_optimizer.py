"""Owns the laws of StepInBackward as a torch optimizer, in one process: the bits of backward() and then step() of the
plain class, whatever torch does with the optimizer; and that it lives no longer than it is held.
"""

import contextlib
import copy
import weakref

import forked
import pytest
import torch
from harness import CONFIGURATIONS, assert_same_bits, bits, state_bits

import pyadamw

OPTIONS = {"lr": 1e-2, "min_8bit_size": 1000}


def model(dtype=torch.float32):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(60, 60), torch.nn.Linear(60, 90), torch.nn.Linear(90, 40), torch.nn.Linear(40, 5)]
    return torch.nn.Sequential(*layers).to(dtype)


def batch(step, net):
    made = torch.randn(4, 60, generator=torch.Generator().manual_seed(step))
    return made.to(next(net.parameters()).dtype)


def backward(net, step):
    net(batch(step, net)).square().mean().backward()


def optimizer_of(net, in_backward, cls=pyadamw.AdamW8bit, **options):
    options = {**OPTIONS, **options}
    return pyadamw.StepInBackward(net.parameters(), cls, **options) if in_backward else cls(net.parameters(), **options)


def pair(**options):
    """(net, optimizer) twice, the same: stepped after backward(), and in it."""
    nets = model(), model()
    return [(net, optimizer_of(net, kind, **options)) for kind, net in enumerate(nets)]


def without_gradients(net):
    return all(param.grad is None for param in net.parameters())


def assert_same(plain, ours):
    assert_same_bits((plain[1], list(plain[0].parameters())), (ours[1], list(ours[0].parameters())))


def assert_same_dicts(one, other):
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for key, state in one["state"].items():
        assert state.keys() == other["state"][key].keys()
        for name, value in state.items():
            found = other["state"][key][name]
            assert bits(value) == bits(found) if isinstance(value, torch.Tensor) else value == found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_bits_of_the_plain_class(name):
    """Over several steps with a scheduler: parameters, state dicts, report and float32 weights. Then each takes over
    from the other, and they still are the same."""
    cls, options = CONFIGURATIONS[name]
    dtype = torch.bfloat16 if name.startswith("bf16") else torch.float32
    runs = []
    for in_backward in (False, True):
        net = model(dtype)
        optimizer = optimizer_of(net, in_backward, cls, **options)
        runs.append((net, optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)))

    def advance(steps, nets):
        for step in steps:
            for net, optimizer, scheduler in nets:
                backward(net, step)
                assert without_gradients(net) == isinstance(optimizer, pyadamw.StepInBackward)
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()

    advance(range(4), runs)
    (plain, one, _), (ours, other, _) = runs
    assert_same((plain, one), (ours, other))
    assert_same_dicts(one.state_dict(), other.state_dict())
    assert other.memory_report().places == one.memory_report().places
    assert [entry.why for entry in other.memory_report().entries] == [e.why for e in one.memory_report().entries]
    for number, weights in one.fp32_weights().items():
        assert torch.equal(weights, other.fp32_weights()[number])
    changed = []
    for net, optimizer, _ in runs:
        new, is_plain = model(dtype), optimizer is one
        new.load_state_dict(net.state_dict())
        taker = optimizer_of(new, is_plain, cls, **options)
        taker.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        changed.append((new, taker, torch.optim.lr_scheduler.ExponentialLR(taker, 0.5)))
    advance(range(4, 7), changed)
    assert_same(changed[1][:2], changed[0][:2])


def test_two_gradients_are_alive_at_most():
    """However many parameters there are, and also by those whom torch holds without a parameter."""
    net, alive, most = model(), [], []

    def seen(param):
        alive.append(weakref.ref(param.grad))
        most.append((sum(p.grad is not None for p in net.parameters()), sum(grad() is not None for grad in alive)))

    for param in net.parameters():
        param.register_post_accumulate_grad_hook(seen)
    optimizer = optimizer_of(net, True)
    for step in range(3):
        backward(net, step)
        assert not any(grad() is not None for grad in alive)
    assert len(most) == 24 and max(max(most)) <= 2
    optimizer.remove()
    backward(net, 3)
    assert max(most) == (8, 8)  # so the count counts


FREED = """
import ctypes, gc, os, weakref, torch, pyadamw
torch.set_num_threads(1)

def resident():
    ctypes.CDLL(None).malloc_trim(0)  # what is free, but not given back, is no leak
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def train(width, cls):
    net = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(4)])
    optimizer = pyadamw.StepInBackward(net.parameters(), cls, lr=1e-3)
    for step in range(2):
        net(torch.ones(2, width)).square().sum().backward()
        optimizer.step()
    return [weakref.ref(thing) for thing in (net, optimizer, *net.parameters())]

for cls in (pyadamw.AdamW8bit, pyadamw.AdamW32bit, pyadamw.PagedAdamW8bit):
    train(1000, cls)
gc.collect()
before = resident()
dead = []
for i in range(10):
    dead += train(1000, (pyadamw.AdamW8bit, pyadamw.AdamW32bit, pyadamw.PagedAdamW8bit)[i % 3])
    alive = sum(thing() is not None for thing in dead)
    assert not alive, f"{alive} alive after model {i}, without a collection"
gc.collect()
grown = (resident() - before) / 2**20
assert grown < 8, f"{grown} MiB more"
print("holds")
"""


def test_nothing_is_left_of_dropped_models():
    """Ten models of 16 MB leave less than half of one, and go without the garbage collector."""
    done = forked.run(FREED)
    assert done.returncode == 0 and "holds" in done.stdout, done.stdout + done.stderr[-3000:]


def test_a_model_outlives_its_optimizer():
    """backward() then keeps gradients; a later optimizer steps once."""
    net = model()
    optimizer = optimizer_of(net, True)
    backward(net, 0)
    reference = weakref.ref(optimizer)
    del optimizer
    assert reference() is None
    backward(net, 1)
    assert all(param.grad is not None for param in net.parameters())
    net.zero_grad()
    plain, ours = (model(), None), (net, optimizer_of(net, True))
    plain[0].load_state_dict(net.state_dict())
    plain = plain[0], optimizer_of(plain[0], False)
    for kind in (plain, ours):
        backward(kind[0], 2)
        kind[1].step()
    assert_same(plain, ours)


# ---- accumulation, and what hooks do not reach ----------------------------------------------------------------------


def test_accumulation():
    """Gradients of several backward() calls add up as in torch; some parameters are not in the last one."""
    plain, ours = pair()
    for net, optimizer in (plain, ours):
        for step in range(3):
            with optimizer.accumulate() if net is ours[0] else contextlib.nullcontext():
                backward(net, 10 * step)
                backward(net, 10 * step + 1)
                assert all(param.grad is not None for param in net.parameters())
            hidden = net[0](batch(10 * step + 2, net)).detach()
            net[2](net[1](hidden)).square().mean().backward()
            reached = [param.grad is None for param in net.parameters()]
            assert reached == [net is ours[0] and 2 <= i < 6 for i in range(8)]
            optimizer.step()
            assert net is plain[0] or without_gradients(net)
            if net is ours[0]:
                optimizer.step()  # has nothing left
            optimizer.zero_grad()
    assert_same(plain, ours)


def test_accumulation_ends_with_an_error():
    """And may be nested."""
    net = model()
    optimizer = optimizer_of(net, True)
    with pytest.raises(KeyError), optimizer.accumulate():
        with optimizer.accumulate():
            pass
        backward(net, 0)
        raise KeyError
    assert not without_gradients(net)
    backward(net, 1)
    assert without_gradients(net)
    assert {float(state["step"]) for state in optimizer.state.values()} == {1}


def test_step_after_a_partial_backward_and_by_hand():
    """Parameters without a gradient are left alone, as by the plain class; gradients that nobody computed are used."""
    plain, ours = pair()
    for net, optimizer in (plain, ours):
        net[0](batch(0, net)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        net[1].weight.grad = torch.ones(90, 60)
        optimizer.step()
        optimizer.zero_grad()
        assert len(optimizer.state) == 3
    for p, q in zip(plain[0].parameters(), ours[0].parameters(), strict=True):
        assert bits(p) == bits(q)
        assert p not in plain[1].state or state_bits(plain[1], p) == state_bits(ours[1], q)


def test_each_backward_is_a_step():
    """Without step(), too."""
    plain, ours = pair()
    for step in range(3):
        backward(plain[0], step)
        plain[1].step()
        plain[1].zero_grad()
        backward(ours[0], step)
    assert_same(plain, ours)


def test_closures():
    """step() returns the loss; the closure's backward() steps, and step() does not again."""
    plain, ours = pair()
    losses = []
    for net, optimizer in (plain, ours):

        def closure(net=net, optimizer=optimizer):
            optimizer.zero_grad()
            loss = net(batch(1, net)).square().mean()
            loss.backward()
            return loss

        with torch.no_grad():
            losses.append([float(optimizer.step(closure)) for _ in range(3)])
    assert losses[0] == losses[1] and len(set(losses[0])) == 3
    assert_same(plain, ours)


def test_hooks_of_step():
    """They run around step(), once, not around each parameter."""
    net, calls = model(), []
    optimizer = optimizer_of(net, True)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    backward(net, 0)
    assert calls == []
    optimizer.step()
    assert calls == ["before", "after"]


# ---- groups ---------------------------------------------------------------------------------------------------------


def test_groups_that_come_later():
    """New parameters, frozen ones, and frozen ones that are unfrozen, without a step() in between."""
    runs = []
    for in_backward in (False, True):
        net = model()
        for param in (*net[1].parameters(), *net[3].parameters()):
            param.requires_grad_(False)
        made = net[2].parameters()
        optimizer = pyadamw.AdamW8bit(made, **OPTIONS)
        if in_backward:
            optimizer = pyadamw.StepInBackward(net[2].parameters(), pyadamw.AdamW8bit, **OPTIONS)
        optimizer.add_param_group({"params": net[0].parameters(), "lr": 1e-3, "optim_bits": 32})
        optimizer.add_param_group({"params": [*net[1].parameters(), *net[3].parameters()], "betas": (0.8, 0.9)})
        assert not net[1].weight.requires_grad
        for step in range(6):
            if step == 2:
                net[1].requires_grad_(True)
            if step == 4:
                optimizer.param_groups[0]["betas"] = [0.7, 0.8]
                optimizer.param_groups[1]["lr"] = torch.tensor(0.1)
            backward(net, step)
            if not in_backward:
                optimizer.step()
                optimizer.zero_grad()
            assert without_gradients(net)
        assert optimizer.param_groups[0]["betas"] == (0.7, 0.8)
        runs.append((net, optimizer))
    plain, ours = runs
    assert net[3].weight not in ours[1].state
    assert [bits(p) for p in plain[0].parameters()] == [bits(p) for p in ours[0].parameters()]
    for p, q in zip(plain[0].parameters(), ours[0].parameters(), strict=True):
        assert p not in plain[1].state or state_bits(plain[1], p) == state_bits(ours[1], q)


def test_parameters_that_take_the_place_of_others():
    """As frameworks do between the optimizer and the first step: step() notices, and they get hooks."""
    net = model()
    optimizer = optimizer_of(net, True)
    new = model()
    optimizer.param_groups[0]["params"][:] = list(new.parameters())
    backward(net, 0)
    assert not without_gradients(net), "they have left"
    backward(new, 0)
    optimizer.step()
    assert without_gradients(new) and len(optimizer.state) == 8
    backward(new, 1)
    assert without_gradients(new)
    plain = model(), None
    plain = plain[0], optimizer_of(plain[0], False)
    for step in range(2):
        backward(plain[0], step)
        plain[1].step()
        plain[1].zero_grad()
    assert_same(plain, (new, optimizer))


def test_options_of_single_parameters():
    """GlobalOptimManager's, taken over at the first step and kept."""
    runs = []
    for in_backward in (False, True):
        net = model()
        manager = pyadamw.GlobalOptimManager.get_instance()
        manager.override_config([net[0].weight], key_value_dict={"optim_bits": 32, "lr": 0.3})
        optimizer = optimizer_of(net, in_backward)
        for step in range(3):
            backward(net, step)
            optimizer.step()
            optimizer.zero_grad()
            manager.initialize()
        assert "exp_avg" in optimizer.state[net[0].weight]
        runs.append((net, optimizer))
    assert_same(*runs)
