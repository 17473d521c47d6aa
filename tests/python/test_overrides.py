"""Owns the laws of options for single parameters, by bitsandbytes' names: they equal groups, and leak nowhere."""

import copy
import gc
import pickle

import pytest
import torch
from harness import assert_same_bits, bits, clones, moment_of, parameters, run_played, state_bits, train

import pyadamw

SHAPES = ((40, 300), (5000,), (70, 256), (7,))


CONFIGS = {
    "bits": {"optim_bits": 32},
    "16 bits": {"optim_bits": 16},
    "master weights": {"master_weight_bits": 24},
    "values": {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-4, "weight_decay": 0.3},
    "clipping": {"percentile_clipping": 30},
    "paged": {"is_paged": True},
    "tensor-wise": {"block_wise": False, "optim_bits": 8},
    "max_unorm": {"max_unorm": 0.01, "skip_zeros": True},
}


@pytest.mark.parametrize("tensor_lr", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_an_override_is_a_group_of_its_own(manager, name, tensor_lr):
    """Parameters and state have the bits of an optimizer whose group says the same; the groups stay as they are."""
    config, lr = CONFIGS[name], torch.tensor(1e-2) if tensor_lr else 1e-2
    params = parameters(SHAPES, torch.bfloat16 if "master" in name else torch.float32)
    copies = clones(params)
    manager.register_parameters(params)
    manager.override_config([params[1], params[2]], key_value_dict=config)
    overridden = pyadamw.AdamW8bit(params, lr=lr)
    grouped = pyadamw.AdamW8bit([{"params": [copies[0], copies[3]]}, {"params": copies[1:3], **config}], lr=lr)
    for step in range(3):
        train(overridden, params, 1, first=step)
        train(grouped, copies, 1, first=step)
        for optimizer in (overridden, grouped):  # as a scheduler would
            optimizer.param_groups[0]["lr"] = optimizer.param_groups[0]["lr"] * 0.5
        if "lr" not in config:
            grouped.param_groups[1]["lr"] = grouped.param_groups[0]["lr"]
    for p, q in zip(params, copies, strict=True):
        assert bits(p) == bits(q)
        assert state_bits(overridden, p) == state_bits(grouped, q)
    assert len(overridden.param_groups) == 1
    assert overridden.param_groups[0]["optim_bits"] == 8


def test_a_module_names_its_parameter_late(manager):
    """The parameter that the module has at the first step, also if it is another object than at first."""
    net = torch.nn.Sequential(torch.nn.Embedding(100, 64), torch.nn.Linear(64, 100))
    manager.register_module_override(net[0], "weight", {"optim_bits": 32})
    net[0].weight = torch.nn.Parameter(net[0].weight.detach().clone())
    optimizer = pyadamw.AdamW8bit(net.parameters())
    net(torch.arange(10)).square().sum().backward()
    optimizer.step()
    assert moment_of(optimizer.state[net[0].weight]).dtype == torch.float32
    assert moment_of(optimizer.state[net[1].weight]).dtype == torch.uint8
    report = optimizer.memory_report()
    assert [entry.bits for entry in report.entries] == [32, 8, 32]


def test_nothing_leaks(manager):
    """Neither to other parameters, at the same place or the same address, nor to an optimizer that has begun."""
    params = parameters(SHAPES)
    begun = pyadamw.AdamW8bit(params)
    train(begun, params, 1)
    manager.override_config(params[0], "optim_bits", 32)
    train(begun, params, 1, first=1)
    assert moment_of(begun.state[params[0]]).dtype == torch.uint8
    other = parameters(SHAPES)
    apart = pyadamw.AdamW8bit(other)
    train(apart, other, 1)
    assert moment_of(apart.state[other[0]]).dtype == torch.uint8
    del begun, apart, other, params
    gc.collect()
    assert manager.pid2config == {}
    for _ in range(20):
        fresh = parameters(SHAPES)
        assert all(manager.config_of(p) == {} for p in fresh)


def test_a_checkpoint_keeps_to_the_override(manager):
    params = parameters(SHAPES)
    plain = pyadamw.AdamW8bit(params)
    train(plain, params, 2)
    copies = clones(params)
    manager.override_config(copies[0], "optim_bits", 32)
    optimizer = pyadamw.AdamW8bit(copies)
    optimizer.load_state_dict(plain.state_dict())
    assert [moment_of(optimizer.state[p]).dtype for p in copies[:2]] == [torch.float32, torch.uint8]
    train(optimizer, copies, 1, first=2)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda optimizer: pickle.loads(pickle.dumps(optimizer))])
def test_copies_keep_the_override(manager, copied):
    params = parameters(SHAPES)
    manager.override_config(params[0], key_value_dict={"optim_bits": 32, "lr": 0.05})
    optimizer = pyadamw.AdamW8bit(params)
    train(optimizer, params, 2)
    other = copied(optimizer)
    copies = other.param_groups[0]["params"]
    train(optimizer, params, 2, first=2)
    train(other, copies, 2, first=2)
    assert_same_bits((optimizer, params), (other, copies))
    assert moment_of(other.state[copies[0]]).dtype == torch.float32


