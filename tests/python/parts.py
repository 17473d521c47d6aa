"""Owns what the processes of sharded_script.py and its like give their parameters, and how each compares its part of
them with what one process has whole. Must not know any law.
"""

import functools

import torch
from distributed_names import WITHOUT_SOURCE, Replicate, Shard, distribute_tensor


def full(value):
    if not hasattr(value, "full_tensor"):
        return value
    # gloo has no int16
    return value.int().full_tensor().short() if value.dtype == torch.int16 else value.full_tensor()


@torch.no_grad()
def is_part(ours, whole):
    """Whether this process has what placements leave it of the whole: then all together have the whole. To bring the
    parts together takes as long as all else, so only those are whose cut torch does not say beforehand."""
    placements = getattr(ours, "placements", ())
    if ours.shape != whole.shape:
        return False
    replicated = all(type(placement) is Replicate for placement in placements)
    if replicated or not WITHOUT_SOURCE or any(type(placement) not in (Shard, Replicate) for placement in placements):
        return torch.equal(full(ours), whole)
    mine = distribute_tensor(whole, ours.device_mesh, placements, **WITHOUT_SOURCE).to_local()
    return torch.equal(ours.to_local(), mine)


@functools.lru_cache(16)  # for this step or the next ones of another optimizer
def drawn(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 0.1 for shape in shapes]


def numbers(shapes, seed):
    """Normal numbers in the caller's own memory."""
    return [drawn_.clone() for drawn_ in drawn(tuple(shapes), seed)]


@torch.no_grad()
def distribute(whole, mesh, placements):
    """What every process has whole, cut without asking the others; the memory is the process's own."""
    return distribute_tensor(whole, mesh, placements, **WITHOUT_SOURCE).clone()


def assert_equal(sharded, plain, what):
    """Optimizers and their parameters: parameters and state of one are those of the other, bit for bit."""
    for i, (p, q) in enumerate(zip(sharded[1], plain[1], strict=True)):
        assert is_part(p.detach(), q.detach()), f"{what}: parameter {i}"
        one, other = sharded[0].state[p], plain[0].state[q]
        assert one.keys() == other.keys(), f"{what}: {one.keys()} {other.keys()}"
        for key in one:
            assert is_part(one[key], other[key]), f"{what}: parameter {i}: {key}"


def assert_weights(sharded, plain, what):
    """The float32 weights are those of one process, and placed as the parameters are."""
    optimizer, params = sharded
    for p, ours, whole in zip(params, optimizer.fp32_weights().values(), plain.fp32_weights().values(), strict=True):
        assert getattr(ours, "placements", None) == getattr(p, "placements", None), what
        assert is_part(ours, whole), what
