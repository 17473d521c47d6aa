"""Trains a model that is sharded by FSDP2 (fully_shard) and saves it with torch.distributed.checkpoint. Run it again
with any number of processes, and it continues from the last checkpoint. State is sharded as its parameter is.

Install: pyadamw. Run: torchrun --standalone --nproc-per-node 2 fsdp2_dcp.py
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import pyadamw

CHECKPOINTS, STEPS, BATCH = Path("fsdp2_dcp"), 20, 96


def main(device: torch.device) -> None:
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 16)).to(device)
    mesh = init_device_mesh(device.type, (world,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # After fully_shard(), so that the optimizer has the shards. The norm that it clips by is that of all of them.
    optimizer = pyadamw.AdamW8bit(model.parameters(), lr=3e-3, max_grad_norm=1.0)

    first = max((int(folder.name) for folder in CHECKPOINTS.glob("*")), default=0)
    if first:
        weights, state = get_state_dict(model, optimizer)
        saved = {"model": weights, "optimizer": state}
        dcp.load(saved, checkpoint_id=CHECKPOINTS / str(first))
        set_state_dict(model, optimizer, model_state_dict=saved["model"], optim_state_dict=saved["optimizer"])

    for step in range(first, first + STEPS):
        # Every process draws the same batch and takes its part of it.
        batch = torch.randn(BATCH, 64, generator=torch.Generator().manual_seed(step))
        x = batch.chunk(world)[rank].to(device)
        loss = F.mse_loss(model(x), x[:, :16].sin())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        dist.all_reduce(loss)
        if rank == 0 and step in (first, first + STEPS - 1):
            print(f"{world} processes, step {step + 1}: loss {loss.item() / world:.4f}", flush=True)

    weights, state = get_state_dict(model, optimizer)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=CHECKPOINTS / str(first + STEPS))
    print(f"process {rank} of {world}: {optimizer.memory_report().bytes:,} bytes of state", flush=True)


if __name__ == "__main__":
    if torch.cuda.is_available():
        dist.init_process_group("nccl")
        torch.cuda.set_device(dist.get_node_local_rank())
        main(torch.device("cuda", dist.get_node_local_rank()))
    else:
        dist.init_process_group("gloo")
        main(torch.device("cpu"))
    dist.destroy_process_group()
    if not torch.cuda.is_available():
        # A thread of gloo may still drop a tensor, which aborts an interpreter that ends meanwhile
        # (pytorch/pytorch#179291).
        sys.stdout.flush()
        os._exit(0)