@pytest.mark.parametrize(
    "call",
    [
        lambda m, p: m.override_config(p, "optim_bits", 4),
        lambda m, p: m.override_config(p, "amsgrad", True),
        lambda m, p: m.override_config(p, key_value_dict={"lr": -1}),
        lambda m, p: m.override_config(p),
        lambda m, p: m.override_config("weight", "optim_bits", 32),
        lambda m, p: m.register_parameters(["weight"]),
        lambda m, p: m.register_module_override(torch.nn.Linear(2, 2), "weights", {"optim_bits": 32}),
    ],
)
def test_wrong_calls_are_refused(manager, call):
    with pytest.raises(ValueError):
        call(manager, parameters(((3,),))[0])


# ---- when an optimizer looks -----------------------------------------------------------------------------------------


def test_a_load_takes_the_override(manager):
    """What is there when state is loaded stays; what comes between load and step does not reach it."""
    params = parameters(SHAPES)
    plain = pyadamw.AdamW8bit(params)
    train(plain, params, 1)
    copies = clones(params)
    manager.override_config(copies[0], "optim_bits", 32)
    optimizer = pyadamw.AdamW8bit(copies)
    optimizer.load_state_dict(plain.state_dict())
    manager.initialize()
    manager.override_config(copies[1], "optim_bits", 32)
    train(optimizer, copies, 1, first=1)
    assert [moment_of(optimizer.state[p]).dtype for p in copies[:2]] == [torch.float32, torch.uint8]
    assert [entry.bits for entry in optimizer.memory_report().entries[:2]] == [32, 8]
    again = pickle.loads(pickle.dumps(optimizer))
    assert [moment_of(again.state[p]).dtype for p in again.param_groups[0]["params"][:2]] == [
        torch.float32,
        torch.uint8,
    ]


@pytest.mark.parametrize("zero", [0.0, torch.tensor(0.0)])
def test_a_group_without_lr_stops_an_lr_of_its_own(manager, zero):
    """So torch.distributed.checkpoint makes state; and with an lr again, the parameter's own counts."""
    params = parameters(SHAPES)
    manager.override_config(params[1], key_value_dict={"lr": 0.5, "weight_decay": 0.1})
    before = [bits(p) for p in params]
    optimizer = pyadamw.AdamW8bit(params, lr=zero)
    train(optimizer, params, 2)
    assert [bits(p) for p in params] == before
    optimizer.param_groups[0]["lr"] = 1e-3
    train(optimizer, params, 1)
    assert bits(params[1]) != before[1]
    optimizer.param_groups[0]["lr"] = zero
    before = [bits(p) for p in params]
    train(optimizer, params, 1)
    assert [bits(p) for p in params] == before


def test_loading_by_dcp_moves_no_weight(manager):
    """set_optimizer_state_dict() of torch.distributed.checkpoint into an optimizer with overrides of lr."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    net = torch.nn.Linear(64, 80)
    manager.override_config(net.weight, key_value_dict={"lr": 0.5, "weight_decay": 0.1})
    optimizer = pyadamw.AdamW8bit(net.parameters())
    train(optimizer, list(net.parameters()), 2)
    optimizer.zero_grad()  # torch.distributed.checkpoint makes state with gradients of its own
    saved = get_optimizer_state_dict(net, optimizer)
    before, fresh = bits(net.weight), pyadamw.AdamW8bit(net.parameters())
    set_optimizer_state_dict(net, fresh, saved)
    assert bits(net.weight) == before
    assert state_bits(fresh, net.weight) == state_bits(optimizer, net.weight)


def test_lr_of_its_own_beside_an_lr_on_a_device():
    """As on the CPU, without anybody waiting for the device: 0 there stops it, anything else does not count."""
    script = """
import torch, pyadamw
from device_script import on_device
from harness import bits, parameters, train
manager = pyadamw.GlobalOptimManager.get_instance()
with on_device():
    params = parameters(((5000,), (300,)))
    manager.override_config(params[0], "lr", 0.5)
    lr = torch.tensor(0.0)
    optimizer = pyadamw.AdamW8bit(params, lr=lr)
    before = [bits(p) for p in params]
    train(optimizer, params, 2)
    assert [bits(p) for p in params] == before
    lr.fill_(1e-3)
    values = [p.detach().clone() for p in params]
    train(optimizer, params, 1, first=2)
    assert 0.1 < (values[0] - params[0]).abs().max() < 2
    assert 0 < (values[1] - params[1]).abs().max() < 4e-3
    optimizer.param_groups[0]["lr"] = 0.0
    before = [bits(p) for p in params]
    train(optimizer, params, 1, first=3)
    assert [bits(p) for p in params] == before
print("holds")
"""
    assert "holds" in run_played("-c", script)
