"""Owns how results look: the table and the picture. It must not change a number."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # Before pyplot: there may be no display.

from matplotlib import pyplot
from matplotlib.axes import Axes
from rich import box
from rich.console import Console
from rich.table import Table

from .runs import Result

MEGA = 1e6

# Okabe and Ito's colours, which colour-blind readers tell apart. The curves lie on each other: the first is a broad
# band and the others are drawn on top of it, each in a pattern of its own.
STYLES = (
    {"color": "#56B4E9", "linewidth": 7, "alpha": 0.55, "solid_capstyle": "round"},
    {"color": "#333333", "linewidth": 1.8, "linestyle": (0, (5, 2))},
    {"color": "#D55E00", "linewidth": 1.2, "marker": "o", "markersize": 4.5},
    {"color": "#009E73", "linewidth": 1.2, "linestyle": (0, (1, 1.5)), "marker": "x", "markersize": 5.5},
)
BAR_COLORS = ("#56B4E9", "#333333", "#D55E00", "#009E73")
GREY = "#555555"


def print_table(results: list[Result], title: str, console: Console) -> None:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.add_column("optimizer", no_wrap=True)
    for heading in (
        "loss\nbits/char",
        "weights",
        "state",
        "both",
        "optimizer\nms/step",
        "training\nMB",
    ):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.name,
            f"{result.bits_per_character:.3f}",
            f"{result.weight_bytes / result.parameters:.2f}",
            f"{result.state_bytes / result.parameters:.2f}",
            f"{result.held_bytes / result.parameters:.2f}",
            f"{result.step_milliseconds:.2f}",
            f"{(result.peak_memory - result.memory_before) / MEGA:.1f}",
        )
    console.print(table)
    console.print(
        "weights, state, both: bytes a parameter. bf16: weights are bfloat16, and 8 more\n"
        "bits of each are state; the model computes in float32, on a copy of the weights.\n"
        "ms/step: the median of optimizer.step(). training MB: what training added to the\n"
        "memory of the process: weights, gradients, optimizer state, activations.",
        style="dim",
    )


def draw(results: list[Result], title: str, picture: Path) -> None:
    style = {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    with pyplot.rc_context(style):
        figure, (curves, bars) = pyplot.subplots(
            1, 2, figsize=(11, 4.6), width_ratios=(1.55, 1), layout="constrained", facecolor="white"
        )
        _draw_curves(curves, results)
        _draw_bars(bars, results)
        figure.suptitle(title, fontsize=11, color=GREY, parse_math=False)
        figure.savefig(picture, dpi=150)
        pyplot.close(figure)


def _draw_curves(axes: Axes, results: list[Result]) -> None:
    for result, style in zip(results, STYLES, strict=True):
        steps, losses = zip(*result.curve, strict=True)
        axes.plot(steps, losses, label=f"{result.name}: {result.bits_per_character:.3f}", **style)  # type: ignore[arg-type]
    axes.set_title("Validation loss", loc="left", fontweight="bold")
    axes.set_xlabel("step")
    axes.set_ylabel("bits per character")
    axes.set_xlim(left=0)
    axes.grid(axis="y", alpha=0.25)
    axes.legend(title="after the last step", frameon=False, alignment="left", handlelength=3)


def _draw_bars(axes: Axes, results: list[Result]) -> None:
    names = [result.name for result in results]
    weights = [result.weight_bytes / result.parameters for result in results]
    states = [result.state_bytes / result.parameters for result in results]
    axes.barh(names, weights, color=BAR_COLORS, height=0.62, alpha=0.45)
    drawn = axes.barh(names, states, left=weights, color=BAR_COLORS, height=0.62)
    axes.bar_label(drawn, labels=[f" {result.held_bytes / result.parameters:.2f}" for result in results], padding=3)
    axes.set_title("Weights (pale) and state", loc="left", fontweight="bold")
    axes.set_xlim(0, 1.2 * (weights[0] + states[0]))
    axes.set_xlabel("bytes a parameter")
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
