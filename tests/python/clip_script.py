"""Owns what processes do for test_clipping_sharded.py: the norm of gradients that lie in several processes.
python clip_script.py FOLDER MODE:PROCESSES ..., as sharded_script.py.
"""

import sharded_script
import torch
import torch.distributed as dist
from distributed_names import CPUOffloadPolicy, DTensor, Partial, Replicate, Shard
from mesh_script import KINDS, distribute_like, made, plain_net
from parts import distribute, full, is_part, numbers
from sharded_script import model, sharded_model
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.utils import clip_grad_norm_

import pyadamw

# (1, 9) and (2, 700): with 3 or 4 processes some shards are empty. (7,): gathered for 8-bit state.
SHAPES = ((41, 300), (2, 700), (5000,), (7,), (30, 10, 70), (1, 9), (64, 512))
LIMIT = 0.7
CLASSES = {
    "32": (pyadamw.AdamW32bit, {}),
    "8": (pyadamw.AdamW8bit, {"min_8bit_size": 0}),
    "8, percentile": (pyadamw.AdamW8bit, {"min_8bit_size": 0, "percentile_clipping": 40}),
    "16": (pyadamw.AdamW16bit, {}),
}


def factor(optimizer):
    """The factor of the last step, as the library has computed it."""
    (memory,) = optimizer._cache.norms._memory.values()
    return memory[1].clone()


def assert_same(ours, reference, what, params, others):
    """Norm and factor of all processes have the bits of one process, and so do the parameters."""
    assert torch.equal(ours.grad_norm, reference.grad_norm), f"{what}: {ours.grad_norm} {reference.grad_norm}"
    assert torch.equal(factor(ours), factor(reference)), f"{what}: {factor(ours)} {factor(reference)}"
    for i, (p, q) in enumerate(zip(params, others, strict=True)):
        assert is_part(p.detach(), q.detach()), f"{what}: parameter {i}"


def kinds_of_meshes(world):
    line = init_device_mesh("cpu", (world,))
    yield from ((line, (placement,)) for placement in (Shard(0), Shard(1), Replicate()))
    if world == 4:
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        pairs = ((Shard(0), Shard(1)), (Shard(0), Shard(0)), (Replicate(), Shard(0)), (Shard(1), Replicate()))
        yield from ((grid, pair) for pair in pairs)


def steps(world, _folder):
    """The norm, the factor and the parameters of one process, for every placement; also of several at once, with
    parameters that are not sharded, and of gradients that are missing."""
    meshes = list(kinds_of_meshes(world))
    mixed = [meshes[i % len(meshes)] if i % (len(meshes) + 1) else None for i in range(len(SHAPES))]
    for places in (*([one] * len(SHAPES) for one in meshes), mixed):
        for name, (cls, options) in CLASSES.items():
            start = numbers(SHAPES, 0)
            fitting = [
                place if place and all(p.is_replicate() or p.dim < g.dim() for p in place[1]) else None
                for place, g in zip(places, start, strict=True)
            ]

            def cut(whole, place):
                return distribute(whole, *place) if place else whole.clone()

            plain = [torch.nn.Parameter(t.clone()) for t in start]
            sharded = [torch.nn.Parameter(cut(t, place)) for t, place in zip(start, fitting, strict=True)]
            ours, reference = (cls(these, lr=1e-2, max_grad_norm=LIMIT, **options) for these in (sharded, plain))
            for step in range(4):
                scale = 1e-4 if step == 1 else 1.0
                for j, g in enumerate(numbers(SHAPES, step + 1)):
                    none = step == 2 and j % 3 == 0
                    sharded[j].grad = None if none else cut(g * scale, fitting[j])
                    plain[j].grad = None if none else g * scale
                ours.step()
                reference.step()
                assert_same(ours, reference, f"{name}, {fitting}, {step}", sharded, plain)
                assert (factor(ours) == 1) == (step == 1)


