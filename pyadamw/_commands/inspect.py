"""Owns `python -m pyadamw inspect`: what is in a checkpoint of an optimizer. Must not know how state is stored."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from typing import Any

from .._checks import shown
from .._findings import Finding, by_gravity, errors
from .._native.memory import is_out_of_memory
from .._optional import optional
from .._state import checkpoints
from .._state.noteworthy import noteworthy
from .._state.statistics import Statistics, statistics
from ..errors import AdamWError
from . import inspect_table
from .output import error, print_facts, print_findings, share, size, until_closed, with_progress

PICTURES = (".png", ".svg", ".pdf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, and how it is shown."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a file of torch.save() or safetensors, or a folder of torch.distributed.checkpoint; no code in it is run",
    )
    parser.add_argument("--key", help=checkpoints.KEY)
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    parser.add_argument("--plot", metavar="FILE", help=f"also draw the scales and codes ({', '.join(PICTURES)})")
    parser.add_argument(
        "--sort", choices=inspect_table.SORTS, default="file", help="default: %(default)s, the order there"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="a line for each parameter (otherwise, if there are more than "
        f"{inspect_table.ENOUGH}, those whose names differ only in numbers share one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints what is in the checkpoint. Returns 1 if it cannot be read, or if some of it cannot be loaded."""
    try:
        _check_picture(arguments.plot)
        checkpoint = checkpoints.opened(arguments.checkpoint, arguments.key)
        found = [statistics(parameter) for parameter in with_progress(checkpoint.parameters, "reading", transient=True)]
        findings = by_gravity(noteworthy(checkpoint.groups, found))
        if arguments.plot is not None:
            _draw(arguments, found)
    except (ValueError, OSError, AdamWError) as fault:
        return _failed(arguments, fault)
    except Exception as fault:
        if not is_out_of_memory(fault):
            raise
        return _failed(arguments, "out of memory")
    with until_closed():
        if arguments.json:
            print(json.dumps(_as_dict(arguments, checkpoint.key, found, findings)))
        else:
            _print(arguments, checkpoint.key, found, findings)
    refused = errors(findings)
    return error(refused[0].text) if refused else 0


def _failed(arguments: argparse.Namespace, fault: object) -> int:
    if arguments.json:
        print(json.dumps({**_as_dict(arguments, arguments.key, [], []), "error": " ".join(str(fault).split())}))
    return error(fault)


# ---- the picture -----------------------------------------------------------------------------------------------------


