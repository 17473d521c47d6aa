"""Owns the laws of clipping over several processes, over gloo: the norm is that of all gradients, and the factor has
the bits of one process, whatever the mesh. (test_clipping.py: one process.)
"""

from functools import partial

import pytest
from forked import run_processes
from versions import needs_fsdp2, older

run = partial(run_processes, "clip_script")


def test_shards_have_the_norm_of_the_whole(tmp_path):
    """Every placement, even, uneven and empty shards, gathered parameters, several meshes, missing gradients."""
    run(tmp_path, *(("steps", processes) for processes in (1, 2, 3, 4)))


def test_models(tmp_path):
    """FSDP2, tensor parallelism, both, HSDP."""
    run(tmp_path, ("models", 1), ("models", 2), ("models", 4))


@needs_fsdp2
def test_real_gradients(tmp_path):
    """Those of FSDP2, also on the CPU while the mesh may be elsewhere."""
    run(tmp_path, ("backward", 2))


@pytest.mark.parametrize("mode", ["missing", "placed_otherwise", "nonfinite", "refused", "replicated"])
def test_processes_agree(mode, tmp_path):
    run(tmp_path, (mode, 2), (mode, 3))


@pytest.mark.skipif(
    older("torch", "2.5"), reason="the GradScaler of torch 2.4 unscales no DTensors: its dispatch recurses"
)
def test_gradscaler(tmp_path):
    """All processes skip the step that is not finite in one."""
    run(tmp_path, ("scaled", 2), ("scaled", 3))


def test_a_mesh_of_some_processes(tmp_path):
    run(tmp_path, ("submesh", 4))
