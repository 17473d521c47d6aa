"""Owns the command `python tests/bench`: its arguments and the order of things. It asserts nothing about time.

python tests/bench [--quick] [--only NAME ...] [--json FILE] [--threads N] [--keep-gradients] [--list]
"""

import argparse
import datetime
import sys
import warnings

import ceiling
import figures
import host
import machine
import paging
import peers
import report
import torch
import workloads

SECTIONS = [figure.name for figure in figures.FIGURES] + ["host", "paging", "peers"]


def _arguments():
    parser = argparse.ArgumentParser(
        prog="tests/bench", description="Speed of a step against torch and the memory's limit."
    )
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, few repetitions: shows that it works, no more"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only sections whose name contains one of these")
    parser.add_argument("--json", metavar="FILE", help="write the results there, too")
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as torch takes")
    parser.add_argument(
        "--keep-gradients", action="store_true", help="the same gradient tensors each step, not new ones"
    )
    parser.add_argument(
        "--seconds", type=float, default=12.0, metavar="S", help="aim for a figure (default: %(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="list the sections")
    arguments = parser.parse_args()
    if arguments.threads is not None and arguments.threads < 1:
        parser.error(f"--threads must be at least 1, not {arguments.threads}")
    chosen = [s for s in SECTIONS if arguments.only is None or any(part in s for part in arguments.only)]
    if not chosen:
        parser.error(f"--only matches nothing; there are: {', '.join(SECTIONS)}")
    return arguments, chosen


def main():
    arguments, chosen = _arguments()
    if arguments.list:
        print("\n".join(SECTIONS))
        return 0
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    least, most, budget = (3, 5, 0.5) if arguments.quick else (15, 400, arguments.seconds)
    settings = figures.Settings(arguments.quick, least, most, budget, arguments.keep_gradients, torch.get_num_threads())
    results = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "settings": settings._asdict(),
        "figures": [],
        "host": [],
        "paging": [],
        "peers": [],
    }
    report.print_machine(results["machine"], results["settings"])
    try:
        library = ceiling.build()
    except ceiling.NoCompilerError as error:
        library = None
        print(f"ceiling not measured: {error}")
    _measure(results, chosen, settings, library)
    if arguments.json:
        report.write(arguments.json, results)
        print(f"\nresults: {arguments.json}")
    return 0


def _measure(results, chosen, settings, library):
    for figure in figures.FIGURES:
        if figure.name in chosen:
            print(f"... {figure.name}", file=sys.stderr, flush=True)
            results["figures"].append(figures.measure_figure(figure, settings, library))
    if results["figures"]:
        report.print_figures(results["figures"], results["machine"])
    if "host" in chosen:
        results["host"] = [host.measure_host(count, settings) for count in host.COUNTS]
        report.print_host(results["host"])
    if "paging" in chosen:
        results["paging"] = paging.measure_all(settings)
        report.print_paging(results["paging"])
    if "peers" in chosen:
        results["peers"] = [peers.measure_peer(name, settings) for name in peers.PEERS]
        report.print_peers(results["peers"])


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)  # of the peers
    try:
        sys.exit(main())
    except workloads.WrongResultError as error:
        sys.exit(f"tests/bench: wrong result, not timed: {error}")
