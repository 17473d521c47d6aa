"""Owns the demonstration `python -m pyadamw demo`: one small GPT, trained four times, by torch's AdamW and by ours.

Its two entry points load nothing heavy until they are called. The optimizers know nothing of this package.
"""

from .app import add_arguments, run

__all__ = ["add_arguments", "run"]
