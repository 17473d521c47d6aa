"""Owns the laws of sharded parameters (DTensor, FSDP2), in real processes over gloo: stepping shards is stepping the
whole, bit for bit, and a checkpoint goes on with any number of processes.
"""

from functools import partial

from forked import run_processes
from versions import needs_accelerate_fsdp2, needs_fsdp2

run = partial(run_processes, "sharded_script")


def test_stepping_shards_is_stepping_the_whole(tmp_path):
    """Every class, option, placement and odd size, on 1 to 4 processes: the bits of one process without shards."""
    run(tmp_path, *(("steps", processes) for processes in (1, 2, 3, 4)))


def test_a_checkpoint_of_two_goes_on_with_any_number(tmp_path):
    """torch.distributed.checkpoint saves on 2 processes; 1, 2, 3 and 4 go on as if never stopped; so does one without
    shards, from the full state dict. float32 weights go the same ways."""
    run(tmp_path, ("save", 2), *((mode, processes) for processes in (3, 1, 2, 4) for mode in ("resume", "float32")))


@needs_fsdp2
def test_fully_shard_trains(tmp_path):
    run(tmp_path, ("train", 2))


def test_data_parallel(tmp_path):
    """DistributedDataParallel and ZeroRedundancyOptimizer."""
    run(tmp_path, ("replicated", 2))


@needs_accelerate_fsdp2
def test_accelerate_with_fsdp2(tmp_path):
    run(tmp_path, ("accelerated", 2))
