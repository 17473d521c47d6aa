"""Owns the command: its arguments, its errors, the progress bars, and the order of things. It trains nothing itself."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from .._native.library import library
from ..errors import AdamWError
from .text import DemoError, load_text

PICTURE_NAME = "pyadamw-demo.png"
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")
EXTRAS = ("rich", "matplotlib")
DEFAULT_STEPS = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the demo to a parser: --text, --steps, --seed and --out.

    Args:
        parser: the parser of `python -m pyadamw demo`.
    """
    parser.add_argument("--text", metavar="FILE", help="train on this UTF-8 text (default: Python's own help texts)")
    parser.add_argument("--steps", type=_count, default=DEFAULT_STEPS, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=_seed, default=0, metavar="N", help="weights and batches (default: %(default)s)")
    parser.add_argument(
        "--out", default=PICTURE_NAME, metavar="PATH", help="the picture, or a folder for it (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo, and prints errors on stderr.

    Args:
        arguments: what the parser of add_arguments() has read.

    Returns:
        The exit status. 0; 2 if something the user gave cannot be used; 1 if a run failed; 130 after Ctrl-C.
    """
    try:
        _check_extras()
        library()
        text, source = load_text(arguments.text)
        picture = _picture_path(arguments.out)
    except (DemoError, AdamWError) as error:
        return _fail(error, 2)
    try:
        _compare(text, source, arguments.steps, arguments.seed, picture)
    except DemoError as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


def _compare(text: str, source: str, steps: int, seed: int, picture: Path) -> None:
    # Only here, so that a missing extra is told in one line and bad arguments are told at once.
    from rich.console import Console

    from . import report
    from .progress import train_all

    console = Console(highlight=False, markup=False, emoji=False)  # A file may be called anything.
    console.print(f"A character-level GPT learns {source} ({len(text):,} characters), once with each optimizer.")
    results = train_all(text, steps, seed, console)
    title = f"{results[0].parameters / 1e6:.2f} M parameters, {steps:,} steps, seed {seed}, text: {source}"
    report.print_table(results, title, console)
    try:
        report.draw(results, title, picture)
    except OSError as error:
        raise DemoError(f"cannot write {str(picture)!r}: {error.strerror or error}") from None
    print(f"Picture: {picture}")


def _check_extras() -> None:
    missing = [name for name in EXTRAS if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f'the demo needs {" and ".join(missing)}: pip install "pyadamw[demo]"')


def _picture_path(out: str) -> Path:
    """Where the picture goes, its folder made and found writable now rather than after minutes of training."""
    path = Path(out)
    if path.is_dir() or out.endswith("/") or not path.suffix:
        path = path / PICTURE_NAME
    elif path.suffix.lower() not in PICTURE_SUFFIXES:
        raise DemoError(f"the picture can be {', '.join(PICTURE_SUFFIXES)}, not {path.suffix!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(f"cannot make the folder {str(path.parent)!r}: {error.strerror or error}") from None
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DemoError(f"cannot write {str(path)!r}")
    return path


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 63:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 2**63 - 1, not {text!r}")
    return int(text)


def _fail(message: object, status: int) -> int:
    print(f"pyadamw demo: {message}", file=sys.stderr)
    return status
