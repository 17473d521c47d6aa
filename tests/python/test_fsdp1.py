"""Owns the law: FullyShardedDataParallel, the predecessor of FSDP2, works with 32-bit state, and 8-bit state, which it
could not save, is refused before anything has been written.
"""

import forked
import pytest

SCRIPT = """
import sys, torch, torch.distributed as dist, pyadamw
from torch.distributed.fsdp import FullyShardedDataParallel
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
use_orig_params = sys.argv[1] == "True"

def made(cls, **options):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Linear(128, 3))
    net = FullyShardedDataParallel(net, use_orig_params=use_orig_params, device_id=torch.device("cpu"))
    return net, cls(net.named_parameters(), lr=1e-2, **options)

def backward(net):
    net(torch.ones(4, 64)).square().mean().backward()

for cls in (pyadamw.AdamW8bit, pyadamw.PagedAdamW8bit):
    net, optimizer = made(cls)
    backward(net)
    before = [p.detach().clone() for p in net.parameters()]
    try:
        optimizer.step()
    except ValueError as error:
        for word in ("parameter '", "FSDP1", "fully_shard", "AdamW32bit", "optim_bits=32"):
            assert word in str(error), error
    else:
        raise AssertionError("not refused")
    assert all(map(torch.equal, before, net.parameters())) and not optimizer.state

# 32-bit state: as with torch's own, saved and loaded too
for cls, options in ((pyadamw.AdamW32bit, {}), (pyadamw.AdamW8bit, {"override": True}), (torch.optim.AdamW, {})):
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
    assert all(map(torch.allclose, ours, now))
print("holds")
"""


@pytest.mark.parametrize("use_orig_params", [True, False])
def test_fsdp1(use_orig_params):
    done = forked.run(SCRIPT, use_orig_params)
    assert done.returncode == 0 and "holds" in done.stdout, done.stdout + done.stderr[-3000:]
