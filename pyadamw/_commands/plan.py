"""Owns `python -m pyadamw plan`: which optimizer fits. Must not know how bytes are counted."""

from __future__ import annotations

import argparse
import json

from .._plan import plan
from ..errors import AdamWError
from . import output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A model, and where it is to train."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a number such as 7B or 350M; a file of safetensors, or a folder with them; a config.json of Hugging "
        "Face; a file of torch.save(). Only names and shapes are read, and no code is run",
    )
    parser.add_argument("--gpu", metavar="BYTES", help="memory of the device, such as 24GiB: marks what fits")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], help="of the weights; without it, as they are")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="FSDP2 shards the model over so many")
    parser.add_argument("--plot", metavar="FILE", help="also draw a picture: .png, .svg, .pdf")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON, in bytes")


def run(arguments: argparse.Namespace) -> int:
    """Prints what weights, gradients and optimizer state take for each choice, and the code of the best that fits."""
    try:
        made = plan(arguments.model, gpu=arguments.gpu, dtype=arguments.dtype, processes=arguments.processes)
        if arguments.plot is not None:
            from .._plan.picture import draw  # needs matplotlib

            draw(made, arguments.plot)
    except (ValueError, OSError, AdamWError) as failure:
        return output.error(failure)
    with output.until_closed():
        print(json.dumps(made.to_json(), indent=1) if arguments.json else made)
    return 0
