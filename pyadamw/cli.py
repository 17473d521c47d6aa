"""Owns the command line, `python -m pyadamw`: its list of commands. Must not know how any of them works."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

# {command: (its module in this package, what it does)}
_COMMANDS = {
    "info": ("_commands.info", "versions, library, kernel and threads"),
    "inspect": ("_commands.inspect", "what is in a checkpoint of an optimizer, and what is wrong with it"),
    "plan": ("_commands.plan", "what weights, gradients and state take, and which choice fits a GPU"),
    "convert": ("_commands.convert", "rewrite a file of optimizer state for another optimizer"),
    "demo": ("demo", "train a small GPT with torch, 32-bit and 8-bit AdamW and compare"),
}


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyadamw", description="AdamW with 32-, 16-, 8-bit and paged state."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == chosen:  # a command may need packages that the others do not
            package = importlib.import_module(f".{module}", __package__)
            package.add_arguments(command)
            command.set_defaults(run=package.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(argv[0] if argv else None).parse_args(argv)
    status: int = arguments.run(arguments)
    return status