def models(world, _folder):
    """FSDP2, tensor parallelism, both at once (whose shards are strided), and HSDP: as one process, step by step; and
    to 1e-6 as gradients that were clipped before the step by their norm in double precision.

    torch's function sums these million squares in single precision: its norm is 1e-5 off.
    """
    for kind in KINDS:
        (net, _), alone, outside = made(kind, world), plain_net(), plain_net()
        ours, reference = (
            pyadamw.AdamW32bit(n.parameters(), lr=1e-2, max_grad_norm=LIMIT, error_if_nonfinite=True)
            for n in (net, alone)
        )
        behind = pyadamw.AdamW32bit(outside.parameters(), lr=1e-2)
        for step in range(20 if kind == "FSDP2" else 5):
            for n in (alone, net, outside):
                for i, p in enumerate(n.parameters()):
                    p.grad = distribute_like(numbers([p.shape], 10 * step + i)[0] * (1 if step % 3 else 1e-4), p)
            norm = torch.cat([p.grad.reshape(-1) for p in outside.parameters()]).double().norm()
            assert abs(clip_grad_norm_(outside.parameters(), float("inf")) / norm - 1) <= 1e-4
            for p in outside.parameters():
                p.grad.mul_(min(1.0, LIMIT / (float(norm) + 1e-6)))
            for optimizer in (ours, reference, behind):
                optimizer.step()
            assert_same(ours, reference, f"{kind}, {step}", list(net.parameters()), list(alone.parameters()))
            assert ours.grad_norm == norm.float()
        for p, q in zip(net.parameters(), outside.parameters(), strict=True):
            assert (full(p.detach()) - q).abs().max() <= 1e-6 * q.abs().max(), kind


def backward(world, _folder):
    """Real gradients of fully_shard(), with and without an offload policy, against torch's function before the step,
    whose norm is 1e-5 off; a step turns that into as much of the step, which is lr."""
    for policy in ({}, {"offload_policy": CPUOffloadPolicy(pin_memory=False)}):
        results = []
        for inside in (True, False):
            net, _ = sharded_model(world, **policy)
            optimizer = pyadamw.AdamW32bit(net.parameters(), lr=1e-2, max_grad_norm=0.05 if inside else None)
            torch.manual_seed(1 + dist.get_rank())
            x = torch.randn(8, 300)
            for _ in range(5):
                net(x).float().sub(1).square().mean().backward()
                norm = None if inside else full(clip_grad_norm_(net.parameters(), 0.05))
                optimizer.step()
                optimizer.zero_grad()
            results.append(([full(p.detach()) for p in net.parameters()], optimizer.grad_norm if inside else norm))
        (params, norm), (others, theirs) = results
        assert abs(norm / theirs - 1) <= 1e-4
        # On average: what has a gradient of nearly 0 is moved by the noise of the rest.
        assert all((p - q).abs().mean() <= 5 * 1e-2 * 1e-3 for p, q in zip(params, others, strict=True))


def missing(world, _folder):
    """A process none of whose parameters has a gradient takes part in the sums of the others; so does one where they
    never had one, and the norm is that of all gradients."""
    mesh = init_device_mesh("cpu", (world,))
    for ever in (True, False):
        whole = numbers([(8, 64), (40,)], 0)
        param = torch.nn.Parameter(distribute(whole[0], mesh, (Shard(0),)))
        other = torch.nn.Parameter(whole[1].clone())
        optimizer = pyadamw.AdamW32bit([param, other], max_grad_norm=LIMIT)
        if ever:
            param.grad = distribute(whole[0], mesh, (Shard(0),))
            optimizer.step()
            param.grad = None
        for _ in range(2):
            mine = dist.get_rank() == 0
            grad = distribute(whole[0], mesh, (Shard(0),))
            param.grad = grad if mine else None
            before = param.detach().to_local().clone()
            optimizer.step()
            first = whole[0].chunk(world)[0]  # the gradient that there is
            assert abs(optimizer.grad_norm / first.norm() - 1) <= 1e-6, (ever, optimizer.grad_norm, first.norm())
            assert torch.equal(before, param.detach().to_local()) is not mine


