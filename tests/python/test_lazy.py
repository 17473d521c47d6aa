"""Owns the law: parameters that are not initialized yet are as to torch's optimizers: there, and left alone."""

import pytest
import torch
from harness import CLASSES, assert_same_bits, moment_of

import pyadamw

pytestmark = pytest.mark.usefixtures("_looks")


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(30, 200), torch.nn.LazyLinear(300))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_lazy_modules(cls, named):
    """Reported, saved and stepped before and after they get their memory: the bits of a run that began then."""
    lazy = net()
    optimizer = cls(lazy.named_parameters() if named else lazy.parameters(), lr=1e-2)
    before = optimizer.memory_report()
    assert [(entry.numel, entry.bytes, bool(entry.why)) for entry in before.entries[2:]] == [(0, 0, True)] * 2
    assert str(before).count("not initialized yet") == 4
    if named:
        assert before.entries[2].name == "parameter '1.weight' (not initialized yet)"
    lazy[0](torch.ones(4, 30)).square().sum().backward()
    optimizer.step()
    assert sorted(optimizer.state_dict()["state"]) == [0, 1]
    assert optimizer.memory_report().bytes > 0
    optimizer.zero_grad()
    plain = net()
    plain[0].load_state_dict(lazy[0].state_dict())
    for one in (lazy, plain):
        torch.manual_seed(1)
        one(torch.ones(4, 30))
    reference = cls(plain.parameters(), lr=1e-2)
    reference.load_state_dict(optimizer.state_dict())
    for one, stepped in ((lazy, optimizer), (plain, reference)):
        one(torch.ones(4, 30)).square().sum().backward()
        stepped.step()
    assert_same_bits((optimizer, list(lazy.parameters())), (reference, list(plain.parameters())))
    assert "not initialized" not in str(optimizer.memory_report())


def test_an_override_of_a_lazy_parameter(manager):
    """It counts when there is something to step."""
    lazy = net()
    manager.register_module_override(lazy[1], "weight", {"optim_bits": 32})
    optimizer = pyadamw.AdamW8bit(lazy.parameters())
    assert [entry.bits for entry in optimizer.memory_report().entries] == [8, 32, 32, 8]
    lazy(torch.ones(4, 30)).square().sum().backward()
    optimizer.step()
    assert moment_of(optimizer.state[lazy[1].weight]).dtype == torch.float32


class Flagged(torch.Tensor):
    pass


def test_parameters_of_other_classes_are_not_lazy(monkeypatch):
    """Those of tensors such as DTensors, which an older torch takes for instances of every class of parameters."""

    def is_instance(cls, value):
        return type.__instancecheck__(cls, value) or getattr(value, "_is_param", False)

    monkeypatch.setattr(type(torch.nn.UninitializedParameter), "__instancecheck__", is_instance)
    param = torch.nn.Parameter(torch.ones(70, 100).as_subclass(Flagged))
    assert isinstance(param, torch.nn.UninitializedParameter)
    optimizer = pyadamw.AdamW8bit([param])
    param.grad = torch.ones_like(param)
    optimizer.step()
    (entry,) = optimizer.memory_report().entries
    assert entry.numel == 7000 and entry.bytes > 0 and not entry.why
