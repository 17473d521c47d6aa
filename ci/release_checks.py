"""Owns what must be true of the tree before a version is released. Must not know how anything is built or tested.

usage: release_checks.py VERSION [ROOT]; prints what is wrong, a line each, and exits with 1.
"""

import re
import subprocess
import sys
from pathlib import Path

# Every place that spells the version for a reason of its own; all others ask the header.
PLACES = {
    "include/adamw.h": None,  # three numbers, below
    "recipe/recipe.yaml": r"^  version: \"?(\S+?)\"?(?:\s|$)",
}


def header_version(text):
    numbers = dict(re.findall(r"^#define ADAMW_VERSION_(MAJOR|MINOR|PATCH) (\d+)$", text, flags=re.M))
    return ".".join(numbers.get(part, "?") for part in ("MAJOR", "MINOR", "PATCH"))


def versions(root):
    """{file: the version that it spells}"""
    found = {}
    for name, pattern in PLACES.items():
        text = (root / name).read_text(encoding="utf-8")
        match = re.search(pattern, text, flags=re.M) if pattern else None
        found[name] = header_version(text) if pattern is None else match[1] if match else "nothing"
    return found


def changelog_problems(text, version):
    entry = re.search(rf"^## {re.escape(version)}( [^\n]*|)\n(.*?)(?=^## |\Z)", text, flags=re.M | re.S)
    if entry is None:
        yield f"CHANGELOG.md has no heading '## {version}'"
        return
    after, body = entry.groups()
    if not re.fullmatch(r" \(\d{4}-\d\d-\d\d\)", after):
        yield f"CHANGELOG.md: '## {version}{after}': must end with the date of the release, ' (YYYY-MM-DD)'"
    for heading in ("ABI", "Numerics"):
        below = re.search(rf"^### {heading}\n(.*?)(?=^### |\Z)", body, flags=re.M | re.S)
        if below is None or not below[1].strip():
            yield f"CHANGELOG.md: {version} has no '### {heading}', or nothing below it ('Nothing.' is enough)"


def git_problems(version, root):
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False).stdout.strip()

    changes = git("status", "--porcelain").splitlines()
    if changes:
        yield f"the tree has changes that are not committed: {', '.join(line.split()[-1] for line in changes[:5])}"
    if git("rev-parse", "-q", "--verify", f"v{version}^{{commit}}") not in ("", git("rev-parse", "HEAD")):
        yield f"the tag v{version} is there already, on another commit"


def problems(version, root):
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        yield f"version {version!r}: must be MAJOR.MINOR.PATCH, such as 1.0.0"
        return
    for name, found in versions(root).items():
        if found != version:
            yield f"{name} has version {found}: must be {version}"
    yield from changelog_problems((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    yield from git_problems(version, root)


def main(version, root=Path(__file__).parents[1]):
    found = list(problems(version, Path(root)))
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: release_checks.py VERSION [ROOT]")
    sys.exit(main(*sys.argv[1:]))
