"""Owns the order of the facts and findings of the doctor. Must not know any of them."""

from __future__ import annotations

from typing import Any

from .._findings import Finding
from . import disk, gpu, host, packages, shared_library


def facts() -> dict[str, Any]:
    """All facts, as values of JSON; the keys stay the same, and a value that cannot be had is None."""
    found: dict[str, Any] = packages.facts()
    found.update(shared_library.facts())
    found.update(host.facts(found["library"]["threads"]))
    found.update(disk.facts(found))
    found.update(gpu.facts(found))
    return found


def findings(found: dict[str, Any]) -> list[Finding]:
    return [finding for module in (shared_library, gpu, host, disk, packages) for finding in module.findings(found)]
