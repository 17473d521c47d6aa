"""Owns reading the records in tests/bench/results, and Markdown tables. Must not know which tables there are."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "bench" / "results"

CPU = {
    "2026-11-30-cpu-avx512-root-codes": "two cores of an EPYC with AVX-512",
    "2026-11-30-cpu-avx512-master-weights": "the same, another run",
    "2026-11-26-cpu-avx512-16-threads": "16 cores of a Xeon with AVX-512, before root codes",
}
GPU = "2026-11-26-gpu-h200-4"
PAGING = "2026-11-24-cpu-avx512"


def record(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def table(head, *rows):
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


def source(*names):
    return "\nSource: " + ", ".join(f"`tests/bench/results/{name}.json`" for name in names) + ".\n"


def figure(name, part):
    return next((x for x in record(name)["figures"] if x["name"] == part), None)


def ratio(name, part):
    """The median of the paired ratios, with the quartiles."""
    found = figure(name, part)
    if found is None:
        return "-"
    values = found["ratio"]
    return f"{values['median']:.2f} ({values['q1']:.2f} to {values['q3']:.2f})"


# ---- GPUs ----


def steps():
    return {(step["size"], step["who"], step["dtype"]): step for step in record(GPU)["gpu"]["steps"]}
