"""Owns what processes do for test_in_backward.py: StepInBackward of parameters that FSDP2 shards, and its checkpoints.
python in_backward_script.py FOLDER MODE:PROCESSES ..., as sharded_script.py.
"""

from itertools import product

import sharded_script
import torch
import torch.distributed.checkpoint as dcp
from sharded_script import MASTERS, assert_equal, full, model, sharded_model
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import pyadamw

OPTIONS = {"lr": 1e-2, "min_8bit_size": 500, "amsgrad": True}
KINDS = ("8", "8, 32 bits")


def options_of(kind):
    return {**OPTIONS, "master_weight_bits": MASTERS.get(kind)}


def backward(net, first, count):
    """The same numbers in each process: the mean of equal gradients is the gradient of one process."""
    dtype = next(net.parameters()).dtype
    for step in range(first, first + count):
        x = torch.randn(8, 300, generator=torch.Generator().manual_seed(step)).to(dtype)
        net(x).square().mean().backward()


def reference(steps, kind):
    net = model(kind)
    optimizer = pyadamw.AdamW8bit(net.parameters(), **options_of(kind))
    for step in range(steps):
        backward(net, step, 1)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer, list(net.parameters())


def made(world, kind="8"):
    net, _ = sharded_model(world, kind)
    return net, pyadamw.StepInBackward(net.named_parameters(), pyadamw.AdamW8bit, **options_of(kind))


class Together:
    """The state of all parameters, as an optimizer has it."""

    def __init__(self, stepper):
        self.state = {param: optimizer.state[param] for param, optimizer in stepper.optimizers.items()}


def assert_steps_equal(net, stepper, steps, kind, what):
    assert all(param.grad is None for param in net.parameters())
    optimizer, params = reference(steps, kind)
    assert_equal((Together(stepper), list(net.parameters())), (optimizer, params), what)
    wide = pyadamw.fp32_state_dict(net, stepper)
    for ours, plain in zip(wide.values(), optimizer.fp32_weights().values(), strict=True):
        assert torch.equal(full(ours), plain), what


def weights(net):
    return {name: param.detach() for name, param in net.named_parameters()}


def save(world, folder):
    for kind in KINDS:
        net, stepper = made(world, kind)
        backward(net, 0, 3)
        assert_steps_equal(net, stepper, 3, kind, f"FSDP2, {kind}")
        dcp.save({"net": weights(net), "optimizer": stepper.state_dict()}, checkpoint_id=folder / f"own {kind}")
        optimizers = list(stepper.optimizers.values())
        state = get_optimizer_state_dict(net, optimizers)
        dcp.save({"optimizer": state}, checkpoint_id=folder / f"named {kind}")


def resume(world, folder):
    """A stepper that has not stepped yet is filled, in both ways."""
    for way, kind in product(("own", "named"), KINDS):
        net, stepper = made(world, kind)
        optimizers = list(stepper.optimizers.values())
        found = {"net": weights(net)}
        dcp.load(found, checkpoint_id=folder / f"own {kind}")
        if way == "own":
            found = {"optimizer": stepper.state_dict()}
            dcp.load(found, checkpoint_id=folder / f"own {kind}")
            stepper.load_state_dict(found["optimizer"])
        else:
            found = {"optimizer": get_optimizer_state_dict(net, optimizers)}
            dcp.load(found, checkpoint_id=folder / f"named {kind}")
            set_optimizer_state_dict(net, optimizers, found["optimizer"])
        backward(net, 3, 2)
        assert_steps_equal(net, stepper, 5, kind, f"resumed, {way}, {kind}")


def moved(world, _folder):
    """Parameters with hooks do not lose them without a word: the model moves when the stepper is gone."""
    net, stepper = made(world)
    backward(net, 0, 1)
    try:
        net.double()
    except RuntimeError as error:
        assert "swap" in str(error)
    else:
        raise AssertionError("moved, and its hooks are lost")
    net, stepper = made(world)
    backward(net, 0, 1)
    stepper.remove()
    net.float()


sharded_script.MODES.update({"save": save, "resume": resume, "moved": moved})

if __name__ == "__main__":
    sharded_script.main()
