"""Owns finding the optional peers and pairing their 8-bit AdamW with ours. Must not need them."""

import contextlib
import importlib
import importlib.metadata
import io

import figures
import measure
import torch
import workloads

import pyadamw

SHAPES = [(1 << 22,)]  # smaller than the figures: on a CPU peers take 30 times as long as torch
PEERS = ("bitsandbytes", "torchao")


def _optimizer(name):
    if name == "bitsandbytes":
        return importlib.import_module("bitsandbytes.optim").AdamW8bit
    return importlib.import_module("torchao.optim").AdamW8bit


def measure_peer(name, settings):
    """The version of a peer, and ours against it where it is installed and works here."""
    result = {"name": name, "version": None, "ratio": None, "note": None}
    try:
        result["version"] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        result["note"] = "not installed"
        return result
    shapes = [(1 << 16,)] if settings.quick else SHAPES
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            make = _optimizer(name)
        sides, agreement = figures.contest(
            (
                (lambda params: pyadamw.AdamW8bit(params, lr=workloads.LR), torch.float32),
                (lambda params: make(params, lr=workloads.LR, weight_decay=1e-2), torch.float32),
            ),
            shapes,
            0.2,  # theirs is the one that is less exact
            settings,
        )
    except Exception as error:  # whatever a foreign package throws: the benchmark goes on
        result["note"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        return result
    pairs = figures.time_pairs(sides, settings)
    result.update(
        elements=sum(sides[0].sizes),
        pairs=len(pairs.first),
        ratio=pairs.ratio()._asdict(),
        seconds=measure.Quartiles.of(pairs.first)._asdict(),
        rival_seconds=measure.Quartiles.of(pairs.second)._asdict(),
        agreement=agreement,
    )
    return result
