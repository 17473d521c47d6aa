"""Owns how the pictures of the laws look: colours, marks, dots in rows, lines. Must not know any law.

The card is white in dark themes, too, and nothing is told by colour alone: rows bear names, lines have marks.
"""

import math

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

INK, SOFT, SHADE = "#2b2f36", "#8b9099", "#e9ecf1"
# Mid tones; ours are blue.
STYLES = {
    "pyadamw 8-bit": ("#1f6fd6", "o", "-"),
    "pyadamw 16-bit": ("#45a3d9", "D", "--"),
    "torch bf16 state": ("#6b7280", "s", "-."),
    "bitsandbytes 8-bit": ("#d98a17", "^", "-"),
    "torchao 8-bit": ("#c8433f", "v", "--"),
    "torchao FP8": ("#9b56b0", "X", "-."),
    "torchao 4-bit": ("#8a6a3a", "P", ":"),
    "FlashOptim 8-bit": ("#3f9150", "H", "-"),
}
MARKS = ("o", "^", "D", "s")
SERIES = ("#475569", "#d6568c", "#17948f", "#97870f")  # other than the optimizers'
LINE = {"color": SOFT, "linewidth": 1, "linestyle": (0, (4, 3)), "zorder": 1}
REFERENCE = {"color": INK, "linewidth": 1.4, "linestyle": (0, (1, 1.5)), "zorder": 4}
SETTINGS = {
    "svg.hashsalt": "laws",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": SHADE,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
}


def figure(rows=None, columns=1, width=9.2):
    """A figure and its axes; with so many rows of dots, or for lines."""
    plt.rcParams.update(SETTINGS)
    height = 4.8 if rows is None else 2.1 + 0.36 * rows
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")


def dots(axes, rows, labels, zero=None, lost=None, lowest=None, names=True, logarithmic=True):
    """A row for each name, a mark for each label. Zeros stand at the left edge, what is no
    number at the right one, each in words.
    """
    known = [value for values in rows.values() for value in values if value]
    first = 10 ** math.floor(math.log10(min([*known, lowest or math.inf]) / 1.5)) if known else 1e-3
    last = 10 ** math.ceil(math.log10(max(known) * 1.5)) if known else 1.0
    if zero and any(value == 0 for values in rows.values() for value in values):
        first /= 10
    if any(value is None for values in rows.values() for value in values):
        last *= 10
    if logarithmic:
        axes.set_xscale("log")
        axes.set_xlim(first, last)
    else:
        axes.locator_params(axis="x", nbins=5)
    edges = math.log10(last / first)
    for place, (_, values) in enumerate(rows.items()):
        axes.axhline(place, color=SHADE, linewidth=14, zorder=0)
        for series, value in enumerate(values):
            height = place + 0.17 * (series - (len(values) - 1) / 2)
            at = first * 10 ** (0.02 * edges) if value == 0 else last / 10 ** (0.02 * edges) if value is None else value
            axes.plot(at, height, MARKS[series], color=SERIES[series], markersize=7, markeredgecolor="white", zorder=3)
        if 0 in values and zero:
            axes.text(first * 10 ** (0.045 * edges), place, zero, va="center", fontsize=8.5, color=INK)
        if None in values and lost:
            axes.text(last / 10 ** (0.045 * edges), place, lost, va="center", ha="right", fontsize=8.5, color=INK)
    axes.set_yticks(range(len(rows)), list(rows) if names else [""] * len(rows))
    for label in axes.get_yticklabels():
        label.set_fontweight("bold" if "pyadamw" in label.get_text() else "normal")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    if len(labels) > 1 and names:
        for series, label in enumerate(labels):
            axes.plot([], [], MARKS[series], color=SERIES[series], markersize=8, markeredgecolor="white", label=label)
        axes.figure.legend(loc="outside lower center", ncols=len(labels), fontsize=9)


def line(axes, who, x, y):
    colour, mark, dash = STYLES.get(who, (SOFT, ".", "-"))
    ours, step = who.startswith("pyadamw"), max(1, len(x) // 8)
    axes.plot(
        x,
        [math.nan if value is None else value for value in y],
        color=colour,
        linestyle=dash,
        marker=mark,
        markevery=(list(STYLES).index(who) % step if who in STYLES else 0, step),
        markersize=6,
        markeredgecolor="white",
        linewidth=2.2 if ours else 1.5,
        zorder=3 if ours else 2,
        label=who,
    )


def legend(axes):
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=9)


def note_at(axes, x, text, left=False):
    axes.text(x, 1.005, text, transform=axes.get_xaxis_transform(), ha="right" if left else "left", va="bottom",
              fontsize=8, color=SOFT)  # fmt: skip


def title(axes, text):
    axes.figure.suptitle(text + "\n", x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)


def save(drawn, path, content):
    versions = content["versions"]
    known = (
        f"{name} {versions[name]}" for name in ("torch", "bitsandbytes", "torchao", "flashoptim") if versions.get(name)
    )
    told = f"make laws, {content['date'][:10]}: {', '.join(known)}"
    below_the_title = 0.98 - 18 / (72 * drawn.get_figheight())
    drawn.text(0.01, below_the_title, told, va="top", fontsize=8, color=SOFT)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    plt.close(drawn)
