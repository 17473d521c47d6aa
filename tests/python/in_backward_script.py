"""Owns what processes do for test_in_backward.py: StepInBackward of parameters that FSDP2 and tensor parallelism shard,
and its checkpoints. python in_backward_script.py FOLDER MODE:PROCESSES ..., as sharded_script.py.
"""

import functools
from itertools import product

import sharded_script
import torch
import torch.distributed.checkpoint as dcp
from distributed_names import fully_shard
from parts import assert_equal, distribute, full, is_part
from sharded_script import KINDS, MASTERS, model, sharded_model
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import pyadamw

WAYS = ("own", "named")  # state_dict() itself, or by the names of parameters as torch makes it
CLASSES = {"32": pyadamw.AdamW32bit, "16, 24 bits": pyadamw.AdamW16bit, "paged": pyadamw.PagedAdamW8bit}


def optimizer_of(net, kind, in_backward):
    options = {"lr": 1e-2, "min_8bit_size": 500, "amsgrad": True, "master_weight_bits": MASTERS.get(kind)}
    if kind == "paged":
        options["page_manager"] = pyadamw.PageManager("file", min_numel=100)
    cls = CLASSES.get(kind, pyadamw.AdamW8bit)
    if in_backward:
        return pyadamw.StepInBackward(net.named_parameters(), cls, **options)
    return cls(net.named_parameters(), **options)


def train(net, optimizer, first, count):
    """The same numbers in each process: the mean of equal gradients is the gradient of one process."""
    dtype = next(net.parameters()).dtype
    in_backward = isinstance(optimizer, pyadamw.StepInBackward)
    for step in range(first, first + count):
        x = torch.randn(8, 300, generator=torch.Generator().manual_seed(step)).to(dtype)
        net(x).square().mean().backward()
        assert in_backward == all(param.grad is None for param in net.parameters())
        optimizer.step()
        optimizer.zero_grad()


@functools.cache
def alone(kind, steps):
    whole = model(kind)
    plain = optimizer_of(whole, kind, False)
    train(whole, plain, 0, steps)
    return whole, plain


def assert_steps_equal(net, optimizer, steps, kind, what):
    """They are those of the plain class in one process."""
    whole, plain = alone(kind, steps)
    assert_equal((optimizer, list(net.parameters())), (plain, list(whole.parameters())), what)
    assert optimizer.memory_report().entries[0].bits == plain.memory_report().entries[0].bits
    wide = pyadamw.fp32_state_dict(net, optimizer)
    for ours, weights in zip(wide.values(), plain.fp32_weights().values(), strict=True):
        assert is_part(ours, weights), what


def made(world, kind, in_backward):
    net, _ = sharded_model(world, kind)
    return net, optimizer_of(net, kind, in_backward)


def weights(net):
    return {name: param.detach() for name, param in net.named_parameters()}


def save_to(folder, net, optimizer):
    own, named = optimizer.state_dict(), get_optimizer_state_dict(net, optimizer)
    dcp.save({"net": weights(net), "own": own, "named": named}, checkpoint_id=folder)


def load_from(folder, net, optimizer, way):
    found = {"net": weights(net)}
    found[way] = optimizer.state_dict() if way == "own" else get_optimizer_state_dict(net, optimizer)
    dcp.load(found, checkpoint_id=folder)
    if way == "own":
        optimizer.load_state_dict(found["own"])
    else:
        set_optimizer_state_dict(net, optimizer, found["named"])


def save(world, folder):
    for kind in KINDS:
        net, optimizer = made(world, kind, True)
        train(net, optimizer, 0, 3)
        assert_steps_equal(net, optimizer, 3, kind, f"FSDP2, {kind}")
        save_to(folder / kind, net, optimizer)


def resume(world, folder):
    """One that has not stepped yet is filled, in both ways."""
    for way, kind in product(WAYS, KINDS):
        net, optimizer = made(world, kind, True)
        load_from(folder / kind, net, optimizer, way)
        train(net, optimizer, 3, 2)
        assert_steps_equal(net, optimizer, 5, kind, f"resumed, {way}, {kind}")


