"""Owns the law that torch.distributed.checkpoint's view of an optimizer, nested or flattened, is enough to go on."""

import pytest
import torch
from harness import CLASSES, Late, assert_same_bits

import pyadamw

dcp, state_dict = map(Late, ("torch.distributed.checkpoint", "torch.distributed.checkpoint.state_dict"))


def model():
    return torch.nn.Sequential(torch.nn.Linear(100, 200), torch.nn.Linear(200, 50))


def step(net, optimizer, seed):
    torch.manual_seed(seed)
    net(torch.randn(3, 100)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_set_what_was_got(cls, flat):
    """In a fresh optimizer, which is initialised by a fake step on the way: the same bits, and still paged."""

    def optimizer_of(net):
        paged = {"page_manager": pyadamw.PageManager("file", min_numel=1000)} if "Paged" in cls.__name__ else {}
        return cls(net.named_parameters(), lr=1e-2, amsgrad=True, min_8bit_size=1000, **paged)

    options = state_dict.StateDictOptions(flatten_optimizer_state_dict=flat)
    torch.manual_seed(0)
    net, other = model(), model()
    optimizer = optimizer_of(net)
    for seed in range(3):
        step(net, optimizer, seed)
    other.load_state_dict(net.state_dict())
    fresh = optimizer_of(other)
    got = state_dict.get_optimizer_state_dict(net, optimizer, options=options)
    state_dict.set_optimizer_state_dict(other, fresh, optim_state_dict=got, options=options)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters(), strict=True))
    for seed in (3, 4):
        step(net, optimizer, seed)
        step(other, fresh, seed)
    assert_same_bits((optimizer, list(net.parameters())), (fresh, list(other.parameters())))
    assert fresh.memory_report().places == optimizer.memory_report().places


@pytest.mark.parametrize("cls", [pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit])
def test_a_checkpoint_takes_two_bytes_a_parameter(cls, tmp_path):
    """2.05 of 8-bit state, and what the files themselves take."""
    net = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(4)))
    optimizer = cls(net.parameters())
    step(torch.nn.Sequential(torch.nn.Linear(100, 1024), net), optimizer, 0)
    dcp.save({"optimizer": state_dict.get_optimizer_state_dict(net, optimizer)}, checkpoint_id=tmp_path)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size / sum(p.numel() for p in net.parameters()) <= 2.1
