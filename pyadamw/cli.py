"""Owns the command line, `python -m pyadamw`. Must not know what its commands do beyond calling them."""

import argparse
import platform
import sys

import torch

from . import __version__
from ._errors import AdamWError
from ._library import candidates, library


def info(_arguments):
    """Prints what a bug report needs: versions, the library, its kernel, threads."""
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


def _parser(with_demo):
    parser = argparse.ArgumentParser(prog="python -m pyadamw", description="AdamW with 32-bit, 8-bit and paged state.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("info", help="versions, library, kernel and threads").set_defaults(run=info)
    demo = commands.add_parser("demo", help="train a small GPT with torch, 32-bit and 8-bit AdamW and compare")
    if with_demo:
        from . import demo as package  # only this command needs its dependencies

        package.add_arguments(demo)
        demo.set_defaults(run=package.main)
    return parser


def main(argv=None):
    """Runs a command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    arguments = _parser(with_demo=argv[:1] == ["demo"]).parse_args(argv)
    return arguments.run(arguments)
