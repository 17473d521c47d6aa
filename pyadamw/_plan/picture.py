"""Owns the plan as a picture: bytes on the device as stacked bars, and the line of the GPU. Must not know how anything
in it was found.
"""

from __future__ import annotations

import os
from typing import Any

from .._optional import optional
from .choices import Choice
from .quantities import Unit, shown_bytes
from .table import Planned, headline, rows

_PANELS = {
    (False, False): "all on the device",
    (False, True): "+ StepInBackward",
    (True, False): "state in pages",
    (True, True): "pages + StepInBackward",
}
# What a bar consists of, from the left; colours that people with any colour vision can tell apart (Okabe and Ito).
_PARTS = {
    "weights": ("weights", "#0072b2"),
    "gradients": ("gradients", "#e69f00"),
    "remainder": ("master weights", "#cc79a7"),
    "state": ("state", "#009e73"),
}
_INK, _FAINT, _LIMIT = "#222222", "#8a8a8a", "#c0392b"


def draw(plan: Planned, path: str) -> None:
    """Writes the picture. ValueError if matplotlib is missing, or the name does not end like a format that it knows."""
    if optional("matplotlib") is None:
        raise ValueError("a picture needs matplotlib: pip install 'pyadamw[demo]'")
    figure_module, agg = optional("matplotlib.figure"), optional("matplotlib.backends.backend_agg")
    names = sorted(rows(plan.choices), key=lambda row: row[1][False, False].device, reverse=True)
    unit = Unit(max(choice.device for choice in plan.choices))
    figure = figure_module.Figure(figsize=(13, 1.7 + 0.34 * len(names)), layout="constrained")
    canvas = agg.FigureCanvasAgg(figure)
    kind = os.path.splitext(path)[1].removeprefix(".").lower()
    if kind not in canvas.get_supported_filetypes():
        kinds = ", ".join(sorted(canvas.get_supported_filetypes()))
        raise ValueError(f"{path}: the name of a picture must end in one of {kinds}")
    panels = figure.subplots(1, len(_PANELS), sharex=True, sharey=True)
    for axes, (variant, title) in zip(panels, _PANELS.items(), strict=True):
        axes.set_title(title, fontsize=11, color=_INK)
        for place, (_, variants) in enumerate(names):
            _bar(axes, place, variants.get(variant), unit, plan.best)
        _frame(axes, plan, unit)
    panels[0].set_yticks(range(len(names)), [name for name, _ in names], fontsize=10)
    panels[0].invert_yaxis()
    largest = max(choice.device for choice in plan.choices)
    shown = max(largest, plan.gpu) if plan.gpu is not None and plan.gpu < 2 * largest else largest
    panels[0].set_xlim(0, 1.16 * shown / unit.bytes)  # with room for the numbers beside the bars
    _legend(figure, panels[0], plan, unit)
    figure.supxlabel(f"{unit.name} on the device, a process", fontsize=10, color=_INK, x=0.01, ha="left")
    figure.suptitle(headline(plan), fontsize=12, color=_INK, x=0.01, ha="left", parse_math=False)
    figure.savefig(path, dpi=150)


def _pale(colour: str) -> str:
    """Mixed with white: what is transparent would let lines shine through."""
    parts = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(0.35 * part + 0.65 * 255):02x}" for part in parts)


def _bar(axes: Any, place: int, choice: Choice | None, unit: Unit, best: Choice | None) -> None:
    if choice is None:
        axes.text(0, place, " -", va="center", fontsize=9, color=_FAINT)
        return
    left, too_large = 0.0, choice.fits == "no"
    for part, (_, colour) in _PARTS.items():
        width = _on_device(choice, part) / unit.bytes
        axes.barh(place, width, left=left, height=0.72, color=_pale(colour) if too_large else colour, zorder=2)
        left += width
    text = unit(choice.device) + (f", host {unit(choice.host)}" if choice.host else "")
    text += ", tight" if choice.fits == "tight" else ", best" if choice == best else ""
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    label = axes.annotate(
        text, (left, place), (4, 0), textcoords="offset points", va="center", fontsize=8, bbox=box, zorder=4
    )
    label.set(color=_FAINT if too_large else _INK, fontweight="bold" if choice == best else "normal")


def _on_device(choice: Choice, part: str) -> int:
    """Bytes of a part; what is left of the state, with the windows for the rest, if it is in pages."""
    if not choice.host or part in ("weights", "gradients"):
        return int(getattr(choice, part))
    return choice.device - choice.weights - choice.gradients if part == "state" else 0


def _frame(axes: Any, plan: Planned, unit: Unit) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, colors=_INK)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    if plan.gpu is not None:
        axes.axvline(plan.gpu / unit.bytes, color=_LIMIT, linewidth=1.6, zorder=3)


def _legend(figure: Any, axes: Any, plan: Planned, unit: Unit) -> None:
    patches, lines = optional("matplotlib.patches"), optional("matplotlib.lines")
    present = {part for part in _PARTS if any(getattr(choice, part) for choice in plan.choices)}
    handles = [patches.Patch(color=colour, label=name) for part, (name, colour) in _PARTS.items() if part in present]
    if plan.gpu is not None:
        beyond = " (beyond)" if plan.gpu > axes.get_xlim()[1] * unit.bytes else ""
        handles.append(lines.Line2D([], [], color=_LIMIT, label=f"GPU of {shown_bytes(plan.gpu)}{beyond}"))
        handles.append(patches.Patch(color=_pale(_FAINT), label="pale: does not fit"))
    figure.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=9, frameon=False)
