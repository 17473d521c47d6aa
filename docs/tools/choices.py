"""Owns what each choice of class, width and master weights takes: bytes by the library's rules, times as measured."""

from records import CPU, GPU, figure, source, steps, table

MARKS = ("<!-- figures: begin -->", "<!-- figures: end -->")


def bytes_of(bits, remainder=0, amsgrad=False):
    """Bytes of state a parameter of a large tensor: what the library's own layout says."""
    from pyadamw._native.constants import BLOCK8, FORMAT_OF_BITS
    from pyadamw._native.library import ffi, library

    numel, layout = 1 << 30, ffi.new("adamw_state_layout *")
    library().check(
        library().lib.adamw_get_state_layout(FORMAT_OF_BITS.get(bits, BLOCK8), numel, 4096, amsgrad, remainder, layout)
    )
    return layout.total_bytes / numel


def substitutions():
    """What pages write as {{ name }}."""
    made = {f"state{bits}": plain(bytes_of(bits)) for bits in (8, 16, 32)}
    return made | {f"amsgrad{bits}": plain(bytes_of(bits, amsgrad=True)) for bits in (8, 16, 32)}


def choices():
    """(name, bytes of the weight, the remainder, the state, the gradient) of each choice."""
    rows = [("torch.optim.AdamW, float32", 4, 0, 8, 4)]
    for bits in (32, 16, 8):
        rows.append((f"AdamW{bits}bit, float32", 4, 0, bytes_of(bits), 4))
    rows.append(("torch.optim.AdamW, bfloat16", 2, 0, 4, 2))
    for bits in (32, 16, 8):
        for master in (32, 24):
            more = bytes_of(bits, master - 16) - bytes_of(bits)
            rows.append((f"AdamW{bits}bit, bfloat16, master_weight_bits={master}", 2, more, bytes_of(bits), 2))
        rows.append((f"AdamW{bits}bit, bfloat16 alone", 2, 0, bytes_of(bits), 2))
    return sorted(rows, key=lambda row: -sum(row[1:]))


# What was measured of the choices: the record of a CPU with its part and whose time it is, and the H200's row.
MEASURED = {
    "torch.optim.AdamW, float32": (("large-fp32-32bit", "rival_seconds"), ("torch fused", "fp32")),
    "AdamW32bit, float32": (("large-fp32-32bit", "seconds"), ("32bit", "fp32")),
    "AdamW8bit, float32": (("large-fp32-8bit", "seconds"), ("8bit", "fp32")),
    "torch.optim.AdamW, bfloat16": (("large-bf16-8bit", "rival_seconds"), ("torch fused", "bf16")),
    "AdamW32bit, bfloat16 alone": (None, ("32bit", "bf16")),
    "AdamW8bit, bfloat16 alone": (("large-bf16-8bit", "seconds"), ("8bit", "bf16")),
    "AdamW16bit, bfloat16 alone": (("large-bf16-16bit", "seconds"), None),
    "AdamW8bit, bfloat16, master_weight_bits=32": (("large-bf16-master32-alone", "seconds"), None),
    "AdamW8bit, bfloat16, master_weight_bits=24": (("large-bf16-master24-alone", "seconds"), None),
}


def times(name):
    """Milliseconds of a step: 67 M parameters on two cores, 2^30 on an H200."""
    on_cpu, on_gpu = MEASURED.get(name, (None, None))
    made = ["-", "-"]
    if on_cpu:
        part, whose = on_cpu
        record_of = next(x for x in list(CPU)[:2] if figure(x, part))
        made[0] = f"{1e3 * figure(record_of, part)[whose]['median']:.0f}"
    if on_gpu:
        made[1] = f"{1e3 * steps()[('large', *on_gpu)]['median']:.1f}"
    return made


def plain(number):
    """A number of bytes: 2.05, 4, 0."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def bytes_table():
    rows = []
    for name, *parts in choices():
        who, rest = name.split(", ", 1)
        rows.append([f"`{who}`, {rest}", *map(plain, parts), f"**{plain(sum(parts))}**", *times(name)])
    head = [
        "bytes a parameter",
        "weight",
        "master",
        "state",
        "gradient",
        "sum",
        "ms, 67 M, two cores",
        "ms, 2^30, H200",
    ]
    return table(head, *rows) + source(*list(CPU)[:2], GPU)


def bytes_picture(target):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names, *_ = zip(*choices(), strict=True)
    shown = [f"{name.replace('master_weight_bits=', 'master ')}" for name in names]
    figure, axes = pyplot.subplots(figsize=(8.2, 5.0), layout="constrained")
    left = [0.0] * len(names)
    parts = {"weight": "#3b6ea8", "master bits": "#7fa8d6", "state": "#d98c3f", "gradient": "#9a9a9a"}
    for number, (part, colour) in enumerate(parts.items(), start=1):
        width = [row[number] for row in choices()]
        axes.barh(shown, width, left=left, color=colour, label=part, edgecolor="white", linewidth=0.6)
        left = [a + b for a, b in zip(left, width, strict=True)]
    for y, total in enumerate(left):
        axes.text(total + 0.12, y, f"{total:.2f}", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 18)
    axes.set_xlabel("bytes a parameter while training (activations not counted)")
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})
    pyplot.close(figure)


def readme_table():
    """Bytes and speed of the main choices, for the README."""
    found = steps()

    def milliseconds(who, dtype):
        return f"{1e3 * found['large', who, dtype]['median']:.1f}"

    def on_cpu(part):
        values = [figure(name, part) for name in list(CPU)[:2]]
        medians = sorted(f"{x['ratio']['median']:.2f}" for x in values if x)
        return " to ".join(dict.fromkeys([medians[0], medians[-1]]))

    eight = bytes_of(8)
    rows = [
        ["`torch.optim.AdamW`, float32", "16", milliseconds("torch fused", "fp32"), "1"],
        ["`AdamW32bit`, float32", "16", milliseconds("32bit", "fp32"), on_cpu("large-fp32-32bit")],
        ["`AdamW8bit`, float32", f"{8 + eight:.2f}", milliseconds("8bit", "fp32"), on_cpu("large-fp32-8bit")],
        [
            "`AdamW8bit`, bfloat16, `master_weight_bits=32`",
            f"{4 + bytes_of(8, 16):.2f}",
            "not yet measured",
            on_cpu("large-bf16-master32"),
        ],
        ["`AdamW8bit`, bfloat16, `master_weight_bits=24`", f"{4 + bytes_of(8, 8):.2f}", "not yet measured", "-"],
        ["`AdamW8bit`, bfloat16 alone", f"{4 + eight:.2f}", milliseconds("8bit", "bf16"), "-"],
    ]
    head = ["", "bytes a parameter", "H200: ms for 2^30", "two CPU cores: time / torch, float32"]
    return table(head, *rows)


def with_readme_table(text):
    begin, end = MARKS
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}\n{readme_table()}{end}{after}"
