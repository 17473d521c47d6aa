"""Owns what processes do for test_meshes.py: parameters that are sharded on any dimension, and on two at once.
python mesh_script.py FOLDER MODE:PROCESSES ..., as sharded_script.py.
"""

from itertools import product

import sharded_script
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from distributed_names import HAS_STRIDED_SHARDS, DTensor, Replicate, Shard, distribute_tensor, fully_shard
from parts import assert_equal, assert_weights, distribute, numbers
from sharded_script import load
from torch.distributed._functional_collectives import all_reduce
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import pyadamw

# Of two dimensions, with and without blocks that end with rows; of more; flat ones.
SHAPES = (
    (6, 1024),
    (5, 2000),
    (12, 300),
    (4, 8, 512),
    (4, 8, 64),
    (3, 1024, 9),
    (2, 4, 4, 256),
    (8192,),
    (700,),
    (512, 20),
)
CASES = {
    "8": (pyadamw.AdamW8bit, {}),
    "8, amsgrad, paged": (pyadamw.PagedAdamW8bit, {"amsgrad": True}),
    "32, stochastic": (pyadamw.AdamW32bit, {"stochastic_rounding": True, "dtype": torch.bfloat16}),
    "8, stochastic": (pyadamw.AdamW8bit, {"stochastic_rounding": True, "dtype": torch.bfloat16}),
    "16, 32 bits": (pyadamw.AdamW16bit, {"master_weight_bits": 32, "dtype": torch.bfloat16}),
    "32, 24 bits": (pyadamw.AdamW32bit, {"master_weight_bits": 24, "dtype": torch.bfloat16}),
    "8, 24 bits, paged": (pyadamw.PagedAdamW8bit, {"master_weight_bits": 24, "dtype": torch.bfloat16}),
}


def placements_of(world, case):
    """Of the line of 4 processes each case has two: with 2 and 3 processes each has all of them."""
    line = init_device_mesh("cpu", (world,))
    found = [(line, (Shard(d),)) for d in (0, 1, 2, 3)]
    if world == 4:
        found = [found[(case + k) % 4] for k in (0, 1)]
        grid = init_device_mesh("cpu", (2, 2))
        pairs = ((0, 1), (0, 2), (1, 1), (2, 1), (1, 0), (3, 0))
        found += [(grid, tuple(map(Shard, pair))) for pair in pairs] + [(grid, (Replicate(), Shard(1)))]
    return found


def steps(world, _folder):
    """Stepping shards of any dimension is stepping the whole; those that end where blocks do stay shards."""
    kept = set()
    for i, (name, (cls, given)) in enumerate(CASES.items()):
        for mesh, placements in placements_of(world, i):
            options = dict(given)
            dtype = options.pop("dtype", torch.float32)
            if "Paged" in cls.__name__:
                options["page_manager"] = pyadamw.PageManager("host", min_numel=0)
            dims = [p.dim for p in placements if isinstance(p, Shard)]
            shapes = [shape for shape in SHAPES if len(shape) > max(dims)]
            start = numbers(shapes, 0)
            plain = [torch.nn.Parameter(t.to(dtype)) for t in start]
            sharded = [torch.nn.Parameter(distribute(t.to(dtype), mesh, placements)) for t in start]
            ours, reference = (cls(params, lr=1e-2, min_8bit_size=500, **options) for params in (sharded, plain))
            for step in range(3):
                for p, q, g in zip(sharded, plain, numbers(shapes, step + 1), strict=True):
                    p.grad, q.grad = distribute(g.to(dtype), mesh, placements), g.to(dtype)
                ours.step()
                reference.step()
            assert_equal((ours, sharded), (reference, plain), f"{name}, {placements}")
            assert_weights((ours, sharded), reference, f"{name}, {placements}")
            for p, entry in zip(sharded, ours.memory_report().entries, strict=True):
                whole = "gathered" in entry.why
                tensors = [value for key, value in ours.state[p].items() if key != "step"]
                assert all(hasattr(value, "placements") != whole for value in tensors), entry
                if not whole:
                    kept.add((tuple(p.shape), placements))
    if world == 2:
        for shape, d in (((6, 1024), 1), ((4, 8, 512), 1), ((4, 8, 512), 2), ((2, 4, 4, 256), 2), ((8192,), 0)):
            assert (shape, (Shard(d),)) in kept, (shape, d)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(512, 2048, bias=False), torch.nn.Linear(2048, 512, bias=False)

    def forward(self, x):
        return self.down(torch.tanh(self.up(x)))


def plain_net(masters=None):
    torch.manual_seed(0)
    return Net().bfloat16() if masters else Net()


