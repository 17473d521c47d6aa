"""Owns what is to be known of other packages: their versions, and which commands need them. Must not import them."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import torch

from .. import __version__
from .._findings import Finding

OLDEST_TORCH = (2, 4)
# {package: (what needs it, the extra that brings it)}
_OPTIONAL = {
    "rich": ("`python -m pyadamw demo` and coloured tables", "demo"),
    "matplotlib": ("`python -m pyadamw demo` and --plot", "demo"),
    "safetensors": ("files of safetensors in `python -m pyadamw convert` and `inspect`", "safetensors"),
}
# What people use together with an optimizer.
_OTHERS = (
    *("numpy", "cffi", "transformers", "accelerate", "peft", "trl", "lightning", "pytorch-lightning", "deepspeed"),
    *("bitsandbytes", "torchao", "flashoptim", "torch-optimi", "triton"),
)


def facts() -> dict[str, Any]:
    return {
        "pyadamw": __version__,
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "packages": {name: _version(name) for name in (*_OPTIONAL, *_OTHERS)},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def findings(found: dict[str, Any]) -> Iterator[Finding]:
    version = tuple(map(int, re.findall(r"\d+", found["torch"])[:2]))
    if version < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        text = f"torch is {found['torch']}, which is older than {oldest}."
        yield Finding("warning", "torch", text, f"Install torch {oldest} or newer.")
    for name, (what, extra) in _OPTIONAL.items():
        if found["packages"][name] is None:
            cure = f'For these: pip install "pyadamw[{extra}]".'
            yield Finding("note", "packages", f"{name} is not installed; {what} need it.", cure)
