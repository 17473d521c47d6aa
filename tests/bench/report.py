"""Owns showing results: the tables, and the JSON file that keeps them. Must not know how anything is measured.

The file: {"format": 1, "date": UTC, "machine": machine.describe(), "settings": {...}, "figures": [...], "host": [...],
"paging": [...], "peers": [...]}. Times are seconds, sizes bytes, every measured quantity is {"median", "q1", "q3"}. A
figure has name, title, device ("cpu" or "cuda"), dtype, tensors, elements, ours, rival, bar (or None), pairs, ratio
(ours / rival), seconds, rival_seconds, agreement, and ceiling: None or {median, q1, q3, bytes, rival_bytes, share,
pairs}, where share is the ceiling's time / the step's. Files of real runs are kept in results/, named after date and
device.
"""

import json
from pathlib import Path

FORMAT = 1

try:
    from rich.console import Console
    from rich.table import Table
except ImportError:
    Console = Table = None


def write(path, results):
    Path(path).write_text(json.dumps({"format": FORMAT, **results}, indent=1) + "\n")


def milliseconds(stat):
    return f"{stat['median'] * 1e3:.3g}"


def microseconds(stat):
    return f"{stat['median'] * 1e6:.0f}"


def with_quartiles(stat):
    return f"{stat['median']:.3f} ({stat['q1']:.3f} to {stat['q3']:.3f})"


def print_machine(machine, settings):
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "?"
    print(f"CPU     {machine['cpu']}, {machine['cores']} cores, {memory}, load {machine['load'][0]:.1f}")
    print(f"ours    {machine['build']}")
    rival = f"torch {machine['torch']} ({machine['torch_capability']})"
    print(f"kernel  {machine['kernel']}, {machine['threads']} threads; {rival}")
    if settings["quick"]:
        print("quick   small sizes and few repetitions: the figures say nothing about the bars")


def print_table(title, columns, rows):
    """Through rich where it is installed. `columns` are (heading, whether it is a number)."""
    print()
    if Table is None:
        lines = [[heading for heading, _ in columns], *rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
        print(title)
        for line in lines:
            cells = zip(line, widths, columns, strict=True)
            print("  ".join(c.rjust(w) if number else c.ljust(w) for c, w, (_, number) in cells).rstrip())
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading, number in columns:
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    # A pipe has no width of its own: the table shall not be squeezed there.
    (console if console.is_terminal else Console(highlight=False, markup=False, width=180)).print(table)


def _bar(figure):
    if figure["bar"] is None:
        return "-"
    return f"{figure['bar']:.2f} {'met' if figure['ratio']['median'] <= figure['bar'] else 'NOT met'}"


def _ceiling(figure):
    ceiling = figure["ceiling"]
    if ceiling is None:
        return ["-"] * 3
    speed = ceiling["bytes"] / ceiling["median"] / 1e9
    moved = f"{ceiling['bytes'] / ceiling['rival_bytes']:.2f}"
    return [f"{speed:.1f} GB/s", f"{ceiling['share']['median']:.2f} of the ceiling", moved]


def print_figures(figures, machine):
    rows = [
        [
            figure["title"],
            f"{figure['tensors']} x, {figure['elements'] / 1e6:.4g} M",
            milliseconds(figure["seconds"]),
            milliseconds(figure["rival_seconds"]),
            with_quartiles(figure["ratio"]),
            _bar(figure),
            *_ceiling(figure),
        ]
        for figure in figures
    ]
    columns = [
        ("what", False),
        ("size", True),
        ("ours ms", True),
        ("other ms", True),
        ("ours / other", True),
        ("bar", True),
    ]
    columns += [("ceiling", True), ("ours reaches", True), ("bytes ours / other", True)]
    print_table(
        f"step() against torch.optim.AdamW(fused=True), or as the first column says, kernel {machine['kernel']}",
        columns,
        rows,
    )
    if machine["kernel"] != "avx512":
        print("The bars are stated for AVX-512 processors; this run used another kernel.")


def print_host(results):
    names = ("tensors", "Python us, in a row", "Python us, after torch", "whole step us", "torch's whole step us")
    columns = [(name, True) for name in names]
    keys = ("python_in_a_row_seconds", "python_seconds", "step_seconds", "rival_step_seconds")
    rows = [[str(result["tensors"]), *(microseconds(result[key]) for key in keys)] for result in results]
    print_table(f"host time of step(), tensors of {results[0]['elements_each']} elements, AdamW32bit", columns, rows)


def print_paging(results):
    columns = [
        ("what", False),
        ("elements", True),
        ("ours ms", True),
        ("other ms", True),
        ("ratio", True),
        ("bar", False),
    ]
    rows = []
    for result in results:
        times = milliseconds(result["seconds"]), milliseconds(result["rival_seconds"])
        size = f"{result['elements'] / 1e6:.3g} M"
        verdict = f"{result['bar']} {'met' if result['met'] else 'NOT met'}"
        rows.append([result["title"], size, *times, with_quartiles(result["ratio"]), verdict])
    print_table("paging on the CPU", columns, rows)
    for result in results:
        if "bytes" in result:
            speed = result["bytes"] / result["seconds"]["median"] / 1e9
            print(
                f"{result['title']}: {result['bytes'] / 2**20:.0f} MiB a step, {speed:.2f} GB/s, "
                f"waiting {result['waiting_share']:.0%} of the time, "
                f"{result['resident_peak_bytes'] / 2**20:.0f} MiB resident"
            )


def print_peers(results):
    columns = [
        ("peer", False),
        ("version", False),
        ("elements", True),
        ("ours ms", True),
        ("theirs ms", True),
        ("ours / theirs", True),
    ]
    rows = []
    for result in results:
        if result["ratio"] is None:
            rows.append([result["name"], result["version"] or "-", "-", "-", "-", result["note"]])
        else:
            times = milliseconds(result["seconds"]), milliseconds(result["rival_seconds"])
            size = f"{result['elements'] / 1e6:.3g} M"
            rows.append([result["name"], result["version"], size, *times, with_quartiles(result["ratio"])])
    print_table("peers: AdamW8bit, one fp32 tensor", columns, rows)
