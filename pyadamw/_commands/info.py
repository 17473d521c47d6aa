"""Owns `python -m pyadamw info`: what is installed here, what is wrong with it, and how to mend it. Must not know how
any of it works.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from .._diagnosis import doctor
from .._findings import by_gravity, errors
from .output import print_facts, print_findings, size, until_closed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Text or JSON."""
    parser.add_argument("--json", action="store_true", help="print facts and findings as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Prints the facts for a bug report, and what is wrong. Returns 1 if pyadamw does not work here."""
    facts = doctor.facts()
    findings = by_gravity(doctor.findings(facts))
    with until_closed():
        if arguments.json:
            print(json.dumps({"facts": facts, "findings": [finding.as_dict() for finding in findings]}, indent=2))
        else:
            print_facts(_rows(facts))
            print()
            print_findings(findings)
    wrong = errors(findings)
    for finding in wrong:
        print(f"error: {finding.text} {finding.cure}".strip(), file=sys.stderr)
    return 1 if wrong else 0


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    library, processors, memory, pages = (facts[name] for name in ("library", "processors", "memory", "file_pages"))
    yield "pyadamw", facts["pyadamw"]
    yield "torch", f"{facts['torch']}, CUDA {facts['torch_cuda'] or 'none'}"
    yield "python", facts["python"]
    yield "machine", facts["machine"]
    if library["path"] is not None:
        yield "library", library["path"]
        yield "build", library["build"]
    tried = [f"{one['path']} ({'there' if one['exists'] else 'missing'})" for one in library["candidates"]]
    yield "looked for", ", ".join(tried)
    if library["kernel"] is not None:
        yield "kernel", library["kernel"]
    quota = "" if processors["quota"] is None else f", quota {processors['quota']:g}"
    threads = f"torch {facts['threads']['torch']}, libadamw {facts['threads']['libadamw'] or 'unknown'}"
    yield "threads", f"{threads}; {processors['usable']} of {processors['machine']} processors{quota}"
    yield "openmp", ", ".join(facts["openmp"]) or "none is loaded"
    limit = "" if memory["limit"] is None else f", limited to {size(memory['limit'])}"
    yield "memory", f"{_size(memory['available'])} free of {_size(memory['total'])}{limit}"
    locked = facts["limits"]["locked_memory_bytes"]
    yield "locked", "no limit of locked memory" if locked is None else f"{size(locked)} of memory may be locked"
    yield "file pages", f"{pages['directory']} ({pages['file_system'] or 'unknown'}), {_size(pages['free_bytes'])} free"
    driver = facts["driver"]
    yield "driver", (driver["version"] or "NVIDIA's, version unknown") if driver["present"] else "no NVIDIA driver"
    for place, gpu in enumerate(facts["gpus"] or []):
        yield (
            f"gpu {place}",
            f"{gpu['name']}, compute capability {gpu['compute_capability']}, {size(gpu['memory_bytes'])}, pages: "
            f"{gpu['default_pages']}",
        )
    yield "packages", ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version) or "none"


def _size(count: int | None) -> str:
    return "unknown" if count is None else size(count)
