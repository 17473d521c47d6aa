"""Owns the pictures of a record: one for each law, as SVG on a white card. Must not know how anything is measured."""

import math

import pictures_style as style


def _worst(law, value):
    """The name and value of the optimizer of others that is farthest from right."""
    known = {
        who: value(result) for who, result in law["results"].items() if not who.startswith(("pyadamw", "torch fl"))
    }
    known = {who: found for who, found in known.items() if found is not None}
    return max(known.items(), key=lambda item: abs(math.log(item[1] or 1e-9)), default=(None, None))


def ten_steps(law):
    figure, axes = style.figure(rows=len(law["results"]))
    kinds = {
        "normal": "normal gradients",
        "sparse": "sparse (30% are not zero)",
        "heavy": "heavy-tailed (normal times e to 3 normal)",
    }
    rows = {who: [result[kind]["largest"] for kind in kinds] for who, result in law["results"].items()}
    style.dots(axes, rows, list(kinds.values()), lost="NaN")
    steps = law["sizes"]["steps"]
    axes.axvline(1e-3 * steps, **style.LINE)
    style.note_at(axes, 1e-3 * steps, f"{steps} learning rates")
    axes.set_xlabel("largest difference of a parameter from the float32 run (median of 9 seeds; lr 0.001)")
    style.title(axes, "A v that becomes zero beside a momentum that does not throws parameters far away")
    return figure


def falling(law):
    figure, axes = style.figure()
    for who, result in law["results"].items():
        curve = [row for row in result["curve"] if row[0] > -300 and row[1] is not None]
        style.line(axes, who, [row[0] for row in curve], [row[1] for row in curve])
    axes.axhline(1, **style.LINE)
    axes.axvline(0, **style.LINE)
    axes.set_ylim(0, 1.25)
    axes.set_xlabel("steps since the gradients of half of each block fell tenfold")
    axes.set_ylabel("size of these updates / float32 (1 is right)")
    worst, value = _worst(law, lambda result: result["fallen"])
    found = f": down to {value:.2f} of an update with {worst}" if worst else ""
    style.title(axes, f"Rounding v to the nearest code stalls it{found}")
    style.legend(axes)
    return figure


def stopped(law):
    figure, axes = style.figure()
    lr = 1e-3
    for who, result in law["results"].items():
        style.line(axes, who, [row[0] for row in result["curve"]], [_over(row[2], lr) for row in result["curve"]])
    curve = next(iter(law["results"].values()), {"curve": []})["curve"]
    axes.plot([row[0] for row in curve], [row[1] / lr for row in curve], label="torch float32", **style.REFERENCE)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("steps since the gradients of half of each block stopped")
    axes.set_ylabel("mean distance moved since, in learning rates")
    worst, value = _worst(law, lambda result: result["moved"])
    found = f": {value:.0f} times too far with {worst}" if worst else ""
    style.title(axes, f"A momentum that cannot decay goes on pushing{found}")
    style.legend(axes)
    return figure


def _over(value, unit):
    return None if value is None else value / unit


def zero(law):
    figure, axes = style.figure(rows=len(law["results"]))
    rows = {who: [result["farthest"]] for who, result in law["results"].items()}
    style.dots(axes, rows, ["farthest of all that had no gradient"], zero="exactly 0", lost="NaN", lowest=1e-2)
    axes.set_xlabel(f"distance moved in {law['sizes']['steps']} steps, in learning rates")
    moved = [who for who, result in law["results"].items() if result["farthest"] != 0]
    shares = {who: law["results"][who]["share"] for who in moved}
    found = ", ".join(f"with {who} {'all' if s > 0.995 else f'{s:.0%}'} of it does" for who, s in shares.items())
    style.title(
        axes,
        f"What never had a gradient must not move: {found}" if moved else "What never had a gradient does not move",
    )
    return figure


