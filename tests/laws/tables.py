"""Owns the tables of a record, and what a reader must know beside them. Must not know how anything is measured."""

NOTES = (
    "Every optimizer is its own code, of the version named, on a CPU. The reference is torch.optim.AdamW with float32 "
    "state, on the same gradients.",
    "bitsandbytes' CPU code stores a zero as about 2e-5 of its block's largest, so no moment is ever zero. torchao "
    "rounds by the same map, with a zero that is zero. The CUDA code of neither ran here.",
    "torchao compiles its step; here it runs without, which is the same arithmetic.",
    "FlashOptim's scales are float16. A gradient above 655,000 makes one infinite; heavy-tailed ones reach a million.",
    "torch holds bfloat16 state for bfloat16 parameters alone. Here these hold one update each, which is added to "
    "float32 weights: so its state is judged without the rounding of its weights.",
)


def number(value, digits=3):
    if value is None:
        return "NaN"
    if value == 0:
        return "0"
    text = f"{value:.{digits - 1}e}" if abs(value) < 1e-3 or abs(value) >= 1e4 else f"{value:#.{digits}g}".rstrip(".")
    return text.replace("e-0", "e-").replace("e+0", "e")


def _median(part):
    """A median, or in how many seeds there was none."""
    lost = sum(value is None for value in part["seeds"])
    return number(part["largest"]) + (f", in {lost} of {len(part['seeds'])} seeds" if lost else "")


def _ten_steps(result):
    return {f"{kind}: largest (mean)": f"{_median(part)} ({number(part['mean'])})" for kind, part in result.items()}


def _falling(result):
    names = {"fallen": "updates, fallen half", "others": "updates, other half", "v_ratio": "v, fallen half"}
    return {f"{text} / float32": number(result[key]) for key, text in names.items()}


def _stopped(result):
    return {
        "moved / float32": number(result["moved"]),
        f"farthest, in lr (float32: {number(result['farthest_float32'])})": number(result["farthest"]),
    }


def _zero(result):
    return {"farthest, in lr": number(result["farthest"]), "share that moved": number(result["share"])}


def _embedding(result):
    cells = {}
    for size, part in result.items():
        cells[f"gradients of {size}: displacement error"] = number(part["error"])
        cells[f"largest update, in lr (float32: {number(part['largest_float32'])})"] = number(part["largest"])
    return cells


def _noise(result):
    cells = {
        "displacement error, one size": number(result["one_size"]),
        "lognormal sizes": number(result["lognormal"]),
    }
    for share, spread, mean, _ in result["curve"]:
        cells[f"v / float32's at {share:g} of the largest: spread of the root (mean)"] = (
            f"{number(spread, 2)} ({number(mean)})"
        )
    return cells


def _weights(result):
    return {
        f"lr {s['lr']:g}, {s['steps']} steps: error (arrives)": f"{number(s['error'])} ({number(s['arrives'])})"
        for s in result["settings"]
    }


def _digits(result):
    cells = {f"loss, seed {seed}": number(loss) for seed, loss in enumerate(result["losses"])}
    known = [loss for loss in result["losses"] if loss is not None]
    return {
        **cells,
        "mean": number(sum(known) / len(known)) if len(known) == len(result["losses"]) else "NaN",
        "largest weight": number(None if None in result["largest"] else max(result["largest"])),
    }


CELLS = {
    "ten_steps": _ten_steps,
    "falling": _falling,
    "stopped": _stopped,
    "zero": _zero,
    "embedding": _embedding,
    "noise": _noise,
    "weights": _weights,
    "digits": _digits,
}


def table(name, law):
    """The lines of a law's table, in Markdown."""
    rows = {
        who: {**CELLS[name](result), "kept": "yes" if law["kept"][who] else "no"}
        for who, result in law["results"].items()
    }
    if not rows:
        return []
    columns = list(next(iter(rows.values())))
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    return lines + [f"| {who} | {' | '.join(cells.values())} |" for who, cells in rows.items()]


def print_all(content):
    versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in content["versions"].items())
    print(f"{content['date']}, {content['machine']['cpu']}, {content['machine']['kernel']}\n{versions}")
    for name, law in content["laws"].items():
        print(f"\n## {law['title']}\n{law['promise']}\n")
        print("\n".join(table(name, law)))
        for who, why in law["missing"].items():
            print(f"not measured: {who} ({why})")
    print("\n## Beside the tables")
    for note in content["notes"]:
        print(f"- {note}")
    if content["versions"]["flashoptim"]:
        print("- What was not FlashOptim's own:")
        for change in content["changes"]:
            print(f"  - {change}")
