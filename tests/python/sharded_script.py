"""Owns what several processes do together for test_sharded.py: python sharded_script.py FOLDER MODE:PROCESSES ...

The jobs run one after the other, each in as many processes as it says, forked from this one: to import all that they
need takes longest. It fails if a law does not hold, and each process prints what it has seen.
"""

import gc
import multiprocessing
import os
import sys
import warnings
from multiprocessing.connection import wait
from pathlib import Path

import torch
import torch._dynamo  # or each process would import it in its first step
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from distributed_names import CPUOffloadPolicy, MixedPrecisionPolicy, Replicate, Shard, fully_shard
from parts import assert_equal, assert_weights, distribute, full, is_part, numbers
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.optim import ZeroRedundancyOptimizer

import pyadamw

warnings.filterwarnings("ignore")
SHAPES = ((41, 300), (2, 700), (5000,), (7,), (30, 10, 70), (90, 20), (64, 512))


CASES = {
    "8": (pyadamw.AdamW8bit, {}),
    "32": (pyadamw.AdamW32bit, {}),
    "8, amsgrad": (pyadamw.AdamW8bit, {"amsgrad": True}),
    "8, paged": (pyadamw.PagedAdamW8bit, {"page_manager": {"backing": "file", "min_numel": 1000}}),
    "32, paged": (pyadamw.PagedAdamW32bit, {"page_manager": {"backing": "host", "min_numel": 0}}),
    "8, clipped": (pyadamw.AdamW8bit, {"percentile_clipping": 40}),
    "8, tensor-wise": (pyadamw.AdamW8bit, {"block_wise": False}),
    "32, max_unorm": (pyadamw.AdamW32bit, {"args": {"max_unorm": 0.01}}),
    "8, stochastic": (pyadamw.AdamW8bit, {"stochastic_rounding": True, "dtype": torch.bfloat16}),
    "8, some gradients": (pyadamw.AdamW8bit, {"missing": True}),
    "16, 24 bits": (pyadamw.AdamW16bit, {"master_weight_bits": 24, "dtype": torch.bfloat16}),
    "8, 32 bits, clipped": (
        pyadamw.AdamW8bit,
        {"master_weight_bits": 32, "percentile_clipping": 40, "dtype": torch.bfloat16},
    ),
    "32, 24 bits, paged": (
        pyadamw.PagedAdamW32bit,
        {"master_weight_bits": 24, "dtype": torch.bfloat16, "page_manager": {"backing": "file", "min_numel": 100}},
    ),
}


def steps(world, _folder):
    """Stepping shards is stepping the whole, whatever the placement.

    On a line a case leaves out one placement, with each number of processes another one: so every two of case,
    placement and number meet. What a shard holds is due to the latter two, and what is stepped to the case.
    """
    line = init_device_mesh("cpu", (world,))
    meshes = [(line, (placement,)) for placement in (Shard(0), Shard(1), Replicate())]
    if world == 4:  # data and tensor parallel
        grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        meshes = [(grid, two) for two in ((Shard(0), Shard(1)), (Shard(0), Shard(0)), (Replicate(), Shard(0)))]
    for i, (name, (cls, given)) in enumerate(CASES.items()):
        for mesh, placement in meshes if world == 4 else [meshes[(i + world + k) % 3] for k in (0, 1)]:
            options = dict(given)
            dtype, missing = options.pop("dtype", torch.float32), options.pop("missing", False)
            if "page_manager" in options:
                options["page_manager"] = pyadamw.PageManager(**options["page_manager"])
            shapes = [shape for shape in SHAPES if Shard(1) not in placement or len(shape) > 1]
            start = numbers(shapes, 0)
            plain = [torch.nn.Parameter(t.to(dtype)) for t in start]
            sharded = [torch.nn.Parameter(distribute(t.to(dtype), mesh, placement)) for t in start]
            ours, reference = (cls(params, lr=1e-2, min_8bit_size=500, **options) for params in (sharded, plain))
            for step in range(3):
                for j, (p, q, g) in enumerate(zip(sharded, plain, numbers(shapes, step + 1), strict=True)):
                    none = missing and (j + step) % 3 == 0
                    p.grad = None if none else distribute(g.to(dtype), mesh, placement)
                    q.grad = None if none else g.to(dtype)
                ours.step()
                reference.step()
            assert_equal((ours, sharded), (reference, plain), f"{name}, {placement}")
            assert_weights((ours, sharded), reference, f"{name}, {placement}")
            for p, q in zip(sharded, plain, strict=True):
                assert ours.state[p].keys() == reference.state[q].keys()


def model(kind=""):
    torch.manual_seed(0)
    made = torch.nn.Sequential(
        torch.nn.Linear(300, 41), torch.nn.Tanh(), torch.nn.Linear(41, 700), torch.nn.LayerNorm(700)
    )
    return made.bfloat16() if kind in MASTERS else made


def sharded_model(world, kind="", **policies):
    net = model(kind)
    mesh = init_device_mesh("cpu", (world,))
    for layer in (net[0], net[2]):
        fully_shard(layer, mesh=mesh, **policies)
    fully_shard(net, mesh=mesh, **policies)
    return net, mesh