def embedding(law):
    figure, (left, right) = style.figure(rows=len(law["results"]), columns=2)
    sizes = ["6e-05", "6e-07"]
    labels = ["gradients of 6e-5 an element", "gradients of 6e-7"]
    results = law["results"]
    style.dots(left, {who: [r[s]["error"] for s in sizes] for who, r in results.items()}, labels, lost="NaN")
    style.dots(
        right, {who: [r[s]["largest"] for s in sizes] for who, r in results.items()}, labels, lost="NaN", names=False
    )
    left.set_xlabel("displacement error / displacement")
    right.set_xlabel("largest single update, in learning rates")
    wide = next((r[sizes[0]]["largest_float32"] for r in results.values()), None)
    if wide:
        right.axvline(wide, **style.LINE)
        style.note_at(right, wide, "float32")
    worst, value = _worst(law, lambda result: max(result[s]["largest"] or 0 for s in sizes))
    found = f"one update of {value:.0f} learning rates with {worst}" if worst else "the largest update"
    style.title(left, f"Embedding rows that are seldom seen: {found}")
    return figure


def noise(law):
    figure, (left, right) = style.figure(rows=len(law["results"]) + 1, columns=2, width=11)
    labels = ["gradients of one size", "of lognormal sizes"]
    style.dots(left, {who: [r["one_size"], r["lognormal"]] for who, r in law["results"].items()}, labels, lost="NaN")
    left.set_xlabel(f"displacement error after {law['sizes']['steps']} steps, lr 1e-5")
    for who, result in law["results"].items():
        style.line(right, who, [row[0] for row in result["curve"]], [row[1] for row in result["curve"]])
    right.set_xscale("log")
    right.set_yscale("log")
    right.invert_xaxis()
    right.set_xlabel("gradients, as a share of the block's largest")
    right.set_ylabel("spread of sqrt(v / v of float32)")
    style.legend(right)
    style.title(left, "What 8 bits cost in noise: little where sizes are alike; unlike sizes separate the formats")
    return figure


def weights(law):
    figure, axes = style.figure(rows=len(law["results"]))
    rows = {who: [setting["error"] for setting in result["settings"]] for who, result in law["results"].items()}
    labels = [f"lr {lr:g}, {steps} steps" for lr, steps in law["sizes"]["settings"]]
    style.dots(axes, rows, labels, zero="exactly 0", lost="NaN", lowest=1e-3)
    axes.axvline(1, **style.LINE)
    style.note_at(axes, 1, "nothing arrives, or noise as large as the way", left=True)
    axes.set_xlabel("error of the displacement / displacement of float32 weights")
    style.title(axes, "bfloat16 weights alone lose small updates; 24 bits rounded without bias keep them")
    return figure


def digits(law):
    figure, (left, right) = style.figure(rows=len(law["results"]), columns=2)
    labels = [f"seed {seed}" for seed in range(law["sizes"]["seeds"])]
    losses, largest = ({who: r[key] for who, r in law["results"].items()} for key in ("losses", "largest"))
    style.dots(left, losses, labels, lost="NaN", logarithmic=False)
    style.dots(right, largest, labels, lost="NaN", names=False)
    left.set_xlabel("loss on held-out digits, in nats")
    right.set_xlabel("largest weight after training")
    wide = largest.get("torch float32")
    found = "training ends as with float32"
    if wide and None not in wide:
        right.axvline(max(wide), **style.LINE)
        style.note_at(right, max(wide), "float32")
        if any(value is None or value > 10 * max(wide) for values in largest.values() for value in values):
            found = "the losses hide weights that exploded"
    style.title(left, f"Digits, with pixels that are nearly always zero: {found}")
    return figure


PICTURES = {
    "ten_steps": ten_steps,
    "falling": falling,
    "stopped": stopped,
    "zero": zero,
    "embedding": embedding,
    "noise": noise,
    "weights": weights,
    "digits": digits,
}


def draw_all(content, folder, kind="svg"):
    """Draws each law that was measured; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, law in content["laws"].items():
        if law["results"]:
            paths.append(folder / f"law-{name.replace('_', '-')}.{kind}")
            style.save(PICTURES[name](law), paths[-1], content)
    return paths
