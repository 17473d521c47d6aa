"""Owns importing packages that need not be there. Must not know what they are for."""

import importlib
import os
import sys


def optional(name):
    """A module, or None. Never one that lies in the current folder: `python -m pyadamw` looks there first, and beside a
    file of somebody else's there may be others."""
    path = sys.path
    try:
        sys.path = [entry for entry in path if entry and not _is_here(entry)]
        return importlib.import_module(name)
    except ImportError:
        return None
    finally:
        sys.path = path


def _is_here(entry):
    try:
        return os.path.samefile(entry, os.curdir)
    except OSError:  # one of them is not there
        return False
