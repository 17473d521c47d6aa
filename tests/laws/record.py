"""Owns the file of results: its fields, writing and reading it. Must not know how anything is measured.

The file: {"format": 1, "date": UTC, "machine": tests/bench/machine.py's, "versions": {package: version or None},
"changes": [what was not FlashOptim's own], "notes": [what a reader must know], "seconds": of the whole run, "laws":
{law: {"title", "promise", "sizes", "results": {optimizer: numbers}, "kept": {optimizer: whether it keeps the promise},
"missing": {optimizer: why}, "seconds": {optimizer: of a processor}}}}. A number that is NaN or infinite is null.
"""

import datetime
import json
import math

FORMAT = 1


def today():
    return datetime.datetime.now(datetime.timezone.utc)


def rounded(value):
    """Six digits, which is more than any of the figures is repeatable to. What is no finite number is None."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    return [rounded(part) for part in value] if isinstance(value, (list, tuple)) else value


def write(path, content):
    """One line for each optimizer of each law: curves are long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text({"format": FORMAT, **rounded(content)}, 4) + "\n", encoding="utf-8")


def _text(value, levels, indent=""):
    if not isinstance(value, dict) or not value or not levels:
        return json.dumps(value, allow_nan=False)
    inner = indent + " "
    parts = (f"{inner}{json.dumps(key)}: {_text(part, levels - 1, inner)}" for key, part in value.items())
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


class RecordError(Exception):
    """A file that is no record of laws."""


def read(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "laws" not in content:
        raise RecordError(f"{path} is not a record of laws of format {FORMAT}; python tests/laws --save writes one")
    return content
