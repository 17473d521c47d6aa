"""Owns the law: thread count and instruction set change no bit."""

import json

import forked
import pytest
import torch
from harness import parameters, train

import pyadamw

# Prints a digest of parameters and state for each thread count; sizes are uneven, so that no split is a round number.
SCRIPT = """
import hashlib, json, sys, torch, pyadamw
sys.path.insert(0, sys.argv[1])
from harness import CONFIGURATIONS, SHAPES, parameters, state_bits, bits, train
result = {}
for threads in (1, 2, 7):
    torch.set_num_threads(threads)
    for name, (cls, options) in CONFIGURATIONS.items():
        digest = hashlib.sha256()
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            if dtype == torch.float16 and options.get("master_weight_bits"):
                continue  # it has none
            params = parameters([*SHAPES, (100_003,), (257, 400)], dtype)
            optimizer = cls(params, **options)
            train(optimizer, params, 4)
            params[2].grad = None
            optimizer.step()
            for p in params:
                digest.update(bits(p))
                for value in state_bits(optimizer, p).values():
                    digest.update(value)
        result[f"{name}, {threads} threads"] = digest.hexdigest()
try:
    kernel = pyadamw._native.library.library().cpu_kernel()
except pyadamw.UnsupportedError:
    kernel = None
print(json.dumps([kernel, result]))
"""
KERNELS = ("scalar", "avx2", "avx512", "neon")


def digests(directory, kernel):
    """(kernel, {configuration and threads: digest}); None asks for the default. None if this machine has it not."""
    done = forked.run(SCRIPT, directory, ADAMW_CPU=kernel)
    if "UnsupportedError" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr
    used, result = json.loads(done.stdout)
    assert kernel in (None, used)
    return used, result


def test_threads_and_kernels_change_no_bit(request):
    """1, 2 and 7 threads, and every kernel that this machine has, give the same bytes in every configuration."""
    directory = request.path.parent
    used, default = digests(directory, None)
    by_configuration = {}
    for name, digest in default.items():
        by_configuration.setdefault(name.split(", ")[0], set()).add(digest)
    assert all(len(found) == 1 for found in by_configuration.values()), by_configuration
    assert len({next(iter(found)) for found in by_configuration.values()}) > 3  # configurations do differ
    others = [digests(directory, kernel) for kernel in KERNELS if kernel != used]
    found = {used: default, **dict(filter(None, others))}
    assert "scalar" in found
    for kernel, result in found.items():
        assert result == default, kernel
    missing = sorted(set(KERNELS) - set(found))
    if missing:
        pytest.skip(f"the same bits with {', '.join(found)}; this machine has no {', '.join(missing)}")


def test_steps_use_torchs_threads():
    """Every step asks the library for the number of threads that torch is set to then."""
    params = parameters()
    optimizer = pyadamw.AdamW8bit(params)
    for threads in (3, 1, 2):
        torch.set_num_threads(threads)
        train(optimizer, params, 1)
        assert {bucket.call.options.num_threads for bucket in optimizer._cache.plan.buckets} == {threads}