def _check_picture(path: str | None) -> None:
    """What can be wrong with --plot, before a large file is read."""
    if path is None:
        return
    if os.path.splitext(path)[1].lower() not in PICTURES:
        raise ValueError(f"--plot {path}: the name must end with {' or '.join(PICTURES)}")
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise ValueError(f"--plot {path}: there is no folder {folder}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ValueError(f"--plot {path}: is not a regular file")
    if not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise ValueError(f"--plot {path}: you have no permission to write it")
    if optional("matplotlib") is None:
        raise ValueError('--plot needs matplotlib: pip install "pyadamw[demo]"')


def _draw(arguments: argparse.Namespace, found: Sequence[Statistics]) -> None:
    from . import inspect_plot  # which imports matplotlib

    inspect_plot.draw(
        found, f"{os.path.basename(os.path.abspath(arguments.checkpoint))}: {_total(found)}", arguments.plot
    )


# ---- text and JSON ---------------------------------------------------------------------------------------------------


def _total(found: Sequence[Statistics]) -> str:
    numel, bytes_ = sum(one.numel for one in found), sum(one.bytes for one in found)
    each = f", {bytes_ / numel:.2f} bytes an element" if numel else ""
    return f"{_parameters(len(found))}, {numel:,} elements, {size(bytes_)} of state{each}"


def _print(
    arguments: argparse.Namespace, key: str | None, found: Sequence[Statistics], findings: list[Finding]
) -> None:
    where = "" if key is None else f" (key {key})"
    print(f"{arguments.checkpoint}{where}: {_total(found)}", end="\n\n")
    lines = inspect_table.lines(found, arguments.sort, arguments.all)
    inspect_table.print_lines(lines)
    if len(lines) < len(found):
        print(f"{len(found)} parameters in {len(lines)} lines; * stands for a number. --all has a line for each.")
    print()
    rows = [
        (name, f"{_parameters(count)}, {numel:,} elements, {size(bytes_)}")
        for name, (count, numel, bytes_) in _formats(found).items()
    ]
    steps = sorted({one.step for one in found if one.step is not None})
    rows += [("step", f"{steps[0]:.0f}" + (f" to {steps[-1]:.0f}" if len(steps) > 1 else ""))] if steps else []
    rows += [
        ("zeros", f"{share(_zeros(found, 'exp_avg'))} of exp_avg, {share(_zeros(found, 'exp_avg_sq'))} of exp_avg_sq")
    ]
    nonfinite = sum(one.nonfinite for one in found)
    rows += [("not finite", f"{nonfinite:,} number{'' if nonfinite == 1 else 's'}")]
    print_facts(rows)
    print()
    print_findings(findings or [Finding("ok", "state", "Nothing is noteworthy.")])


def _parameters(count: int) -> str:
    return f"{count:,} parameter{'' if count == 1 else 's'}"


def _zeros(found: Sequence[Statistics], moment: str) -> float | None:
    counted = [(one.moments[moment].zeros, one.numel) for one in found if moment in one.moments]
    known = [(zeros, numel) for zeros, numel in counted if zeros is not None]
    numel = sum(numel for _, numel in known)
    return sum(zeros for zeros, _ in known) / numel if numel else None


def _formats(found: Sequence[Statistics]) -> dict[str, tuple[int, int, int]]:
    """{format: (parameters, elements, bytes)}"""
    totals: dict[str, tuple[int, int, int]] = {}
    for one in found:
        count, numel, bytes_ = totals.get(one.format or "no state", (0, 0, 0))
        totals[one.format or "no state"] = (count + 1, numel + one.numel, bytes_ + one.bytes)
    return totals


def _as_dict(
    arguments: argparse.Namespace, key: str | None, found: Sequence[Statistics], findings: Sequence[Finding]
) -> dict[str, Any]:
    order = inspect_table.ordered(found, arguments.sort)
    return {
        "checkpoint": arguments.checkpoint,
        "key": key,
        "error": None,
        "parameters": [_as_dict_of(one) for one in order],
        "totals": {
            "parameters": len(found),
            "elements": sum(one.numel for one in found),
            "bytes": sum(one.bytes for one in found),
            "nonfinite": sum(one.nonfinite for one in found),
            "exp_avg_zeros": _zeros(found, "exp_avg"),
            "exp_avg_sq_zeros": _zeros(found, "exp_avg_sq"),
            "formats": {
                name: dict(zip(("parameters", "elements", "bytes"), counts, strict=True))
                for name, counts in _formats(found).items()
            },
        },
        "findings": [finding.as_dict() for finding in findings],
    }


def _as_dict_of(one: Statistics) -> dict[str, Any]:
    def known(number: float | None) -> float | None:
        return number if number is None or math.isfinite(number) else None

    return {
        "key": one.key if isinstance(one.key, (int, str)) else shown(one.key),
        "name": one.name,
        "shape": None if one.shape is None else list(one.shape),
        "optimizer": one.optimizer or None,
        "format": one.format or None,
        "bytes": one.bytes,
        "step": known(one.step),
        "master_weight_bits": one.master_weight_bits,
        "nonfinite": one.nonfinite,
        "refused": one.refused or None,
        "moments": {
            name: {
                "format": moment.format,
                "bits": moment.bits,
                "zeros": None if moment.zeros is None or not one.numel else moment.zeros / one.numel,
                "largest": known(moment.largest),
                "nonfinite": moment.nonfinite,
                "codes_used": moment.codes_used,
                "scales": None if moment.scales is None else moment.scales._asdict(),
            }
            for name, moment in one.moments.items()
        },
    }
