"""Owns the laws of StepInBackward in more than one process: right with FSDP2 and its checkpoints, and refused where
gradients are averaged after it would have stepped. (test_torch_contract.py: alone, it steps as one optimizer does.)
"""

import copy

import forked
import pytest
import torch
from harness import bits
from versions import needs_fsdp2

import pyadamw

DDP = """
import contextlib, gc, sys, torch, torch.distributed as dist, pyadamw
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

class Mine(DistributedDataParallel):
    pass

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(30, 400), torch.nn.Linear(400, 3))

def stepper(net):
    return pyadamw.StepInBackward(net.named_parameters(), pyadamw.AdamW8bit, lr=1e-2)

def backward(net):
    net(torch.ones(4, 30)).square().mean().backward()

def refused(call, net, message="belongs to a DistributedDataParallel"):
    before = [p.detach().clone() for p in net.parameters()]
    try:
        call()
    except RuntimeError as error:
        assert message in str(error) and ".weight'" in str(error) or ".bias'" in str(error), error
    else:
        raise AssertionError("not refused")
    assert all(map(torch.equal, before, net.parameters()))
"""


def holds(script, *arguments, prelude=DDP, modules=forked.SHARDED):
    done = forked.run(prelude + script + "\nprint('holds')\n", *arguments, modules=modules)
    assert done.returncode == 0 and "holds" in done.stdout, done.stdout + done.stderr[-3000:]


@pytest.mark.parametrize(
    "options",
    ["", ", gradient_as_bucket_view=True", ", static_graph=True", ", find_unused_parameters=True"],
)
@pytest.mark.parametrize("cls", ["DistributedDataParallel", "Mine"])
def test_data_parallel_parameters_are_refused(cls, options):
    """Whatever came first, also in steps that are not to average anything; nothing has been written."""
    holds(f"""
def wrapped(net):
    return {cls}(net{options})

# first the stepper, with and without no_sync()
for context in (lambda net: net.no_sync(), lambda net: contextlib.nullcontext()):
    one = net()
    hooks = stepper(one)
    outer = wrapped(one)
    with context(outer):
        refused(lambda: backward(outer), one)

# where a name of the class goes when the instance has come
one = net()
def made():
    local = DistributedDataParallel
    return stepper(one), wrapped(one)
hooks, outer = made()
refused(lambda: backward(outer), one)

# it has stepped already
one = net()
hooks = stepper(one)
backward(one)
outer = wrapped(one)
refused(lambda: backward(outer), one)

# first DistributedDataParallel, with and without a step
for count in range(2):
    one = net()
    outer = wrapped(one)
    for _ in range(count):
        backward(outer)
    refused(lambda: stepper(outer), one)
""")


def test_other_parameters_are_stepped():
    """Those of another model, those that DistributedDataParallel ignores, and those whose wrapper is gone."""
    holds("""
one, other = net(), net()
hooks, outer = stepper(one), DistributedDataParallel(other)
backward(one)
assert all(p.grad is None for p in one.parameters())
backward(outer)
assert all(p.grad is not None for p in other.parameters())

ignoring = net()
DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(ignoring, ["0.weight", "0.bias"])
hooks = pyadamw.StepInBackward(ignoring[0].named_parameters(), pyadamw.AdamW8bit)
outer = DistributedDataParallel(ignoring)
backward(outer)
assert [p.grad is None for p in ignoring.parameters()] == [True, True, False, False]

freed = net()
hooks = stepper(freed)
outer = DistributedDataParallel(freed)
refused(lambda: backward(outer), freed)
del outer
gc.collect()
for p in freed.parameters():
    p.grad = None
backward(freed)
assert all(p.grad is None for p in freed.parameters())
""")


def test_fully_sharded_data_parallel_1_is_refused():
    """It calls no hooks of parameters: they would never be stepped."""
    holds(
        """
from torch.distributed.fsdp import FullyShardedDataParallel
for use_orig_params in (True, False):
    outer = FullyShardedDataParallel(net(), use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    try:
        pyadamw.StepInBackward(outer.parameters())
    except ValueError as error:
        assert "FSDP1" in str(error) and "parameter 0" in str(error)
    else:
        raise AssertionError("not refused")
"""
    )


@needs_fsdp2
def test_fully_shard(tmp_path):
    """The bits of the plain class in one process. A checkpoint of two processes fills a fresh optimizer in one and in
    two, and the plain class in one and in three, whose checkpoints fill it again. A model that is moved loses no hooks
    without a word. Activation checkpointing and tensor parallelism change nothing."""
    jobs = [("save", 2), ("resume", 2), ("resume", 1), ("plain", 1), ("plain", 3), ("back", 2)]
    jobs += [("moved", 1), ("parallel", 2)]
    forked.run_processes("in_backward_script", tmp_path, *jobs)


@pytest.mark.parametrize("options", [{}, {"percentile_clipping": 30}, {"amsgrad": True}, {"block_wise": False}])
def test_state_that_a_checkpoint_makes_changes_nothing(options):
    """state_dict() of a fresh stepper has all that a later one has, and the steps after it have the bits of those
    without it."""
    torch.manual_seed(0)
    first = torch.nn.Sequential(torch.nn.Linear(30, 400), torch.nn.LazyLinear(3))
    first(torch.randn(4, 30))
    second = copy.deepcopy(first)
    one, other = (pyadamw.StepInBackward(net.parameters(), lr=1e-2, **options) for net in (first, second))
    empty = one.state_dict()["state"]
    assert all(param.grad is None for param in first.parameters())
    assert all(float(saved["step"]) == 0 for saved in empty.values())
    for step in range(3):
        for net in (first, second):
            net(torch.randn(4, 30, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        assert [bits(p) for p in first.parameters()] == [bits(p) for p in second.parameters()]
    later = other.state_dict()["state"]
    assert {key: {*saved} for key, saved in later.items()} == {key: {*saved} for key, saved in empty.items()}


def test_a_stepper_of_what_is_not_there_yet():
    """Parameters without memory have no state to make; state_dict() works, as without."""
    net = torch.nn.Linear(3, 3, device="meta")
    stepper = pyadamw.StepInBackward(net.parameters())
    assert stepper.state_dict()["state"] == {}
