"""Owns how commands print tables and findings: plain, or with rich on a terminal. Must not know what they say."""

from __future__ import annotations

import contextlib
import io
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .._findings import Finding
from .._optional import optional

_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "error": "bold red"}
LABEL = 11  # characters of what a line begins with


def console() -> Any:
    """rich's console, if stdout is a terminal and rich is installed; else None."""
    if not sys.stdout.isatty():
        return None
    rich = optional("rich.console")
    return None if rich is None else rich.Console(highlight=False, markup=False, emoji=False)


@contextlib.contextmanager
def until_closed() -> Iterator[None]:
    """A block that prints. It ends without an error when nobody reads stdout any more, as behind `| head`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # for paths that are no text in the encoding of the terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends


def print_facts(rows: Iterable[tuple[str, str]]) -> None:
    rows = list(rows)
    width = max(LABEL, *(len(name) + 1 for name, _ in rows))
    for name, value in rows:
        print(f"{name:<{width}} {value}")


def print_findings(findings: Sequence[Finding]) -> None:
    """A line for each finding, and one for its cure."""
    screen = console()
    for finding in findings:
        label = f"{finding.level:<{LABEL}} "
        lines = [f"{finding.subject}: {finding.text}"]
        lines += [finding.cure] if finding.cure else []
        if screen is None:
            print(*[label + lines[0], *(" " * len(label) + line for line in lines[1:])], sep="\n")
            continue
        grid = optional("rich.table").Table.grid(padding=(0, 1))
        grid.add_column(width=LABEL, style=_COLOURS[finding.level])
        grid.add_column(overflow="fold")
        grid.add_row(finding.level, lines[0])
        for line in lines[1:]:
            grid.add_row("", line, style="dim")
        screen.print(grid)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Iterable[int]) -> None:
    """A table; `left`: the numbers of the columns that begin at the left, as texts do.

    The last column may be long: on a terminal that is too narrow for it, each of its texts has a line of its own.
    """
    left, screen = set(left), console()
    widths = [max(len(row[number]) for row in (headings, *rows)) for number in range(len(headings))]
    lines = [_aligned(row, widths, left) for row in (headings, *rows)]
    if screen is None:
        print(*lines, sep="\n")
        return
    if sum(widths) + 2 * len(widths) <= screen.width:
        table = optional("rich.table").Table(box=optional("rich.box").SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number in left else "right", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        screen.print(table)
        return
    lines = [_aligned(row[:-1], widths, left) for row in (headings, *rows)]
    for number, (line, row) in enumerate(zip(lines, (headings, *rows), strict=True)):
        screen.print(f"{row[-1]}\n  {line}", soft_wrap=True, style="bold" if number == 0 else None)


def _aligned(row: Sequence[str], widths: Sequence[int], left: set[int]) -> str:
    cells = [
        cell.ljust(width) if number in left else cell.rjust(width)
        for number, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    return "  ".join(cells).rstrip()


def with_progress(entries: Sequence[Any], description: str, transient: bool) -> Any:
    """The entries, with a progress bar on stderr if that is a terminal and rich is there. `transient`: it then goes."""
    progress = optional("rich.progress") if sys.stderr.isatty() else None
    if progress is None:
        return entries
    screen = optional("rich.console").Console(stderr=True)
    return progress.track(entries, description=description, console=screen, transient=transient)


def size(count: float) -> str:
    """Bytes in words: 17.2 MiB."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    power = min(int(math.log2(count) / 10), len(units) - 1) if count >= 1 else 0
    return f"{count:.0f} {units[0]}" if power == 0 else f"{count / 1024**power:.1f} {units[power]}"


def share(value: float | None) -> str:
    """A share in percent: 100% and 0% only where it is just that."""
    if value is None:
        return "-"
    if value in (0, 1):
        return f"{value:.0%}"
    return "<1%" if value < 0.01 else ">99%" if value > 0.99 else f"{value:.0%}"


def error(message: object) -> int:
    """Prints an error on stderr in one line; returns the exit status."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return 1
