"""Owns calling a function in workers of torch's DataLoader, after the fork. Must not know what the function does.

A forked child keeps the contents that buffers in files had at the fork. Therefore its parent must copy them before its
next step, if the child still lives then, and the disk must hold both copies. A child that saves a checkpoint needs
this. Workers of a DataLoader do not: they live for a whole epoch and never read an optimizer.
"""

from __future__ import annotations

from typing import Any

from .torch_private import after_fork, process_target


def leave_in_workers(owner: Any, leave: Any) -> None:
    """Calls leave(owner) in each DataLoader worker that is forked from now on, as long as `owner` lives."""
    after_fork(owner, lambda owner: leave(owner) if _is_worker() else None)


def _is_worker() -> bool:
    return getattr(process_target(), "__module__", None) == "torch.utils.data._utils.worker"
