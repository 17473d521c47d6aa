"""Owns what a process does for test_widths.py: the state of each optimizer goes to each other one, in every way that
torch has. python widths_script.py; prints a line for each, and fails if one has loaded quietly wrong.
"""

import functools
import itertools
import sys
import tempfile
import warnings

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from distributed_names import fully_shard
from harness import decoded
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from versions import FSDP2_RUNS_ON_CPUS, older

import pyadamw

warnings.simplefilter("ignore")


def net(sharded):
    torch.manual_seed(0)
    made = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.Linear(400, 20))
    return fully_shard(made, mesh=init_device_mesh("cpu", (1,))) if sharded else made


def train(model, optimizer, steps):
    for step in range(steps):
        x = torch.randn(8, 300, generator=torch.Generator().manual_seed(step))
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def momentum(optimizer, param):
    state = {key: v.full_tensor() if hasattr(v, "full_tensor") else v for key, v in optimizer.state[param].items()}
    if "exp_avg_codes" in state:
        return decoded(state)
    return state["exp_avg"].float()


def overridden(params):
    params = list(params)
    pyadamw.GlobalOptimManager.get_instance().override_config(params[0], "optim_bits", 32)
    return pyadamw.AdamW8bit(params)


OPTIMIZERS = {
    "torch": torch.optim.AdamW,
    "8": pyadamw.AdamW8bit,
    "16": pyadamw.AdamW16bit,
    "32": pyadamw.AdamW32bit,
    "8, large min_8bit_size": lambda params: pyadamw.AdamW8bit(params, min_8bit_size=2**20),
    "8, override to 32": overridden,
}


def by_state_dict(source, target, _options):
    target[1].load_state_dict(source[1].state_dict())


def by_options(source, target, options):
    """Each side's own options: what is full here is full there."""
    set_optimizer_state_dict(*target, get_optimizer_state_dict(*source, options=options), options=options)


def from_rank_0(source, target, options):
    full = get_optimizer_state_dict(*source, options=StateDictOptions(full_state_dict=True))
    set_optimizer_state_dict(*target, full, options=options)


def by_files(source, target, options):
    with tempfile.TemporaryDirectory() as folder:
        dcp.save({"o": get_optimizer_state_dict(*source, options=options)}, checkpoint_id=folder)
        found = {"o": get_optimizer_state_dict(*target, options=options)}
        dcp.load(found, checkpoint_id=folder)
        set_optimizer_state_dict(*target, found["o"], options=options)


def by_files_of_state_dicts(source, target, _options):
    """Without torch's functions for it: the target has been stepped, as its state dict would be empty."""
    for p in target[0].parameters():
        p.grad = torch.zeros_like(p)
    target[1].step()
    with tempfile.TemporaryDirectory() as folder:
        dcp.save({"o": source[1].state_dict()}, checkpoint_id=folder)
        found = {"o": target[1].state_dict()}
        dcp.load(found, checkpoint_id=folder)
        target[1].load_state_dict(found["o"])


WAYS = {
    "load_state_dict": (by_state_dict, {}),
    "full": (by_options, {"full_state_dict": True}),
    "sharded": (by_options, {}),
    "flat": (by_options, {"flatten_optimizer_state_dict": True}),
    "on the CPU": (by_options, {"full_state_dict": True, "cpu_offload": True}),
    "from rank 0": (from_rank_0, {"full_state_dict": True, "broadcast_from_rank0": True}),
    "files": (by_files, {}),
    "flat files": (by_files, {"flatten_optimizer_state_dict": True}),
    "files of state dicts": (by_files_of_state_dicts, {}),
}
# What converts, at least; what else there is may be refused.
CONVERTS = ("load_state_dict", "full", "on the CPU", "from rank 0")


# What refuses state: torch's own, about options and keys that one side has and the other has not, or ours.
SAID = ("has no exp_avg", "has neither exp_avg nor", "Missing key", "param_groups.")
if older("torch", "2.5"):  # its error is the key alone
    SAID += ("'state.",)


@functools.cache
def trained(one, sharded):
    """A source, its state in memory of its own, and what is judged: one serves every target and way."""
    source = net(sharded)
    source = source, OPTIMIZERS[one](source.parameters())
    train(*source, 4)
    kept = [{key: value.clone() for key, value in source[1].state[p].items()} for p in source[0].parameters()]
    return source, kept, momentum(source[1], source[0][0].weight).clone()


def judge(one, other, way, sharded):
    source, kept, wanted = trained(one, sharded)
    for p, state in zip(source[0].parameters(), kept, strict=True):  # what was loaded may have been this very memory
        assert source[1].state[p].keys() == state.keys()
        for key, value in state.items():
            source[1].state[p][key].copy_(value)
    assert torch.equal(momentum(source[1], source[0][0].weight), wanted)
    target = net(sharded)
    target = target, OPTIMIZERS[other](target.parameters())
    call, options = WAYS[way]
    try:
        call(source, target, StateDictOptions(**options))
    except BaseException as error:  # torch.distributed.checkpoint's is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        text = str(error).strip().splitlines()[-1]
        said = any(word in text for word in SAID)
        train(*target, 1)  # as it was
        return said and way not in CONVERTS and one != other, f"refused: {text}"
    got = momentum(target[1], target[0][0].weight)
    error = ((got - wanted).abs().max() / wanted.abs().max()).item()
    train(*target, 1)
    # The widest codes are 4 / 127 apart at the scale, where the fourth root is stored: half of that.
    return error < 2 / 127, f"error {error:.2g}"


def main():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    wrong = 0
    for one, other, way in itertools.product(OPTIMIZERS, OPTIMIZERS, WAYS):
        for sharded in (False, True) if FSDP2_RUNS_ON_CPUS else (False,):
            if other == "torch":  # what torch's own class makes of state is not ours to say
                continue
            right, word = judge(one, other, way, sharded)
            wrong += not right
            print(f"{one} -> {other}, {way}, {'FSDP2' if sharded else 'plain'}: {'' if right else 'WRONG: '}{word}")
            pyadamw.GlobalOptimManager.get_instance().initialize()
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
