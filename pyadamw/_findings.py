"""Owns the form of a finding: how grave it is, what was found, and what to do. Must not know who finds what."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")  # the gravest last


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        level: "ok" (as it should be), "note" (good to know), "warning" (it works, but not as it could) or "error" (it
            does not work).
        subject: one word of what it is about, such as "library".
        text: a sentence that says what was found.
        cure: a sentence that says what to do; "" if there is nothing to do.
    """

    level: Level
    subject: str
    text: str
    cure: str = ""

    def as_dict(self) -> dict[str, Any]:
        return self._asdict()


def errors(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "error"]


def by_gravity(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first; findings of one level stay in their order."""
    return sorted(findings, key=lambda finding: -LEVELS.index(finding.level))