def give(net, optimizer, kind, first, count):
    """Steps with the gradients of one process, cut: the mean of three equal numbers is not always the number."""
    whole = model(kind)
    plain = optimizer_of(whole, kind, False)
    train(whole, plain, 0, first)
    plain.register_step_pre_hook(lambda *_: cut())

    def cut():
        for p, q in zip(net.parameters(), whole.parameters(), strict=True):
            p.grad = distribute(q.grad, p.device_mesh, p.placements)
        optimizer.step()
        optimizer.zero_grad()

    train(whole, plain, first, count)


def plain(world, folder):
    """The plain class goes on with what StepInBackward has saved."""
    for kind in KINDS:
        net, optimizer = made(world, kind, False)
        load_from(folder / kind, net, optimizer, "named")
        give(net, optimizer, kind, 3, 2)
        assert_steps_equal(net, optimizer, 5, kind, f"plain, {kind}")
        save_to(folder / f"{kind}, plain in {world}", net, optimizer)


def back(world, folder):
    """And StepInBackward with what the plain class has saved, of one process and of three."""
    for way, kind, writers in product(WAYS, KINDS, (1, 3)):
        net, optimizer = made(world, kind, True)
        load_from(folder / f"{kind}, plain in {writers}", net, optimizer, way)
        train(net, optimizer, 5, 1)
        assert_steps_equal(net, optimizer, 6, kind, f"back, {way}, {kind}, from {writers}")


def moved(world, _folder):
    """Parameters with hooks do not lose them without a word: the model moves when the optimizer is removed or gone."""
    net, optimizer = made(world, "8", True)
    train(net, optimizer, 0, 1)
    try:
        net.double()
    except RuntimeError as error:
        assert "swap" in str(error)
    else:
        raise AssertionError("moved, and its hooks are lost")
    net, optimizer = made(world, "8", True)
    train(net, optimizer, 0, 1)
    optimizer.remove()
    net.float()
    net, optimizer = made(world, "8", True)
    train(net, optimizer, 0, 1)
    del optimizer
    net.float()


def layers(kind):
    torch.manual_seed(0)
    made = [torch.nn.Linear(300, 64), torch.nn.Tanh(), torch.nn.Linear(64, 600), torch.nn.LayerNorm(600)]
    return torch.nn.Sequential(*made).to(torch.bfloat16 if kind in MASTERS else torch.float32)


def checkpointed(mesh, kind):
    net = layers(kind)
    net[0], net[2] = checkpoint_wrapper(net[0]), checkpoint_wrapper(net[2])
    for module in (net[0], net[2], net):
        fully_shard(module, mesh=mesh)
    return net


def tensor_parallel(mesh, kind):
    return parallelize_module(layers(kind), mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})


def parallel(world, _folder):
    """What else is sharded, with and without accumulation: the bits of the plain class with the same shards."""
    mesh = init_device_mesh("cpu", (world,))
    for wrap, kind, accumulated in product((checkpointed, tensor_parallel), ("8", "16, 24 bits"), (0, 2)):
        nets = [wrap(mesh, kind) for _ in range(2)]
        optimizers = [optimizer_of(net, kind, in_backward) for in_backward, net in enumerate(nets)]
        for step in range(2):
            for net, optimizer in zip(nets, optimizers, strict=True):
                x = torch.randn(8, 300, generator=torch.Generator().manual_seed(step)).to(next(net.parameters()).dtype)
                for part in range(accumulated):
                    if optimizer is optimizers[0]:
                        net(x + part).square().mean().backward()
                    else:
                        with optimizer.accumulate():
                            net(x + part).square().mean().backward()
                net(x).square().mean().backward()
                assert (optimizer is optimizers[1]) == all(param.grad is None for param in net.parameters())
                optimizer.step()
                optimizer.zero_grad()
        what = f"{wrap.__name__}, {kind}, {accumulated}"
        for p, q in zip(*(net.parameters() for net in nets), strict=True):
            assert torch.equal(full(p.detach()), full(q.detach())), what
            one, other = optimizers[0].state[p], optimizers[1].state[q]
            assert one.keys() == other.keys(), what
            assert all(torch.equal(full(one[key]), full(other[key])) for key in one), what


sharded_script.MODES.update({f.__name__: f for f in (save, resume, plain, back, moved, parallel)})

if __name__ == "__main__":
    sharded_script.main()
