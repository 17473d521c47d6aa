"""Owns the tables of speed. Must not know how anything was measured."""

from records import CPU, GPU, PAGING, ratio, record, source, steps, table

WHO = {
    "8bit": "AdamW8bit",
    "32bit": "AdamW32bit",
    "torch fused": "torch's fused AdamW, state as its parameters",
    "bitsandbytes": "bitsandbytes 0.50.2, AdamW8bit",
}


def cpu():
    """A step against torch's fused AdamW on the same parameters."""
    parts = {
        "large-fp32-8bit": "67 M float32, AdamW8bit",
        "large-bf16-8bit": "67 M bfloat16, AdamW8bit",
        "large-fp32-32bit": "67 M float32, AdamW32bit",
        "small-fp32-32bit": "2000 tensors of 1000, AdamW32bit",
        "gpt2-304-8bit": "GPT-2 small's 304 tensors, AdamW8bit",
    }
    rows = [[what, *(ratio(name, part) for name in CPU)] for part, what in parts.items()]
    return table(["step time / torch's fused AdamW", *CPU.values()], *rows) + source(*CPU)


def additions():
    """What master weights, 16-bit state and clipping add to a step."""
    name = "2026-11-30-cpu-avx512-master-weights"
    parts = {
        "large-bf16-master32-alone": "bfloat16, `master_weight_bits=32` / without",
        "large-bf16-master24-alone": "bfloat16, `master_weight_bits=24` / without",
        "large-bf16-master32": "bfloat16, `master_weight_bits=32` / torch's fused AdamW on float32",
        "large-bf16-16bit": "bfloat16, AdamW16bit / torch's fused AdamW on bfloat16",
        "large-bf16-clip-alone": "bfloat16, AdamW8bit, `max_grad_norm` / without",
        "large-fp32-clip-alone": "float32, AdamW8bit, `max_grad_norm` / without",
        "gpt2-304-clip": "GPT-2 small's 304 tensors, `max_grad_norm` / torch's clipping and fused AdamW",
    }
    rows = [[what, ratio(name, part)] for part, what in parts.items()]
    return table(["step time, 67 M parameters, two cores of an EPYC", "ratio"], *rows) + source(name)


def gpu():
    """Milliseconds of a step on an H200, and bytes a second relative to a plain copy."""
    found = steps()

    def cell(size, who, dtype, field):
        step = found[size, who, dtype]
        text = f"{1e3 * step[field]:.2f}"
        return f"{text} ({step['share']:.2f})" if size == "large" else text

    columns = [("large", "fp32", "median"), ("large", "bf16", "median")]
    columns += [("gpt2-304", "bf16", "median"), ("gpt2-304", "bf16", "busy_median")]
    rows = [[name, *(cell(size, who, dtype, field) for size, dtype, field in columns)] for who, name in WHO.items()]
    head = ["ms", "2^30 float32", "2^30 bfloat16", "GPT-2 small's 304 tensors, bfloat16", "the same behind other work"]
    return table(head, *rows) + source(GPU)


def gpu_pages():
    """Paged state on an H200."""
    rows = {}
    for case in record(GPU)["gpu"]["paging"]:
        text = f"{1e3 * case['median']:.2f} ({case['ratio']['median']:.1f})"
        rows.setdefault(case["budget"], {})[case["backing"]] = text
    names = {1.0: "all", 0.5: "half", 0.1: "a tenth"}
    made = [[names[budget], cells["managed"], cells["pinned"]] for budget, cells in rows.items()]
    head = ["resident part of 512 MiB of state", '`"managed"`, ms (/ unpaged)', '`"pinned"`, ms (/ unpaged)']
    return table(head, *made) + source(GPU)


def links():
    rates = record(GPU)["gpu"]["links"]
    copy = record(GPU)["gpu"]["copy"]["bytes_per_second"]
    rows = [["device memory, a plain copy", f"{copy / 1e9:.0f}"]]
    rows += [[f"host link, {way}", f"{rate:.0f}"] for way, rate in rates.items()]
    return table(["H200", "GB/s"], *rows) + source(GPU)


def cpu_pages():
    rows = []
    for case in record(PAGING)["paging"]:
        seconds = f"{case['seconds']['median']:.3g} s / {case['rival_seconds']['median']:.3g} s"
        rows.append([case["title"], f"{case['elements'] >> 20} M", f"{case['ratio']['median']:.2f}", seconds])
    return table(["paged / what it is compared with", "parameters", "ratio", "times"], *rows) + source(PAGING)
