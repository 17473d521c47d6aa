"""Owns the law: FullyShardedDataParallel, the predecessor of FSDP2, works with 32-bit and 16-bit state. 8-bit state and
master weights, which it could not save, are refused before anything has been written.
"""

import forked
import pytest

SCRIPT = """
import sys, torch, torch.distributed as dist, pyadamw
from torch.distributed.fsdp import FullyShardedDataParallel
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
use_orig_params = sys.argv[1] == "True"

def made(cls, dtype=torch.float32, **options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 3)).to(dtype)
    net = FullyShardedDataParallel(net, use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    named = cls is not torch.optim.AdamW  # which takes names since torch 2.6
    return net, cls(net.named_parameters() if named else net.parameters(), lr=1e-2, **options)

def backward(net):
    net(torch.ones(4, 64, dtype=next(net.parameters()).dtype)).square().mean().backward()

MASTERS = {"dtype": torch.bfloat16, "master_weight_bits": 24}
for cls, options in ((pyadamw.AdamW8bit, {}), (pyadamw.PagedAdamW8bit, {}), (pyadamw.AdamW32bit, MASTERS)):
    net, optimizer = made(cls, **options)
    backward(net)
    before = [p.detach().clone() for p in net.parameters()]
    try:
        optimizer.step()
    except ValueError as error:
        instead = ("master_weight_bits=None",) if options else ("AdamW32bit", "optim_bits=32")
        for word in ("parameter '", "FSDP1", "fully_shard", *instead):
            assert word in str(error), error
    else:
        raise AssertionError("not refused")
    assert all(map(torch.equal, before, net.parameters())) and not optimizer.state

# 32-bit state: as with torch's own, saved and loaded too; 16-bit state is about the same
OTHERS = ((pyadamw.AdamW8bit, {"override": True}), (pyadamw.AdamW16bit, {}), (torch.optim.AdamW, {}))
for cls, options in ((pyadamw.AdamW32bit, {}), *OTHERS):
    override = options.pop("override", False)
    net, optimizer = made(cls)
    if override:
        manager = pyadamw.GlobalOptimManager.get_instance()
        manager.override_config(net.parameters(), "optim_bits", 32)
    for step in range(4):
        backward(net)
        optimizer.step()
        optimizer.zero_grad()
        saved = FullyShardedDataParallel.optim_state_dict(net, optimizer)
        shapes = {tuple(entry["exp_avg"].shape) for entry in saved["state"].values()}
        assert shapes == {(128, 64), (128,), (3, 128), (3,)}
        loaded = FullyShardedDataParallel.optim_state_dict_to_load(net, optimizer, saved)
        optimizer.load_state_dict(loaded)
    now = [p.detach().clone() for p in net.parameters()]
    if cls is pyadamw.AdamW32bit:
        ours = now
    near = {"atol": 1e-3} if cls is pyadamw.AdamW16bit else {}
    assert all(torch.allclose(a, b, **near) for a, b in zip(ours, now))
print("holds")
"""


@pytest.mark.parametrize("use_orig_params", [True, False])
def test_fsdp1(use_orig_params):
    done = forked.run(SCRIPT, use_orig_params)
    assert done.returncode == 0 and "holds" in done.stdout, done.stdout + done.stderr[-3000:]
