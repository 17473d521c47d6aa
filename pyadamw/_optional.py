"""Owns importing packages that need not be installed. Must not know what they are for."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def optional(name: str) -> Any:
    """A module, or None. It never imports from the current folder.

    `python -m pyadamw` searches the current folder first, and a folder with a downloaded checkpoint may hold other
    files from the same source.
    """
    path = sys.path
    try:
        sys.path = [entry for entry in path if entry and not _is_here(entry)]
        return importlib.import_module(name)
    except ImportError:
        return None
    finally:
        sys.path = path


def _is_here(entry: Any) -> bool:
    try:
        return os.path.samefile(entry, os.curdir)
    except OSError:  # one of them does not exist
        return False
