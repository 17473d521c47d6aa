"""Owns timing paged steps on a CUDA device: each backing with budgets of all, half and a tenth of the state, in turn
with the same step without pages. Must not know bars. At most 1 GiB of unified memory at a time.
"""

import statistics

import gpu_figures as figures
import torch

import pyadamw

BUDGETS = (1.0, 0.5, 0.1)
ELEMENTS, QUICK_ELEMENTS = 1 << 26, 1 << 23  # 8 bytes of state each: 512 MiB
TENSOR = 1 << 20
WINDOWS = 4 * (16 << 20)  # of a "pinned" manager; its budget holds them beside resident state


def _optimizer(elements, manager):
    params = [torch.nn.Parameter(torch.randn(TENSOR, device="cuda") * 0.02) for _ in range(elements // TENSOR)]
    for param in params:
        param.grad = torch.randn_like(param)
    options = {} if manager is None else {"is_paged": True, "page_manager": manager}
    return pyadamw.AdamW32bit(params, **options)


def measure(quick, budget, links):
    """One entry for each backing and budget: times, ratio to the unpaged step, bytes a second, share of the link."""
    elements = QUICK_ELEMENTS if quick else ELEMENTS
    state = 8 * elements
    plain = _optimizer(elements, None)
    entries = []
    for backing in ("managed", "pinned"):
        for part in BUDGETS:
            resident = int(state * part) + (WINDOWS if backing == "pinned" else 0)
            chunk = {"chunk_bytes": 16 << 20} if backing == "pinned" else {}
            manager = pyadamw.PageManager(backing, resident_bytes=resident, **chunk)
            entry = {"backing": backing, "budget": part, "state_bytes": state, "resident_bytes": resident, "note": None}
            entries.append(entry)
            try:
                before = torch.cuda.mem_get_info()[0]
                paged = _optimizer(elements, manager)
                own = 2 * 4 * elements  # parameters and gradients
                paged.step()
                torch.cuda.synchronize()
                entry["device_bytes"] = before - torch.cuda.mem_get_info()[0] - own
                start = manager.stats()
                times = figures.in_turn([paged.step, plain.step], budget)
                stop = manager.stats()
            except Exception as error:  # the benchmark goes on
                entry["note"] = f"{type(error).__name__}: {error}"
                continue
            ratio = figures.quartiles([a / b for a, b in zip(*times, strict=True)])
            steps = len(times[0]) + 2
            moved = (stop["bytes_in"] + stop["bytes_out"] - start["bytes_in"] - start["bytes_out"]) / steps
            if backing == "managed":  # beyond its budget state is used where it lies: read and written once
                moved += 2 * max(0, state - stop["resident_bytes"])
            speed = moved / statistics.median(times[0])
            entry.update(figures.quartiles(times[0]), ratio=ratio, moved_bytes=moved, bytes_per_second=speed)
            entry["share_of_link"] = speed / 1e9 / links["both"]
            entry["peak_bytes"] = stop["resident_peak_bytes"]
            del paged, manager
            torch.cuda.empty_cache()
    return entries


def show(entries):
    print(f"{'paged AdamW32bit':24}{'ms':>10}{'/ unpaged':>11}{'moved GB/s':>12}{'of link':>9}{'device MiB':>12}")
    for e in entries:
        name = f"{e['backing']} {e['budget']:.0%}"
        if e["note"]:
            print(f"{name:24}  {e['note']}")
        else:
            print(
                f"{name:24}{e['median'] * 1e3:10.3f}{e['ratio']['median']:11.3f}{e['bytes_per_second'] / 1e9:12.1f}"
                f"{e['share_of_link']:9.2f}{e['device_bytes'] / 2**20:12.0f}"
            )
