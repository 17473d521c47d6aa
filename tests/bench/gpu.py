"""Owns the command `python tests/bench/gpu.py`: what a CUDA device's steps take, beside the card's own copy ceiling and
the peers, all in one process and in turn. It asserts nothing about time; make gpu runs it.

python tests/bench/gpu.py [--json FILE] [--elements N] [--quick]
"""

import argparse
import contextlib
import datetime
import math
import os
import subprocess

import gpu_figures as figures
import gpu_paging
import machine
import report
import torch
import workloads

import pyadamw

BUDGETS = {False: 1.0, True: 0.2}  # seconds of each contestant in each contest, by whether it is to be quick
BARS = [  # what the project aims at on a data-centre card: (figure, at most or at least, number)
    ("large-fp32-8bit share of the copy ceiling", ">=", 0.90),
    ("large-fp32-32bit share of the copy ceiling", ">=", 0.90),
    ("large-bf16-32bit share of the copy ceiling", ">=", 0.90),
    ("large-bf16-8bit share of the copy ceiling", ">=", 0.75),
    ("large-bf16-8bit / torch fused", "<=", 0.80),
    ("large-bf16-8bit / bitsandbytes", "<=", 0.6),
    ("gpt2-304-bf16-8bit / bitsandbytes", "<=", 0.2),
    ("large-bf16-8bit+16 ms of 2^30 elements", "<=", 4.0),
    ("large-bf16-8bit+8 ms of 2^30 elements", "<=", 3.5),
    ("gpt2-304 host microseconds", "<=", 150.0),
    ("pinned 10% share of the link", ">=", 0.85),
    ("managed 100% / unpaged", "<=", 1.05),
]


def driver_version():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip() or None
    return None


def describe():
    result = machine.describe()
    properties = torch.cuda.get_device_properties(0)
    result.update(
        gpu=properties.name,
        gpu_memory_bytes=properties.total_memory,
        multiprocessors=properties.multi_processor_count,
        driver=driver_version(),
        torch_cuda=torch.version.cuda,
    )
    return result


def sizes(elements):
    """{what it is called: the shapes of its tensors}"""
    return {
        "large": [(elements,)],
        "gpt2-304": workloads.gpt2_shapes(True),
        "small-2000": [(1000,)] * 2000,
    }


def measure(elements, quick):
    """The results, and the numbers that BARS names."""
    budget = BUDGETS[quick]
    found, results = {}, {"copy": figures.copy_ceiling(elements, budget), "links": figures.links(quick), "steps": []}
    shapes = sizes(elements)
    host = figures.HostTimes(
        [
            (who, tensors)
            for who in (pyadamw.AdamW32bit, pyadamw.AdamW8bit)  # of the second, small tensors are a call of their own
            for tensors in ([(10000,)], shapes["gpt2-304"])
        ],
        10 if quick else 30,
    )
    host.round()
    for size, tensors in shapes.items():
        for dtype in (torch.float32, torch.bfloat16):
            entries = figures.contest(tensors, dtype, budget, size)
            copies = [entry["bytes"] / entry["median"] for entry in entries if entry["who"] == "copy"]
            copy = copies[0] if copies else results["copy"]["bytes_per_second"]
            for entry in entries:
                results["steps"].append(entry)
                if entry["median"] is None:
                    continue
                entry["share"] = entry["bytes"] / entry["median"] / copy
                name = f"{size}-{entry['dtype']}-{entry['who']}"
                found[f"{name} share of the copy ceiling"] = entry["share"]
                found[name] = entry["median"]
                found[f"{name} ms of 2^30 elements"] = entry["median"] * 1e3 / entry["elements"] * (1 << 30)
        host.round()
    for name in list(found):
        if name.endswith("-8bit"):
            for rival in ("torch fused", "bitsandbytes"):
                theirs = found.get(name.removesuffix("8bit") + rival)
                if theirs:
                    found[f"{name} / {rival}"] = found[name] / theirs
    results["paging"] = gpu_paging.measure(quick, budget, results["links"])
    for entry in results["paging"]:
        if entry["note"] is None:
            name = f"{entry['backing']} {entry['budget']:.0%}"
            found[f"{name} share of the link"] = entry["share_of_link"]
            found[f"{name} / unpaged"] = entry["ratio"]["median"]
    host.round()
    results["host"] = host.results()
    found["gpt2-304 host microseconds"] = results["host"][-1]["median"] * 1e6
    return results, found


def judge(found):
    rows = []
    for name, sign, bar in BARS:
        value = found.get(name)
        met = None if value is None else value >= bar if sign == ">=" else value <= bar
        rows.append({"name": name, "bar": f"{sign} {bar}", "value": value, "met": met})
    return rows


def show(results, rows):
    print(f"copy {results['copy']['bytes_per_second'] / 1e9:.0f} GB/s; links {results['links']}")
    print(f"{'':44}{'ms':>10}{'GB/s':>8}{'of copy':>9}{'busy ms':>10}")
    for e in results["steps"]:
        name = f"{e['size']} {e['dtype']} {e['who']}"
        if e["median"] is None:
            print(f"{name:44}  {e['note']}")
        else:
            busy = "" if e["busy_median"] is None else f"{e['busy_median'] * 1e3:10.4f}"
            print(f"{name:44}{e['median'] * 1e3:10.4f}{e['bytes'] / e['median'] / 1e9:8.0f}{e['share']:9.2f}{busy}")
    gpu_paging.show(results["paging"])
    for e in results["host"]:
        whole, library, again = (part["median"] * 1e6 for part in (e, e["library"], e["same_gradients"]))
        what = f"{e['who']}, {e['tensors']} tensors, {e['calls']} calls"
        print(f"host time of step(), {what}: {whole:.0f} us; with the same gradients {again:.0f} us")
        print(f"{'':16}of the first, in the library and the driver: {library:.0f} us")
        print(f"{'':16}medians of all rounds: " + ", ".join(f"{median * 1e6:.0f}" for median in e["medians"]))
    for row in rows:
        value = "not measured" if row["value"] is None else f"{row['value']:.3f}"
        verdict = {None: "", True: "met", False: "NOT met"}[row["met"]]
        print(f"{row['name']:50}{value:>14}  {row['bar']:8} {verdict}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="tests/bench/gpu.py", description="Speed of a step on a CUDA device.")
    parser.add_argument("--json", metavar="FILE", help="write the results there, too")
    parser.add_argument("--elements", type=int, default=1 << 30, help="of the large tensor, at most (default 2^30)")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions: shows that it works")
    o = parser.parse_args(arguments)
    free = torch.cuda.mem_get_info()[0]
    # All contestants at once, each with its own parameters, gradients and state, take up to 60 bytes an element.
    elements = min(o.elements, 1 << 22 if o.quick else o.elements, 1 << int(math.log2(free / 66)))
    about = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": describe(),
        "settings": {"elements": elements, "quick": o.quick, "pyadamw": pyadamw.__version__},
    }
    results, found = measure(elements, o.quick)
    rows = judge(found)
    if o.json:
        os.makedirs(os.path.dirname(os.path.abspath(o.json)), exist_ok=True)
        report.write(o.json, {**about, "gpu": results, "bars": rows})
    show(results, rows)
    if o.json:
        print(f"results: {o.json}")


if __name__ == "__main__":
    main()