def optimizer_of(net, kind):
    options = {"lr": 1e-2, "min_8bit_size": 500, "amsgrad": True}
    if kind == "paged":
        return pyadamw.PagedAdamW8bit(
            net.parameters(), page_manager=pyadamw.PageManager("file", min_numel=100), **options
        )
    cls = {"8": pyadamw.AdamW8bit, "32": pyadamw.AdamW32bit, "16, 24 bits": pyadamw.AdamW16bit}.get(kind)
    return (cls or pyadamw.AdamW8bit)(net.parameters(), master_weight_bits=MASTERS.get(kind), **options)


def give(net, mesh, seed):
    for p, g in zip(net.parameters(), numbers([p.shape for p in net.parameters()], seed), strict=True):
        p.grad = g.to(p.dtype) if mesh is None else distribute(g.to(p.dtype), mesh, p.placements)


MASTERS = {"8, 32 bits": 32, "16, 24 bits": 24}
KINDS = ("8", "32", "paged", *MASTERS)


def save(world, folder):
    """3 steps, then a checkpoint by torch.distributed.checkpoint."""
    for kind in KINDS:
        net, mesh = sharded_model(world, kind)
        optimizer = optimizer_of(net, kind)
        for step in range(3):
            give(net, mesh, step)
            optimizer.step()
        weights = {name: p.detach() for name, p in net.named_parameters()}
        state, wide = get_optimizer_state_dict(net, optimizer), pyadamw.fp32_state_dict(net, optimizer)
        dcp.save({"model": weights, "optimizer": state, "float32": wide}, checkpoint_id=folder / kind)


def load(net, optimizer, folder):
    """What save() has saved."""
    weights = {name: torch.zeros_like(p.detach()) for name, p in net.named_parameters()}
    state = get_optimizer_state_dict(net, optimizer)
    dcp.load({"model": weights, "optimizer": state}, checkpoint_id=folder)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(weights[name])
    set_optimizer_state_dict(net, optimizer, optim_state_dict=state)


def resume(world, folder):
    """On any number of processes: what was saved, and 3 more steps, are 6 steps of one process."""
    for kind in KINDS:
        whole = model(kind)
        reference = optimizer_of(whole, kind)
        for step in range(6):
            give(whole, None, step)
            reference.step()
        for flat in (False, True):
            net, mesh = sharded_model(world, kind)
            optimizer = optimizer_of(net, kind)
            load(net, optimizer, folder / kind)
            options = StateDictOptions(flatten_optimizer_state_dict=flat)
            again = get_optimizer_state_dict(net, optimizer, options=options)
            set_optimizer_state_dict(net, optimizer, optim_state_dict=again, options=options)
            for step in range(3, 6):
                give(net, mesh, step)
                optimizer.step()
            ours, plain = (optimizer, list(net.parameters())), (reference, list(whole.parameters()))
            assert_equal(ours, plain, f"{kind}, flat {flat}")
            assert ("file" in optimizer.memory_report().places) == (kind == "paged")
            whole_dict = get_optimizer_state_dict(
                net, optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
            )
            if dist.get_rank() == 0:
                names = [name for name, _ in net.named_parameters()]
                other = optimizer_of(model(kind), kind)
                places = {i: whole_dict["state"][name] for i, name in enumerate(names)}
                other.load_state_dict({**other.state_dict(), "state": places})
                for p, q in zip(other.param_groups[0]["params"], plain[1], strict=True):
                    for key, value in reference.state[q].items():
                        assert torch.equal(other.state[p][key], value), f"{kind}: {key} in one process"


def float32(world, folder):
    """float32 weights enter by a checkpoint of other processes, by shards or whole, and leave as they came."""
    for kind in KINDS:
        whole = model(kind)
        reference = optimizer_of(whole, kind)
        for step in range(3):
            give(whole, None, step)
            reference.step()
        wide = pyadamw.fp32_state_dict(whole, reference)
        for way in ("shards", "whole"):
            net, mesh = sharded_model(world, kind)
            optimizer = optimizer_of(net, kind)
            if way == "shards":
                found = {key: torch.zeros_like(p.detach(), dtype=torch.float32) for key, p in net.named_parameters()}
                dcp.load({"float32": found}, checkpoint_id=folder / kind)
            else:
                found = wide
            pyadamw.load_fp32_state_dict(net, optimizer, found)
            for (name, p), q in zip(net.named_parameters(), whole.parameters(), strict=True):
                assert is_part(p.detach(), q.detach()), f"{kind}, {way}: {name}"
            again = pyadamw.fp32_state_dict(net, optimizer)
            assert all(is_part(again[name], wide[name]) for name in wide), f"{kind}, {way}"
            assert all(again[name].placements == p.placements for name, p in net.named_parameters())
            other = optimizer_of(fresh := model(kind), kind)
            pyadamw.load_fp32_state_dict(fresh, other, wide)
            for step in range(3, 5):
                give(net, mesh, step)
                give(fresh, None, step)
                optimizer.step()
                other.step()
            ours, plain = (optimizer, list(net.parameters())), (other, list(fresh.parameters()))
            assert_equal(ours, plain, f"{kind}, {way}")