def placed_otherwise(world, _folder):
    """Gradients that are sums to be taken, or whole, count as the gradient of the parameter does, once."""
    mesh = init_device_mesh("cpu", (world,))
    for cls, options in CLASSES.values():
        for kind in ("partial", "whole"):
            start = numbers([(41, 300), (7,)], 0)
            sharded = [torch.nn.Parameter(distribute(t, mesh, (Shard(0),))) for t in start]
            plain = [torch.nn.Parameter(t.clone()) for t in start]
            ours, reference = (cls(these, lr=1e-2, max_grad_norm=LIMIT, **options) for these in (sharded, plain))
            for step in range(3):
                # Integers over a power of two: every order of adding the parts gives the same bits.
                for p, q, g in zip(sharded, plain, numbers([p.shape for p in plain], step + 1), strict=True):
                    g = (g * 1024).round() / 1024
                    q.grad = g * sum(range(1, world + 1)) if kind == "partial" else g
                    part = g * (dist.get_rank() + 1) if kind == "partial" else g
                    place = Partial() if kind == "partial" else Replicate()
                    p.grad = DTensor.from_local(part, mesh, (place,), run_check=False)
                ours.step()
                reference.step()
                assert_same(ours, reference, f"{kind}, {cls}", sharded, plain)


def scaled(world, _folder):
    """Infinity in one process: GradScaler, which asks all processes about sharded gradients, skips the step in all of
    them, whoever unscales."""
    mesh = init_device_mesh("cpu", (world,))
    start, last = numbers([(8, 64), (16, 32)], 0), dist.get_rank() == world - 1
    for capturable in (False, True):
        params = [torch.nn.Parameter(distribute(t, mesh, (Shard(0),))) for t in start]
        optimizer = pyadamw.AdamW32bit(params, max_grad_norm=LIMIT, capturable=capturable)
        scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        for step in range(4):
            for p, g in zip(params, numbers([p.shape for p in params], step), strict=True):
                p.grad = distribute(g * scaler.get_scale(), mesh, (Shard(0),))
            scaler.scale(torch.ones(1))
            if step == 1 and last:
                params[0].grad.to_local()[0] = float("inf")
            before = [p.detach().to_local().clone() for p in params]
            scaler.step(optimizer)
            scaler.update()
            same = [torch.equal(p.detach().to_local(), q) for p, q in zip(params, before, strict=True)]
            assert all(same) if step == 1 else not any(same), (capturable, step)
            if step != 1:
                whole = torch.cat([g.reshape(-1) for g in numbers([p.shape for p in params], step)])
                assert abs(optimizer.grad_norm / whole.norm() - 1) <= 1e-6


def nonfinite(world, _folder):
    """Infinity or NaN in one process is what torch's function makes of it."""
    mesh = init_device_mesh("cpu", (world,))
    start, last = numbers([(8, 64), (16, 32)], 0), dist.get_rank() == world - 1
    for bad in (float("inf"), float("nan")):
        made_ = []
        for inside in (True, False):
            params = [torch.nn.Parameter(distribute(t, mesh, (Shard(0),))) for t in start]
            optimizer = pyadamw.AdamW32bit(params, max_grad_norm=LIMIT if inside else None)
            for p, g in zip(params, numbers([p.shape for p in params], 1), strict=True):
                p.grad = distribute(g, mesh, (Shard(0),))
            if last:
                params[0].grad.to_local()[0, 3] = bad
            if not inside:
                clip_grad_norm_(params, LIMIT)
            optimizer.step()
            made_.append([p.detach().to_local() for p in params])
        for p, q in zip(*made_, strict=True):
            assert torch.equal(p.isnan(), q.isnan()) and torch.equal(p.nan_to_num(), q.nan_to_num()), bad


