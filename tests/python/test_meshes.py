"""Owns the laws of meshes, in real processes over gloo: state stays sharded on whatever dimensions a parameter is, with
the bits of one process, and goes on under any other mesh.
"""

from functools import partial

from forked import run_processes

run = partial(run_processes, "mesh_script")


def test_shards_of_any_dimension_are_parts_of_the_whole(tmp_path):
    run(tmp_path, ("steps", 2), ("steps", 3), ("steps", 4))


def test_no_mesh_takes_more_memory(tmp_path):
    """FSDP2, tensor parallelism, both, and HSDP: at most 2.1 bytes a parameter."""
    run(tmp_path, ("memory", 1), ("memory", 2), ("memory", 4))


def test_a_checkpoint_of_one_mesh_goes_on_under_another(tmp_path):
    run(tmp_path, ("save", 2), ("resume", 1), ("resume", 4))


def test_collectives_in_flight_are_waited_for(tmp_path):
    run(tmp_path, ("in_flight", 2))


def test_state_of_format_1_is_cut_as_shards_are(tmp_path):
    run(tmp_path, ("format_1", 2))
