"""Owns `python -m pyadamw convert`: files of optimizer state for others. Must not know how state is converted."""

from __future__ import annotations

import argparse
from typing import Any

from .._native.memory import is_out_of_memory
from .._state import checkpoints, export, files
from .._state.received import check_structure
from ..errors import AdamWError
from . import output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Two files, and what the first one is to become."""
    parser.add_argument("input", metavar="IN", help="a file of torch.save() or safetensors; no code in it is run")
    parser.add_argument("output", metavar="OUT", help="a file to replace as a whole, or a new name")
    parser.add_argument("--to", required=True, choices=["torch", "bitsandbytes", "pyadamw", "safetensors"])
    parser.add_argument("--weights", metavar="FILE", help="the model's weights, for FlashOptim's master weights")
    parser.add_argument("--key", help=checkpoints.KEY)


def run(arguments: argparse.Namespace) -> int:
    """Writes the optimizer state in one file to another, in the format of another optimizer."""
    try:
        _, state_dict = checkpoints.chosen(files.read(arguments.input), arguments.key, arguments.input)
        to = "pyadamw" if arguments.to == "safetensors" else arguments.to
        weights = None
        if arguments.weights is not None:
            check_structure(state_dict)
            weights = files.read_weights(arguments.weights, state_dict)
        result = export.converted(state_dict, to, _with_progress, finite=True, weights=weights)
        files.write(result, arguments.output, arguments.to == "safetensors")
    except (ValueError, OSError, AdamWError) as error:
        return output.error(error)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return output.error("out of memory")
    return 0


def _with_progress(entries: Any) -> Any:
    return output.with_progress(list(entries), "converting", transient=False)