def train(world, _folder):
    """Real backward passes: the loss falls, with every policy."""
    policies = {
        "plain": {},
        "offloaded": {"offload_policy": CPUOffloadPolicy(pin_memory=False)},
        "mixed": {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)},
    }
    for name, policy in policies.items():
        for kind in KINDS:
            net, _ = sharded_model(world, kind, **policy)
            optimizer = optimizer_of(net, kind)
            torch.manual_seed(1 + dist.get_rank())
            x, losses = torch.randn(8, 300, dtype=torch.bfloat16 if kind in MASTERS else torch.float32), []
            for _ in range(8):
                loss = net(x).float().sub(1).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                losses.append(loss.item())
            assert losses[-1] < losses[0], f"{name}, {kind}: {losses}"


def replicated(world, _folder):
    """DistributedDataParallel, and ZeroRedundancyOptimizer over it: the same bits in every process and with both."""
    for kind in ("8", "32", *MASTERS):
        made = []
        for zero in (False, True):
            net = torch.nn.parallel.DistributedDataParallel(model(kind))
            options = {"lr": 1e-2, "min_8bit_size": 500, "master_weight_bits": MASTERS.get(kind)}
            cls = {"8": pyadamw.AdamW8bit, "32": pyadamw.AdamW32bit}.get(kind, pyadamw.AdamW16bit)
            if zero:
                optimizer = ZeroRedundancyOptimizer(net.parameters(), optimizer_class=cls, **options)
            else:
                optimizer = cls(net.parameters(), **options)
            for step in range(4):
                torch.manual_seed(10 * step + dist.get_rank())
                net(torch.randn(4, 300).to(next(net.parameters()).dtype)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            made.append([p.detach() for p in net.parameters()])
        for one, other in zip(*made, strict=True):
            assert torch.equal(one, other), kind
            everyone = [torch.empty_like(one) for _ in range(world)]
            dist.all_gather(everyone, one.contiguous())
            assert all(torch.equal(one, theirs) for theirs in everyone), kind


def accelerated(world, folder):
    """accelerate with FSDP2: it puts placeholders and then DTensors in the parameters' places. Saved and loaded = not
    interrupted."""
    rank = str(dist.get_rank())
    # The address is asked for and not used: the processes are connected already.
    os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    from accelerate import Accelerator, FullyShardedDataParallelPlugin
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    for kind in ("8", "paged"):
        AcceleratorState._reset_state(True)
        PartialState(cpu=True)
        # accelerate shards on GPUs alone, although nothing in it needs one.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="no_wrap", state_dict_type="SHARDED_STATE_DICT"
        )
        accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
        net = model()
        net, optimizer = accelerator.prepare(net, optimizer_of(net, kind))
        assert accelerator.distributed_type == DistributedType.FSDP
        assert all(hasattr(p, "placements") for p in net.parameters())
        torch.manual_seed(1 + dist.get_rank())
        x = torch.randn(8, 300)

        def train_on(steps, net=net, optimizer=optimizer, accelerator=accelerator, x=x):
            for _ in range(steps):
                accelerator.backward(net(x).sub(1).square().mean())
                optimizer.step()
                optimizer.zero_grad()
            return [full(p.detach()).clone() for p in net.parameters()]

        start = train_on(3)
        accelerator.save_state(folder / f"accelerated-{kind}")
        first = train_on(3)
        accelerator.load_state(folder / f"accelerated-{kind}")
        second = train_on(3)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), kind
        assert not all(torch.equal(a, b) for a, b in zip(first, start, strict=True)), kind


MODES = {f.__name__: f for f in (steps, save, resume, float32, train, replicated, accelerated)}


def run_process(mode, rank, world, folder):
    # Not before the fork, which has no pool of threads: torch's threads of a backward pass would make it side by side.
    torch.set_num_threads(1)
    gc.freeze()
    dist.init_process_group("gloo", init_method=f"file://{folder}/store-{mode}-{world}", rank=rank, world_size=world)
    MODES[mode](world, folder)
    dist.barrier()
    print(f"{mode}: holds", flush=True)
    # Threads of gloo may have tensors in hand for a while. Destroying the group then deadlocks with torch 2.4, which
    # waits for them with Python's lock; and they abort an interpreter that ends meanwhile (pytorch/pytorch#179291).
    os._exit(0)


def main():
    fork, folder = multiprocessing.get_context("fork"), Path(sys.argv[1])
    for job in sys.argv[2:]:
        mode, world = job.split(":")[0], int(job.split(":")[1])
        running = [fork.Process(target=run_process, args=(mode, rank, world, folder)) for rank in range(world)]
        for process in running:
            process.start()
        while running:
            wait([process.sentinel for process in running])
            if any(process.exitcode for process in running):  # the others would wait for it
                for process in running:
                    process.kill()
                sys.exit(f"{job} fails")
            running = [process for process in running if process.exitcode is None]


if __name__ == "__main__":
    main()
