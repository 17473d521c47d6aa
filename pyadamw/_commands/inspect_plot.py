"""Owns the picture of `inspect`: a row for each parameter, with the range of its scales and the codes that it uses.
Must not know what is counted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: there may be no display

import numpy
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from .._state.statistics import Statistics

MOMENTS = {"exp_avg": "#0072B2", "exp_avg_sq": "#D55E00"}  # Okabe and Ito's colours, for colour-blind readers too
ROWS = 40  # that all have their name, if there are no more
LONGEST = 48  # characters of a name
GREY = "#777777"


def draw(found: Sequence[Statistics], title: str, path: str) -> None:
    """Draws the parameters from the top down, in their order, and writes the whole file or nothing."""
    coded = [name for name in MOMENTS if any(name in one.moments and one.moments[name].codes for one in found)]
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
    with pyplot.rc_context(style):
        height = 1.9 + 0.2 * min(max(len(found), 4), ROWS + 5)
        figure, axes = pyplot.subplots(
            1,
            1 + len(coded),
            figsize=(7.5 + 3 * len(coded), height),
            width_ratios=(1.6, *(1 for _ in coded)),
            sharey=True,
            squeeze=False,
            layout="constrained",
            facecolor="white",
        )
        _draw_scales(axes[0][0], found)
        image = None
        for place, (moment, axis) in enumerate(zip(coded, axes[0][1:], strict=True)):
            image = _draw_codes(axis, found, moment, number=place)
        if image is not None:
            figure.colorbar(image, ax=list(axes[0][1:]), label="elements / (all / 256)")
        if axes[0][0].get_legend_handles_labels()[0]:
            figure.legend(frameon=False, loc="outside lower left", fontsize=8, ncols=4)
        figure.suptitle(title, fontsize=10, color=GREY, parse_math=False)
        try:
            _save(figure, path)
        finally:
            pyplot.close(figure)


def _short(name: str) -> str:
    """The beginning and the end of a long name."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 3]}...{name[3 + LONGEST // 3 - LONGEST :]}"


def _draw_scales(axes: Axes, found: Sequence[Statistics]) -> None:
    """A bar from the smallest scale to the largest; for moments without scales, a dot at the largest number."""
    thin = len(found) > ROWS
    shift, any_drawn = 0.0 if thin else 0.17, False
    for number, (moment, colour) in enumerate(MOMENTS.items()):
        rows, low, high, dots, largest = [], [], [], [], []
        for row, one in enumerate(found):
            counted = one.moments.get(moment)
            place = row + (2 * number - 1) * shift
            if counted is None:
                continue
            if counted.scales is not None and counted.scales.smallest_above_zero and counted.scales.largest:
                rows.append(place)
                low.append(counted.scales.smallest_above_zero)
                high.append(counted.scales.largest)
            elif counted.scales is None and counted.largest:
                dots.append(place)
                largest.append(counted.largest)
        axes.hlines(
            rows, low, high, color=colour, linewidth=1.2 if thin else 4, label=f"{moment}: its scales" if rows else ""
        )
        any_drawn = any_drawn or bool(rows or dots)
        # A range of no length is no bar.
        axes.scatter(low, rows, s=2 if thin else 10, color=colour, marker="|")
        axes.scatter(
            largest,
            dots,
            s=4 if thin else 18,
            color=colour,
            marker="o",
            label=f"{moment}: its largest number" if dots else None,
        )
    if any_drawn:
        axes.set_xscale("log")  # which needs a number above zero
    axes.set_title("Scales above zero", loc="left", fontweight="bold")
    step = max(1, -(-len(found) // ROWS))
    axes.set_yticks(range(0, len(found), step), [_short(one.title) for one in found[::step]], parse_math=False)
    axes.set_ylim(max(len(found), 1) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    if step > 1:
        axes.set_ylabel(f"{len(found)} parameters, one name of {step}", color=GREY)


def _draw_codes(axes: Axes, found: Sequence[Statistics], moment: str, number: int) -> Any:
    counts = numpy.zeros((len(found), 256))
    for row, one in enumerate(found):
        codes = one.moments[moment].codes if moment in one.moments else None
        if codes is None:
            axes.axhspan(row - 0.5, row + 0.5, color="#EEEEEE", linewidth=0)
        elif sum(codes):
            counts[row] = numpy.array(codes) * (256 / sum(codes))
    shown = numpy.ma.masked_equal(counts, 0)
    image = axes.imshow(
        shown,
        aspect="auto",
        interpolation="nearest" if len(found) <= ROWS else "auto",
        norm=LogNorm(0.01, 100),
        cmap="viridis",
        extent=(-0.5, 255.5, len(found) - 0.5, -0.5),
    )
    axes.set_title(f"Codes of {moment}", loc="left", fontweight="bold")
    axes.set_xticks((0, 64, 128, 192, 255))
    axes.set_xlabel("code (white: not used; grey: numbers)" if number == 0 else "code")
    axes.tick_params(axis="y", length=0, labelleft=False)
    return image


def _save(figure: Any, path: str) -> None:
    target, suffix = os.path.realpath(path), os.path.splitext(path)[1].lower()
    with tempfile.TemporaryDirectory(prefix=".pyadamw-", dir=os.path.dirname(target)) as folder:
        made = os.path.join(folder, f"picture{suffix}")
        figure.savefig(made, dpi=150)
        os.replace(made, target)
