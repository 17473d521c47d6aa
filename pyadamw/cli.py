"""Owns the command line, `python -m pyadamw`. Must not know how its commands work."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Any

import torch

from . import __version__
from ._native.library import candidates, library
from ._native.memory import is_out_of_memory
from ._optional import optional
from ._state import export, files
from ._state.received import check_structure
from .errors import AdamWError


def info(_arguments: Any) -> int:
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


def convert(arguments: Any) -> int:
    """Writes the optimizer state in one file to another, in the format of another optimizer."""
    try:
        state_dict = files.read(arguments.input)
        if arguments.key is not None:
            if not isinstance(state_dict, dict) or arguments.key not in state_dict:
                raise ValueError(f"{arguments.input} has no {arguments.key!r}: {_keys(state_dict)}")
            state_dict = state_dict[arguments.key]
        elif isinstance(state_dict, dict) and "state" not in state_dict:
            raise ValueError(f"{arguments.input} is not the state of an optimizer; choose --key: {_keys(state_dict)}")
        to = "pyadamw" if arguments.to == "safetensors" else arguments.to
        weights = None
        if arguments.weights is not None:
            check_structure(state_dict)
            weights = files.read_weights(arguments.weights, state_dict)
        result = export.converted(state_dict, to, _with_progress, finite=True, weights=weights)
        files.write(result, arguments.output, arguments.to == "safetensors")
    except (ValueError, OSError, AdamWError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print("error: out of memory", file=sys.stderr)
        return 1
    return 0


def _keys(state_dict: Any) -> Any:
    return f"it has {', '.join(map(repr, state_dict))}" if isinstance(state_dict, dict) else "it is not a dict"


def _with_progress(entries: Any) -> Any:
    progress = optional("rich.progress") if sys.stderr.isatty() else None
    if progress is None:
        return entries
    console = optional("rich.console").Console(stderr=True)
    return progress.track(list(entries), description="converting", console=console)


def _parser(with_demo: Any) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m pyadamw", description="AdamW with 32-, 16-, 8-bit and paged state."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, library, kernel and threads").set_defaults(run=info)
    conversion = commands.add_parser("convert", help="rewrite a file of optimizer state for another optimizer")
    conversion.add_argument("input", metavar="IN", help="a file of torch.save() or safetensors; no code in it is run")
    conversion.add_argument("output", metavar="OUT", help="a file to replace as a whole, or a new name")
    conversion.add_argument("--to", required=True, choices=["torch", "bitsandbytes", "pyadamw", "safetensors"])
    conversion.add_argument("--weights", metavar="FILE", help="the model's weights, for FlashOptim's master weights")
    conversion.add_argument("--key", help="the key of the optimizer's state in a larger checkpoint")
    conversion.set_defaults(run=convert)
    demo = commands.add_parser("demo", help="train a small GPT with torch, 32-bit and 8-bit AdamW and compare")
    if with_demo:
        from . import demo as package  # only this command needs its dependencies

        package.add_arguments(demo)
        demo.set_defaults(run=package.main)
    return parser


def main(argv: Any = None) -> int:
    """Runs a command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(with_demo=argv[:1] == ["demo"]).parse_args(argv)
    return arguments.run(arguments)
