"""Owns the laws of sharded parameters (DTensor, FSDP2), in real processes over gloo: stepping shards is stepping the
whole, bit for bit, and a checkpoint goes on with any number of processes.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_script.py")


def run(mode, processes, folder):
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, mode, str(rank), str(processes), str(folder)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        results = [(process.communicate(timeout=300), process.returncode) for process in started]
    finally:
        for process in started:
            process.kill()
    for (out, error), status in results:
        assert status == 0, out + error[-3000:]
        assert f"{mode}: holds" in out


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_stepping_shards_is_stepping_the_whole(processes, tmp_path):
    """Every class, option, placement and odd size, on 1 to 4 processes: the bits of one process without shards."""
    run("steps", processes, tmp_path)


def test_a_checkpoint_of_two_goes_on_with_any_number(tmp_path):
    """torch.distributed.checkpoint saves on 2 processes; 1, 2, 3 and 4 go on as if never stopped; so does one without
    shards, from the full state dict."""
    run("save", 2, tmp_path)
    for processes in (3, 1, 2, 4):
        run("resume", processes, tmp_path)


def test_fully_shard_trains(tmp_path):
    run("train", 2, tmp_path)


@pytest.mark.parametrize("mode", ["replicated", "accelerated"])
def test_two_processes(mode, tmp_path):
    """DistributedDataParallel and ZeroRedundancyOptimizer; accelerate with FSDP2."""
    run(mode, 2, tmp_path)
