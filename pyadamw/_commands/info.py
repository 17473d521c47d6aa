"""Owns `python -m pyadamw info`: what is installed here. Must not know how any of it works."""

from __future__ import annotations

import argparse
import platform
import sys

import torch

from .. import __version__
from .._native.library import candidates, library
from ..errors import AdamWError


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_arguments: argparse.Namespace) -> int:
    """Prints the facts for a bug report: versions, the library, its kernel, threads."""
    rows = [("pyadamw", __version__), ("torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}")]
    rows += [("python", platform.python_version()), ("machine", platform.platform())]
    failure = None
    try:
        loaded = library()
        rows += [("library", str(loaded.path)), ("build", loaded.build_info())]
        rows += [("threads", f"torch {torch.get_num_threads()}, libadamw {loaded.lib.adamw_get_num_threads()}")]
        rows += [("kernel", loaded.cpu_kernel())]
    except AdamWError as error:
        failure = error
        if not any(name == "library" for name, _ in rows):
            rows.append(("looked for", ", ".join(map(str, candidates()))))
    for name, value in rows:
        print(f"{name:<11} {value}")
    if failure is not None:
        print(f"error: {failure}", file=sys.stderr)
    return 0 if failure is None else 1
