"""Owns the progress bars: runs the trainings one after the other and shows how far they are."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from .runs import NAMES, Result, run


def train_all(text: str, steps: int, seed: int, console: Console) -> list[Result]:
    """One after the other, because side by side they would slow each other's steps."""
    results = [Result(name) for name in NAMES]
    progress = Progress(
        TextColumn("{task.description:<15}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]:>13}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    with progress:
        bars = [progress.add_task(result.name, total=steps, start=False, loss="waiting") for result in results]
        for result, bar in zip(results, bars, strict=True):
            progress.start_task(bar)
            progress.update(bar, loss="starting")
            for step in run(result, steps, seed, text):
                loss = f"{result.bits_per_character:.3f} bits/char" if result.curve else "training"
                progress.update(bar, completed=step, loss=loss)
            if not console.is_terminal:  # There are no bars in a log.
                progress.print(f"{result.name}: {steps} steps, {result.bits_per_character:.3f} bits per character")
    return results