def made(kind, world, masters=None):
    """A model, and how many processes hold each of its parts."""
    net, plan = plain_net(masters), {"up": ColwiseParallel(), "down": RowwiseParallel()}
    outer = 2 if world > 1 else 1
    if kind == "FSDP2":
        fully_shard(net, mesh=init_device_mesh("cpu", (world,)))
    elif kind == "TP":
        parallelize_module(net, init_device_mesh("cpu", (world,)), plan)
    elif kind == "FSDP2 + TP":
        mesh = init_device_mesh("cpu", (outer, world // outer), mesh_dim_names=("data", "tensor"))
        parallelize_module(net, mesh["tensor"], plan)
        fully_shard(net, mesh=mesh["data"])
    elif kind == "HSDP":
        fully_shard(net, mesh=init_device_mesh("cpu", (outer, world // outer), mesh_dim_names=("copies", "shards")))
        return net, outer
    return net, 1


KINDS = ("FSDP2", "TP", *(["FSDP2 + TP"] if HAS_STRIDED_SHARDS else []), "HSDP")


def train(net, optimizer, first, count):
    for step in range(first, first + count):
        for i, p in enumerate(net.parameters()):
            whole = numbers([p.shape], 10 * step + i)[0]
            p.grad = distribute_like(whole.to(p.dtype), p)
        optimizer.step()


def distribute_like(whole, param):
    if not hasattr(param, "placements"):
        return whole
    if all(type(placement) in (Shard, Replicate) for placement in param.placements):
        return distribute(whole, param.device_mesh, param.placements)
    everywhere = distribute(whole, param.device_mesh, [Replicate()] * param.device_mesh.ndim)
    return everywhere.redistribute(placements=param.placements)


def memory(world, _folder):
    """State of a model of large layers takes 2.1 bytes a parameter over all processes, once for each copy of the
    parameters, whatever the mesh, and has the bits of one process."""
    for kind in KINDS:
        net, copies = made(kind, world)
        optimizer = pyadamw.AdamW8bit(net.parameters(), lr=1e-2)
        train(net, optimizer, 0, 3)
        local = [getattr(v, "_local_tensor", v) for entry in optimizer.state.values() for v in entry.values()]
        bytes_ = torch.tensor(float(sum(v.numel() * v.element_size() for v in local)))
        dist.all_reduce(bytes_)
        each = bytes_.item() / copies / sum(p.numel() for p in net.parameters())
        assert each <= 2.1, f"{kind}: {each}"
        alone = plain_net()
        reference = pyadamw.AdamW8bit(alone.parameters(), lr=1e-2)
        train(alone, reference, 0, 3)
        assert_equal((optimizer, list(net.parameters())), (reference, list(alone.parameters())), kind)


MASTERS = (None, 24, 32)


def save(world, folder):
    for kind, masters in product(KINDS, MASTERS):
        net, _ = made(kind, world, masters)
        optimizer = pyadamw.AdamW8bit(net.parameters(), lr=1e-2, master_weight_bits=masters)
        train(net, optimizer, 0, 2)
        weights = {name: p.detach() for name, p in net.named_parameters()}
        state = get_optimizer_state_dict(net, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / f"{kind} {masters}")


def resume(world, folder):
    """A checkpoint of any mesh goes on in any other."""
    for masters in MASTERS:
        alone = plain_net(masters)
        reference = pyadamw.AdamW8bit(alone.parameters(), lr=1e-2, master_weight_bits=masters)
        train(alone, reference, 0, 4)
        for saved, kind in zip(KINDS, KINDS[1:] + KINDS[:1], strict=True):
            net, _ = made(kind, world, masters)
            optimizer = pyadamw.AdamW8bit(net.parameters(), lr=1e-2, master_weight_bits=masters)
            load(net, optimizer, folder / f"{saved} {masters}")
            train(net, optimizer, 2, 2)
            what = f"{saved} -> {kind}, {masters}"
            assert_equal((optimizer, list(net.parameters())), (reference, list(alone.parameters())), what)


def format_1(world, _folder):
    """State of format 1, whole, of three dimensions, whose scales had another shape, is cut as shards are."""
    mesh, start = init_device_mesh("cpu", (world,)), numbers([(4, 8, 512)], 0)[0]
    plain = torch.nn.Parameter(start.clone())
    reference = pyadamw.AdamW8bit([plain])
    plain.grad = numbers([(4, 8, 512)], 1)[0]
    reference.step()
    old = reference.state_dict()
    entry = old["state"][0]
    for moment in ("exp_avg", "exp_avg_sq"):
        entry[moment] = entry.pop(f"{moment}_codes").clone()
        entry[f"{moment}_absmax"] = entry[f"{moment}_absmax"].reshape(4, 16).clone()
    del entry["exp_avg_sq_floor"]
    old["param_groups"][0]["pyadamw_format"] = 1
    reference.load_state_dict(old)  # what the codes stood for then is another number
    for dim in (0, 1, 2):
        param = torch.nn.Parameter(distribute_tensor(plain.detach().clone(), mesh, (Shard(dim),)))
        ours = pyadamw.AdamW8bit([param])
        ours.load_state_dict(old)
        assert_equal((ours, [param]), (reference, [plain]), f"dimension {dim}")


def in_flight(world, _folder):
    """Gradients of collectives that nobody has waited for yet, sharded or not, are waited for."""
    mesh = init_device_mesh("cpu", (world,))
    for sharded in (False, True):
        start = numbers([(64, 512)], 0)[0]
        placements = (Shard(0) if sharded else Replicate(),)
        param, plain = torch.nn.Parameter(distribute_tensor(start, mesh, placements)), torch.nn.Parameter(start.clone())
        if not sharded:
            param = torch.nn.Parameter(start.clone())
        ours, reference = pyadamw.AdamW8bit([param]), pyadamw.AdamW8bit([plain])
        for step in range(3):
            grad = numbers([(64, 512)], step + 1)[0]
            part = distribute_tensor(grad, mesh, placements).to_local()
            flying = all_reduce(part / world if not sharded else part, "sum", mesh if not sharded else alone(world))
            assert type(flying).__name__ == "AsyncCollectiveTensor"
            param.grad = DTensor.from_local(flying, mesh, placements, run_check=False) if sharded else flying
            plain.grad = grad
            ours.step()
            reference.step()
        assert_equal((ours, [param]), (reference, [plain]), f"sharded {sharded}")


def alone(world):
    """A mesh of this process only: its collectives are in flight, too, and change nothing."""
    return init_device_mesh("cpu", (world, 1), mesh_dim_names=("others", "alone"))["alone"]


sharded_script.MODES.update({f.__name__: f for f in (steps, memory, save, resume, format_1, in_flight)})

if __name__ == "__main__":
    sharded_script.main()
