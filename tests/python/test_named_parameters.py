"""Owns the law: (name, parameter) pairs may be given with every torch, as to torch.optim since 2.6."""

import pytest
import torch
from harness import CLASSES, assert_same_bits, clones, parameters, train

import pyadamw
from pyadamw._state import load

PARAMS = parameters([(5000,), (7,)])


@pytest.fixture(params=["this torch", "torch 2.4"])
def torch_of_names(request, monkeypatch):
    """Also the base class as it was before torch 2.6: it takes tensors, and knows no names."""
    if request.param == "torch 2.4":
        own = torch.optim.Optimizer.add_param_group

        def add_param_group(self, group):
            for param in group["params"]:
                if not isinstance(param, torch.Tensor):
                    raise TypeError(f"one of the params is {torch.typename(param)}")
            names = group.pop("param_names", None)
            saved = [other.pop("param_names", None) for other in self.param_groups]
            own(self, group)
            for other, before in zip(self.param_groups, [*saved, names], strict=True):
                if before is not None:
                    other["param_names"] = before

        monkeypatch.setattr(torch.optim.Optimizer, "add_param_group", add_param_group)


def named(params=PARAMS):
    return [(f"weight {number}", param) for number, param in enumerate(params)]


@pytest.mark.usefixtures("torch_of_names")
@pytest.mark.parametrize("cls", CLASSES)
def test_names_change_no_bit(cls):
    """The same steps, with the names in param_names; they are kept where a checkpoint has none."""
    params, others = clones(PARAMS), clones(PARAMS)
    optimizer, plain = cls(iter(named(params)), lr=0.1), cls(others, lr=0.1)
    train(optimizer, params, 2)
    train(plain, others, 2)
    optimizer.load_state_dict(plain.state_dict())
    assert_same_bits((optimizer, params), (plain, others))
    assert optimizer.param_groups[0]["param_names"] == ["weight 0", "weight 1"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["weight 0", "weight 1"]
    assert "parameter 'weight 0'" in str(optimizer.memory_report())


@pytest.mark.usefixtures("torch_of_names")
def test_groups_with_names():
    """Groups that are added later have names, too, and keep their own options."""
    optimizer = pyadamw.AdamW8bit([{"params": named(PARAMS[:1]), "lr": 0.5}])
    optimizer.add_param_group({"params": [("bias", PARAMS[1])]})
    assert [group["param_names"] for group in optimizer.param_groups] == [["weight 0"], ["bias"]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 1e-3]
    stepper = pyadamw.StepInBackward(named(clones(PARAMS)), pyadamw.AdamW8bit)
    assert stepper.param_groups[0]["param_names"] == ["weight 0", "weight 1"]


@pytest.mark.usefixtures("torch_of_names")
def test_what_is_refused():
    """Names for some parameters or groups only, and what is neither a tensor nor a pair."""
    some = r"should be with/without names"
    with pytest.raises(ValueError, match=f"{some}. Some param names are missing"):
        pyadamw.AdamW8bit([("weight", PARAMS[0]), PARAMS[1]])
    for first, second, found in ((named(PARAMS[:1]), [PARAMS[1]], "without"), ([PARAMS[0]], named(PARAMS[1:]), "with")):
        optimizer = pyadamw.AdamW8bit(first)
        with pytest.raises(ValueError, match=f"{some}. cannot add param group {found} names"):
            optimizer.add_param_group({"params": second})
        assert len(optimizer.param_groups) == 1
    for params in ([("weight", 1)], [1], {PARAMS[0]}):
        with pytest.raises(TypeError):
            pyadamw.AdamW8bit([{"params": params}])


def test_names_that_a_checkpoint_lacks():
    """Loading keeps the names there are, whatever the base class does; those of the checkpoint win."""
    optimizer = pyadamw.AdamW8bit(named())
    loaded = [{**optimizer.param_groups[0]}, {**optimizer.param_groups[0], "param_names": ["a", "b"]}]
    del loaded[0]["param_names"]
    load.restore_options(loaded, [*optimizer.param_groups] * 2, optimizer.defaults)
    assert [group["param_names"] for group in loaded] == [["weight 0", "weight 1"], ["a", "b"]]
