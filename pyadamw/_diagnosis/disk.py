"""Owns what is to be known of the disk for state in files, PageManager("file"). Must not know how they are used."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._findings import Finding
from ..errors import AdamWError
from ..paging import PageManager

DEFAULT = "/var/tmp"  # as adamw.h says of adamw_pager_options.directory
IN_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
ELSEWHERE = re.compile(r"nfs\d*|cifs|smb\d*|9p|ceph|lustre|gpfs|beegfs|glusterfs|afs|wekafs|virtiofs|fuse\..*")
LITTLE = 1 << 30
_PAGE = 4096


def facts(found: dict[str, Any], root: str = "/") -> dict[str, Any]:
    """`found`: facts of the library. `root`: where the folder proc is."""
    variable = os.environ.get("TMPDIR")
    directory = variable or DEFAULT
    problem = _problem(directory, found["library"]["path"] is not None)
    return {
        "file_pages": {
            "directory": directory,
            "chosen_by": "TMPDIR" if variable else None,
            "file_system": _file_system(directory, Path(root)),
            "free_bytes": _free(directory),
            "past_page_cache": None if problem else _is_direct(directory),
            "problem": problem,
        }
    }


def _problem(directory: str, loaded: bool) -> str | None:
    """Why no file can be made there. The library tries it; without a library, Python does."""
    try:
        if loaded:
            PageManager("file", reserve_bytes=_PAGE)
        else:
            with tempfile.TemporaryFile(dir=directory) as file:
                os.posix_fallocate(file.fileno(), 0, _PAGE)
        return None
    except (AdamWError, OSError) as error:
        return " ".join(str(error).split())


def _free(directory: str) -> int | None:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _is_direct(directory: str) -> bool | None:
    """Whether files there can be read and written past the page cache."""
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            os.close(os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDWR | os.O_DIRECT))
            return True
    except OSError:
        return False


def _file_system(directory: str, root: Path) -> str | None:
    """The type of the file system on which a directory lies."""
    real, best, found = os.path.realpath(directory), -1, None
    try:
        lines = (root / "proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        place = re.sub(r"\\([0-7]{3})", lambda digits: chr(int(digits[1], 8)), fields[4])
        inside = real == place or real.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= best:  # what is mounted last hides what was there
            best, found = len(place), right.split()[0]
    return found


def findings(found: dict[str, Any]) -> Iterator[Finding]:
    facts_ = found["file_pages"]
    directory, type_, free = facts_["directory"], facts_["file_system"], facts_["free_bytes"]
    chosen = f" ({facts_['chosen_by']} chose it)" if facts_["chosen_by"] else ""
    cure = "Set TMPDIR, or pass PageManager('file', directory=...), to a writable directory on a local disk."
    if facts_["problem"]:
        text = f"State cannot be kept in files in {directory}{chosen}: {facts_['problem']}."
        yield Finding("warning", "file pages", text, cure)
        return
    wrong = False
    if type_ in IN_MEMORY:
        text = f"Files for state are made in {directory}{chosen}, which is in memory ({type_}): no memory is saved."
        yield Finding("warning", "file pages", text, cure)
        wrong = True
    elif type_ is not None and ELSEWHERE.fullmatch(type_):
        text = f"Files for state are made in {directory}{chosen}, a file system of the network ({type_})."
        text += " A step waits for it."
        yield Finding("warning", "file pages", text, cure)
        wrong = True
    elif facts_["past_page_cache"] is False:
        text = (
            f"Files in {directory} ({type_}) are read and written through the page cache, which takes memory and time."
        )
        yield Finding("note", "file pages", text, "A directory on ext4 or xfs can do without it.")
    if free is not None and free < LITTLE:
        yield Finding("warning", "file pages", f"Only {free >> 20:,} MiB are free in {directory}{chosen}.", cure)
        wrong = True
    limit = found["limits"]["file_bytes"]
    if limit is not None:
        text = f"A file of this process may have {limit >> 20:,} MiB (ulimit -f): state in files may not fit."
        yield Finding("warning", "file pages", text, "Raise the limit: ulimit -f unlimited.")
        wrong = True
    if not wrong:
        room = "" if free is None else f", with {free / 2**30:,.1f} GiB free"
        yield Finding("ok", "file pages", f"State can be kept in files in {directory} ({type_ or 'unknown'}){room}.")