def refused(world, _folder):
    """error_if_nonfinite raises in all processes, for what is in one; they go on together."""
    mesh = init_device_mesh("cpu", (world,))
    param = torch.nn.Parameter(distribute(numbers([(8, 64)], 0)[0], mesh, (Shard(0),)))
    optimizer = pyadamw.AdamW8bit([param], max_grad_norm=LIMIT, error_if_nonfinite=True)
    for step in range(3):
        param.grad = distribute(numbers([(8, 64)], step)[0], mesh, (Shard(0),))
        if step == 1 and dist.get_rank() == 0:
            param.grad.to_local()[0, 0] = float("inf")
        try:
            optimizer.step()
            raised = False
        except RuntimeError as error:
            raised = "norm of all gradients is inf" in str(error)
        assert raised == (step == 1)
    assert float(optimizer.state[param]["step"]) == 2


def replicated(world, _folder):
    """DistributedDataParallel, and ZeroRedundancyOptimizer over it, which gives each process a part of the parameters:
    the norm, the factor and the parameters are those of all gradients in every process."""
    for cls in (pyadamw.AdamW8bit, pyadamw.AdamW32bit):
        made_ = []
        for zero in (False, True):
            net = torch.nn.parallel.DistributedDataParallel(model())
            options = {"lr": 1e-2, "min_8bit_size": 500, "max_grad_norm": 0.05}
            if zero:
                outer = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=cls, **options)
                optimizer = outer.optim
            else:
                optimizer = outer = cls(net.parameters(), **options)
            norms = []
            for step in range(4):
                torch.manual_seed(10 * step + dist.get_rank())
                net(torch.randn(4, 300)).square().mean().backward()
                everyone = torch.cat([p.grad.reshape(-1) for p in net.parameters()]).double()
                outer.step()
                outer.zero_grad()
                norms += [optimizer.grad_norm, factor(optimizer)]
                assert optimizer.grad_norm == everyone.norm().float()
            assert norms[-1] < 1
            made_.append([p.detach() for p in net.parameters()] + norms)
        assert all(torch.equal(one, other) for one, other in zip(*made_, strict=True)), cls
    # More processes than parameters: one of them has none.
    layer = torch.nn.Linear(30, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(numbers([layer.weight.shape], 0)[0])
    outer = ZeroRedundancyOptimizer(layer.parameters(), optimizer_class=pyadamw.AdamW32bit, max_grad_norm=1.0)
    layer.weight.grad = numbers([layer.weight.shape], 1)[0]
    outer.step()
    assert outer.optim.grad_norm == layer.weight.grad.double().norm().float()


def submesh(world, _folder):
    """A mesh that some processes do not belong to: those refuse, because they cannot know the norm of all gradients."""
    mesh = DeviceMesh("cpu", list(range(world - 1)))
    outside = dist.get_rank() == world - 1
    shape, local = torch.Size((2 * (world - 1), 8)), torch.ones(0 if outside else 2, 8)
    placed = {"run_check": False, "shape": shape, "stride": (8, 1)}
    param = torch.nn.Parameter(DTensor.from_local(local, mesh, (Shard(0),), **placed))
    optimizer = pyadamw.AdamW32bit([param, torch.nn.Parameter(torch.ones(5))], max_grad_norm=1.0)
    param.grad = None if outside else DTensor.from_local(local.clone(), mesh, (Shard(0),), **placed)
    if not outside:
        optimizer.step()
        assert abs(optimizer.grad_norm / shape.numel() ** 0.5 - 1) < 1e-6
    if outside:
        try:
            optimizer.step()
            raise AssertionError("it must refuse")
        except ValueError as error:
            assert "does not belong to" in str(error)


JOBS = (steps, models, backward, missing, placed_otherwise, scaled, nonfinite, refused, replicated, submesh)
sharded_script.MODES.update({f.__name__: f for f in JOBS})

if __name__ == "__main__":
    sharded_script.main()
