"""Owns the laws of GlobalOptimManager as an object: bitsandbytes' names, and parameters that it does not keep."""

import gc
import weakref

import forked
import pytest
import torch
from harness import moment_of, parameters, train

import pyadamw

SHAPES = ((40, 300), (5000,), (70, 256), (7,))

# ---- bitsandbytes' names ---------------------------------------------------------------------------------------------


def test_initialize_forgets_all(manager):
    """What an optimizer has taken over stays; nothing reaches another one."""
    net = torch.nn.Linear(64, 80)
    manager.override_config(net.weight, "optim_bits", 32)
    manager.register_module_override(net, "bias", {"lr": 0.5})
    before = pyadamw.AdamW8bit(net.parameters())
    params = list(net.parameters())
    train(before, params, 1)
    manager.initialize()
    assert (manager.pid2config, manager.module_weight_config_triple, manager.uses_config_override) == ({}, [], False)
    after = pyadamw.AdamW8bit(net.parameters())
    for optimizer in (before, after):
        train(optimizer, params, 1, first=1)
    assert moment_of(before.state[net.weight]).dtype == torch.float32
    assert moment_of(after.state[net.weight]).dtype == torch.uint8


@pytest.mark.parametrize("cls", [pyadamw.AdamW, pyadamw.PagedAdamW8bit])
def test_what_programs_read_of_the_manager(manager, cls):
    """optimizer.mng is the manager; it says what has been registered, once, and keeps no module alive."""
    module, params = torch.nn.Embedding(100, 64), parameters(SHAPES)
    for _ in range(3):
        manager.register_module_override(module, "weight", {"optim_bits": 32})
    manager.override_config(params[1], "optim_bits", 32)
    assert manager.index2config == {}
    manager.register_parameters([{"params": params[:1]}, {"params": params[1:]}])
    found = cls(module.parameters()).mng
    assert found is manager is pyadamw.GlobalOptimManager.get_instance()
    assert [(m is module, name, config) for m, name, config in found.module_weight_config_triple] == [
        (True, "weight", {"optim_bits": 32})
    ]
    assert found.pid2config == {id(params[1]): {"optim_bits": 32}}
    assert found.index2config == {(1, 0): {"optim_bits": 32}}
    assert found.uses_config_override and found.optimizer is None
    gone = weakref.ref(module)
    del module
    gc.collect()
    assert gone() is None
    assert found.module_weight_config_triple == []


# ---- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepped", [False, True])
def test_an_overridden_parameter_can_be_swapped(manager, stepped):
    """torch.utils.swap_tensors, which moves modules of sharded parameters, before and after the first step: the object
    has its override still."""
    params = parameters(SHAPES)
    manager.override_config(params[0], key_value_dict={"optim_bits": 32, "lr": 0.5})
    optimizer = pyadamw.AdamW8bit(params)
    if stepped:
        train(optimizer, params, 1)
        for p in params:
            p.grad = None
    assert weakref.getweakrefs(params[0]) == []
    torch.utils.swap_tensors(params[0], torch.nn.Parameter(torch.zeros(SHAPES[0])))
    train(optimizer, params, 1)
    assert moment_of(optimizer.state[params[0]]).dtype == torch.float32
    assert params[0].abs().max() > 0.4


def in_a_cycle(param):
    param.register_hook(lambda grad: grad * param.requires_grad)


def in_a_module(param):
    module = torch.nn.Module()
    module.param, module.itself = param, [module]


@pytest.mark.parametrize("held_by", [lambda param: None, in_a_cycle, in_a_module])
def test_the_manager_holds_no_memory(manager, held_by):
    """An overridden parameter that nobody has any more is gone with the next collection, also out of a cycle."""
    kept, param = parameters(((300,), (400,)))
    held_by(param)
    memory = weakref.ref(param.untyped_storage())
    manager.override_config([kept, param], "optim_bits", 32)
    gc.collect()
    assert memory() is not None
    del param
    gc.collect()
    assert memory() is None
    assert list(manager.pid2config) == [id(kept)]
    del kept
    gc.collect()
    assert not any("_Configs" in repr(callback) for callback in gc.callbacks)


def test_a_parameter_that_only_a_graph_holds_keeps_its_override(manager):
    (param,) = parameters(((300,),))
    manager.override_config(param, "optim_bits", 32)
    loss = (param * 2).sum()
    edge = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    del param
    gc.collect()
    assert manager.config_of(edge.variable) == {"optim_bits": 32}


def test_an_optimizer_lets_go_what_has_left_its_groups(manager):
    params = parameters(((300,), (400,)))
    manager.override_config(params, "lr", 0.5)
    optimizer = pyadamw.AdamW32bit(params)
    train(optimizer, params, 1)
    memory = weakref.ref(params[1].untyped_storage())
    gc.collect()
    assert memory() is not None
    optimizer.param_groups[0]["params"] = params[:1]
    del optimizer.state[params[1]]
    train(optimizer, params[:1], 1, first=1)
    del params[1]
    gc.collect()
    assert memory() is None


def test_the_end_of_an_interpreter_is_silent():
    """With overrides left, whatever is collected when."""
    script = """
import gc, torch, pyadamw
manager = pyadamw.GlobalOptimManager.get_instance()
net = torch.nn.Linear(3, 4)
net.weight.itself = [net.weight]
manager.override_config(list(net.parameters()), "optim_bits", 32)
class Late:
    def __del__(self, collect=gc.collect):
        collect()
late = Late()
late.itself = late
"""
    done = forked.run(script)
    assert (done.returncode, done.stderr) == (0, "")
