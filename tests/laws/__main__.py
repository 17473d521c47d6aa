"""Owns the command `python tests/laws`: its arguments and the order of things. It asserts nothing.

python tests/laws [--only LAW ...] [--optimizers PART ...] [--jobs N] [--save [FILE]] [--list]
python tests/laws --tables RECORD
python tests/laws --plots FOLDER RECORD
"""

import argparse
import sys
import time
from pathlib import Path

import record


def _arguments():
    parser = argparse.ArgumentParser(
        prog="tests/laws", description="What few bits of state do to training, measured against float32 state."
    )
    parser.add_argument("record", nargs="?", type=Path, metavar="RECORD", help="the file to draw (with --plots)")
    parser.add_argument("--only", nargs="+", metavar="LAW", help="only these laws")
    parser.add_argument("--optimizers", nargs="+", metavar="PART", help="only those whose name contains one of these")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes, of one thread each; default: all processors")
    parser.add_argument(
        "--save", nargs="?", type=Path, const=True, metavar="FILE",
        help="write the record; default: tests/bench/results/DATE-laws.json",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list laws and optimizers")
    parser.add_argument("--tables", type=Path, metavar="RECORD", help="print the tables of a record")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="draw the pictures of RECORD there, as SVG")
    arguments = parser.parse_args()
    if (arguments.plots is None) != (arguments.record is None):
        parser.error("--plots FOLDER RECORD: both are needed")
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    return parser, arguments


def main():
    parser, arguments = _arguments()
    if arguments.plots:
        import pictures

        for path in pictures.draw_all(record.read(arguments.record), arguments.plots):
            print(path)
        return 0
    if arguments.tables:
        import tables

        tables.print_all(record.read(arguments.tables))
        return 0
    return _measure(parser, arguments)


def _measure(parser, arguments):
    import contestants
    import lawbook
    import runner
    import tables

    wanted = arguments.only or list(lawbook.LAWS)
    if unknown := [name for name in wanted if name not in lawbook.LAWS]:
        parser.error(f"no law is named {unknown[0]!r}; there are: {', '.join(lawbook.LAWS)}")
    laws = {name: law for name, law in lawbook.LAWS.items() if name in wanted}
    jobs = [
        (name, who)
        for name, law in laws.items()
        for who in law.contestants
        if not arguments.optimizers or any(p in who for p in (*arguments.optimizers, contestants.REFERENCE))
    ]
    if arguments.list:
        print("\n".join(f"{name}: {law.title}. {', '.join(law.contestants)}" for name, law in laws.items()))
        return 0
    if not jobs:
        parser.error(f"no optimizer's name contains one of: {', '.join(arguments.optimizers)}; --list has them")
    start = time.monotonic()
    content = _described(contestants)
    content["laws"] = runner.measure_all(laws, jobs, arguments.jobs)
    content["seconds"] = round(time.monotonic() - start)
    tables.print_all(content)
    if arguments.save:
        default = contestants.ROOT / "tests" / "bench" / "results" / f"{record.today():%Y-%m-%d}-laws.json"
        path = default if arguments.save is True else arguments.save
        record.write(path, content)
        print(f"\nrecord: {path}")
    failed = [
        f"{name}: {who}" for name, part in content["laws"].items() for who in part["missing"] if _ours(laws[name], who)
    ]
    if failed:
        print(f"error: what is this project's or torch's must not fail: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _ours(law, who):
    return law.contestants[who].package in ("pyadamw", "torch")


def _described(contestants):
    import flashoptim_kernel
    import machine
    import tables

    packages = ("torch", "numpy", "bitsandbytes", "torchao", "flashoptim", "triton", "scikit-learn")
    return {
        "date": record.today().isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": {"pyadamw": contestants.pyadamw.__version__, **{p: contestants.version(p) for p in packages}},
        "changes": list(flashoptim_kernel.CHANGES),
        "notes": list(tables.NOTES),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except record.RecordError as error:
        sys.exit(f"error: {error}")
