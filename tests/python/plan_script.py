"""Owns what several processes do together for test_plan_bytes.py; started like sharded_script.py."""

import sharded_script
import torch
import torch.distributed as dist
from distributed_names import Replicate, Shard, fully_shard
from parts import distribute, numbers
from plan_models import Awkward, Live, Taken, bytes_of, code_of, inner, taken
from sharded_script import SHAPES
from torch.distributed.device_mesh import init_device_mesh

import pyadamw


def planned(choice):
    return Taken(choice.weights, choice.gradients, choice.remainder, choice.state, choice.host)


def sharded(world, dtype, tied):
    model, mesh = Awkward(tied).to(dtype), init_device_mesh("cpu", (world,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def runs_backward(choice):
    """For one class: gradients do not depend on it, nor state on where gradients come from."""
    return choice.optimizer == "AdamW8bit" and not choice.master_weight_bits


def run(model, choice):
    """What a step takes in this process. Without a backward(), gradients are as after one in which all are kept."""
    live, hooks = Live(), []
    trained = [param for param in model.parameters() if param.requires_grad]

    def seen(param):
        live.note(param.grad)
        live.count()

    if choice.in_backward:  # before the optimizer has its hooks
        hooks = [param.register_post_accumulate_grad_hook(seen) for param in trained]
    optimizer = code_of(choice, model)
    if runs_backward(choice):
        model.loss().backward()
        assert choice.in_backward == all(param.grad is None for param in trained)
    else:
        for param in trained:
            param.grad = torch.zeros_like(param)
    gradients = live.peak or bytes_of(param.grad for param in trained)
    optimizer.step()
    for hook in hooks:
        hook.remove()
    if choice.in_backward:
        optimizer.remove()
    model.zero_grad()
    return taken(model, optimizer, gradients)


def fsdp2(world, _folder):
    """Each process takes what the plan says of it, for every choice; the first process has most."""
    rank, tied = dist.get_rank(), world == 2
    models = {dtype: sharded(world, getattr(torch, dtype), tied) for dtype in ("float32", "bfloat16")}
    for dtype in models:
        # Of a sharded model, the plan knows the units; before, it takes blocks for them.
        mine = most = pyadamw.plan(models[dtype])
        if world > 1:
            most = pyadamw.plan(Awkward(tied), dtype=dtype, processes=world)
            assert most.of_process(rank).choices == mine.choices
        assert not any(choice.package.startswith("bitsandbytes") for choice in mine.choices)
        kept = 0
        for choice, largest in zip(mine.choices, most.choices, strict=True):
            assert all(a <= b for a, b in zip(planned(choice), planned(largest), strict=True))
            expected = planned(choice)
            if not choice.in_backward:
                kept = choice.gradients
            elif runs_backward(choice):
                # Those of a unit are one piece of memory, which in each process is as large as in the first.
                expected = expected._replace(gradients=largest.gradients)
            elif world > 1:  # to save time: the state is that of the choice before
                continue
            else:
                expected = expected._replace(gradients=kept)
            really = run(models[choice.dtype], choice)
            assert expected == really, f"{choice} {really}"


class Bag(torch.nn.Module):
    def __init__(self, tensors):
        super().__init__()
        self.all = torch.nn.ParameterList(tensors)


def placements(world, _folder):
    """Of a model with DTensors of any placement, the plan is that of this process."""
    line = init_device_mesh("cpu", (world,))
    meshes = [(line, (placement,)) for placement in (Shard(0), Shard(1), Replicate())]
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        meshes = [(grid, two) for two in ((Shard(0), Shard(1)), (Replicate(), Shard(0)))]
    for mesh, placement in meshes:
        shapes = [shape for shape in SHAPES if Shard(1) not in placement or len(shape) > 1]

        def made(seed, mesh=mesh, placement=placement, shapes=shapes):
            return [distribute(t.bfloat16(), mesh, placement) for t in numbers(shapes, seed)]

        for choice in pyadamw.plan(Bag(made(0))).choices:
            if choice.in_backward or choice.package != "pyadamw":
                continue
            model = Bag(made(0))
            optimizer = code_of(choice, model)
            for param, gradient in zip(model.parameters(), made(1), strict=True):
                param.grad = gradient
            optimizer.step()
            gradients = bytes_of(param.grad for param in model.parameters())
            really = taken(model, optimizer, gradients)
            assert planned(choice) == really, f"{placement} {choice} {really}"


def bitsandbytes(world, _folder):
    """It does not step DTensors, so that the plan leaves it out."""
    from bitsandbytes.optim import AdamW8bit

    mesh = init_device_mesh("cpu", (world,))
    param = torch.nn.Parameter(distribute(torch.ones(100, 64), mesh, (Shard(0),)))
    param.grad = distribute(torch.ones(100, 64), mesh, (Shard(0),))
    try:
        AdamW8bit([param], min_8bit_size=0).step()
    except Exception:
        return
    raise AssertionError(f"it does now: {inner(param)}")


sharded_script.MODES.update({f.__name__: f for f in (fsdp2, placements, bitsandbytes)})

if __name__ == "__main__":
    sharded_script.main()
