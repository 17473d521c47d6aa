"""Trains with accelerate and FSDP2, with gradient accumulation. accelerator.load_state() brings back what
accelerator.save_state() has saved, and the run continues with the same bits.

Install: pyadamw, accelerate. Run: torchrun --standalone --nproc-per-node 2 accelerate_fsdp2.py
"""

import os
import sys

import torch
import torch.nn.functional as F
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType, set_seed
from torch import nn

import pyadamw

STEPS = 20


def main() -> None:
    on_gpu = torch.cuda.is_available()
    if not on_gpu:
        # accelerate shards on GPUs only. To try it without any, these lines make it take processors for GPUs.
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")
    accelerator = Accelerator(cpu=not on_gpu, fsdp_plugin=plugin, gradient_accumulation_steps=2)
    set_seed(0)
    model = nn.Sequential(nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 16))
    optimizer = pyadamw.AdamW8bit(model.parameters(), lr=3e-3, max_grad_norm=1.0)  # no accelerator.clip_grad_norm_()
    model, optimizer = accelerator.prepare(model, optimizer)

    def train(first: int, last: int) -> float:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step * accelerator.num_processes + accelerator.process_index)
            x = torch.randn(64, 64, generator=generator).to(accelerator.device)
            with accelerator.accumulate(model):
                loss = F.mse_loss(model(x), x[:, :16].sin())
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        return accelerator.reduce(loss.detach(), reduction="mean").item()

    early = train(0, STEPS)
    accelerator.save_state("accelerate_fsdp2")
    late = train(STEPS, 2 * STEPS)
    expected = [p.full_tensor() for p in model.parameters()]

    accelerator.load_state("accelerate_fsdp2")
    train(STEPS, 2 * STEPS)
    same = all(torch.equal(p.full_tensor(), other) for p, other in zip(model.parameters(), expected, strict=True))
    accelerator.print(f"{accelerator.num_processes} processes: loss {early:.4f} -> {late:.4f}")
    accelerator.print(f"the resumed run ends with the same bits: {same}")
    accelerator.print(optimizer.optimizer.memory_report())
    accelerator.end_training()


if __name__ == "__main__":
    main()
    if not torch.cuda.is_available():
        # A thread of gloo may still drop a tensor, which aborts an interpreter that ends meanwhile
        # (pytorch/pytorch#179291).
        sys.stdout.flush()
        os._exit(0)
